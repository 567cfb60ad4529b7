"""The board's own measurements, on the emulated bench: with everything in order, and with a part missing."""

import re
import shutil

import pytest

from judder.board import Tree, tree
from judder.emulator.bench import Bench
from judder.emulator.machine import Machine
from judder.emulator.notecard import WebResponse
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError

MAIN = 'from firmware import selftest\nselftest()\nprint("end")\nwhile True:\n    import time\n    time.sleep(1)\n'


def answer(request):
    return WebResponse(200)


@pytest.fixture(params=["cpython", "micropython", "wasm"])
def measure(request, tmp_path):
    """Run the selftest on a bench that `prepare` may spoil; returns figures and complaints."""
    try:
        runtime = RUNTIMES[request.param]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    device = tmp_path / "device"
    shutil.copytree(tree().device, device)
    (device / "main.py").rename(device / "firmware.py")
    (device / "main.py").write_text(MAIN)

    def run(prepare=lambda bench: None, **settings):
        bench = Bench(
            Machine.demo(),
            lambda _: WebResponse(200),
            settings=settings,
            firmware=Tree(device, tree().boot),
            runtime=runtime,
        )
        prepare(bench)
        with bench:
            bench.swan.run(lambda: "end" in bench.swan.lines)
        lines = [line for line in bench.swan.lines if line != "end"]
        figures = dict(line.split(" = ", 1) for line in lines if re.match(r"[a-z0-9_]+ = ", line))
        return figures, [line for line in lines if not re.match(r"[a-z0-9_]+ = ", line)], bench

    return run


def test_a_board_in_order_says_what_it_measures(measure):
    figures, rest, bench = measure()
    assert rest[-1] == "selftest: all well", rest
    assert {
        "clock_step",
        "sleep_of_5_ms",
        "level_read",
        "gc_collect",
        "encode",
        "frame",
        "binary_transfer",
    } <= figures.keys()
    assert figures["i2c_answers"].split() == ["0x17", "0x18"]
    assert figures["i2c_at_400_khz"].strip() == "reliable"
    truth = 1 / (sum(bench.lis3dh.arrival_ns(n + 1) - bench.lis3dh.arrival_ns(n) for n in (100,)) / 1e9)
    assert float(figures["odr_measured"].split()[0]) == pytest.approx(truth, rel=1e-3)
    assert figures["samples_lost"].startswith("0 of 1024")
    assert figures["notecard_firmware"].strip() == bench.notecard.version
    assert figures["device"].strip() == bench.device


def test_what_is_missing_is_named_with_what_to_do(measure):
    figures, rest, _ = measure(lambda bench: bench.bus.chips.pop(0x17))
    assert "scan: no Notecard at 0x17; FEATHER power switch on? Qwiic cable? a supply that gives 2 A?" in rest
    assert "odr_measured" in figures  # the other part is still measured
    assert rest[-1].endswith("parts failed")
    figures, rest, bench = measure(lambda bench: bench.bus.chips.pop(0x18))
    assert figures["notecard_firmware"].strip() == bench.notecard.version
    assert any(line.startswith("scan: no LIS3DH at 0x18; Qwiic cable in?") for line in rest)


def test_a_wrong_setting_is_named(measure):
    _, rest, _ = measure(SAMPLES=7)
    assert any("SAMPLES = 7; must be a whole number from 64 to 4096" in line for line in rest)
