"""The board's own measurements, on the emulated bench: with everything in order, and with trouble of every kind.

What is wrong is said in one line, the same in the log of the running firmware and in the selftest.
"""

import itertools
import re
import shutil

import pytest

from judder.board import Tree, tree
from judder.emulator.bench import Bench
from judder.emulator.i2c import ADDRESS_NACK, Injected
from judder.emulator.lis3dh import LIS3DH
from judder.emulator.machine import Machine
from judder.emulator.notecard import Fault, WebResponse
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError

SELFTEST = 'from firmware import selftest\nselftest()\nprint("end")\nwhile True:\n    import time\n    time.sleep(1)\n'
FIRMWARE = "from firmware import main\nmain()\n"
NEXT_TRY = re.compile(r"; \d+ waiting, next try in \d+ s$")


@pytest.fixture(params=["cpython", "micropython", "wasm"])
def runtime(request):
    try:
        return RUNTIMES[request.param]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def bench_with(runtime, tmp_path):
    """Make a bench that `prepare` may spoil; it runs `main`, and the firmware is a module that `edit` may change."""

    def make(main, prepare=lambda bench: None, edit=lambda text: text, odr_error=None, **settings):
        device = tmp_path / "device"
        shutil.rmtree(device, ignore_errors=True)
        shutil.copytree(tree().device, device)
        (device / "firmware.py").write_text(edit((device / "main.py").read_text()))
        (device / "main.py").write_text(main)
        bench = Bench(
            Machine.demo(),
            lambda _: WebResponse(200),
            settings=settings,
            firmware=Tree(device, tree().boot),
            runtime=runtime,
            odr_error=odr_error,
        )
        prepare(bench)
        return bench

    return make


@pytest.fixture
def measure(bench_with):
    """Run the selftest; returns figures, other lines, and the bench."""

    def run(prepare=lambda bench: None, edit=lambda text: text, **options):
        with bench_with(SELFTEST, prepare, edit, **options) as bench:
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
    assert not [line for line in rest if "PRODUCT_UID" in line]  # the Notecard has one of its own


def test_a_part_far_off_its_rate_is_named(measure):
    figures, rest, _ = measure(odr_error=-0.14)
    measured_hz = float(figures["odr_measured"].split()[0])
    assert rest[-2] == (
        f"asked 1344 Hz, measured {measured_hz:.0f} Hz ({measured_hz / 13.44 - 100:+.1f} %), 0 samples lost: "
        "lower ODR_HZ; if that is no help, replace the LIS3DH"
    )
    assert rest[-1] == "selftest: 1 parts failed"


def test_samples_lost_in_every_try_are_named(measure):
    def stall_again_and_again(bench):
        transfers = itertools.count()

        def stall(transfer):
            if transfer.address == 0x18 and next(transfers) % 200 == 0:
                bench.clock.charge(40_000_000)

        bench.bus.faults.append(stall)

    figures, rest, _ = measure(stall_again_and_again)
    lost = int(figures["samples_lost"].split()[0])
    assert lost > 0
    assert re.match(rf"asked 1344 Hz, measured \d+ Hz \([+-]\d\.\d %\), {lost} samples lost: lower ODR_HZ; ", rest[-2])
    assert rest[-1] == "selftest: 1 parts failed"


def test_the_other_parts_are_measured_when_one_is_missing(measure):
    figures, rest, _ = measure(lambda bench: bench.bus.chips.pop(0x17))
    assert "odr_measured" in figures
    assert rest[-1] == "selftest: 1 parts failed"
    figures, rest, bench = measure(lambda bench: bench.bus.chips.pop(0x18))
    assert figures["notecard_firmware"].strip() == bench.notecard.version
    assert rest[-1] == "selftest: 1 parts failed"


class Mute(Fault):
    """There, and without a word."""

    def swallows(self, card, request):
        return True


class Wavering(LIS3DH):
    """Its WHO_AM_I comes wrong and right in turn."""

    turns = itertools.cycle((0, 0x33))

    who_am_i = property(lambda chip: next(chip.turns))


def no_pull_ups(text):
    """As the ports that look for pull-ups say it."""
    head = "def open_i2c(frequency):\n"
    assert head in text
    return text.replace(head, head + '    raise RuntimeError("No pull up found on SDA or SCL; check your wiring")\n')


def trouble(name, line, prepare=lambda bench: None, edit=lambda text: text, **settings):
    return pytest.param(line, prepare, edit, settings, id=name)


@pytest.mark.parametrize("runtime", ["cpython", "micropython"], indirect=True)
@pytest.mark.parametrize(
    ("line", "prepare", "edit", "settings"),
    [
        trouble(
            "no sensor",
            "no LIS3DH at 0x18: Qwiic cable in? SENSOR_ADDRESS is 24 for 0x18, 25 for 0x19",
            lambda bench: bench.bus.chips.pop(0x18),
        ),
        trouble(
            "sensor at 0x19",
            "no LIS3DH at 0x18 but something at 0x19: set SENSOR_ADDRESS = 25",
            lambda bench: bench.bus.attach(0x19, bench.bus.chips.pop(0x18)),
        ),
        trouble(
            "a look-alike",
            "no LIS3DH at 0x18: WHO_AM_I is 0x44, not 0x33 (LIS2DW12): use an LIS3DH",
            lambda bench: setattr(bench.lis3dh, "who_am_i", 0x44),
        ),
        trouble(
            "another chip",
            "no LIS3DH at 0x18: WHO_AM_I is 0x55, not 0x33: use an LIS3DH",
            lambda bench: setattr(bench.lis3dh, "who_am_i", 0x55),
        ),
        trouble(
            "a WHO_AM_I that wavers",
            "no LIS3DH at 0x18: WHO_AM_I came wrong once: check Qwiic cable and pull-ups",
            lambda bench: setattr(bench.lis3dh, "__class__", Wavering),
        ),
        trouble(
            "a bus too bad for 400 kHz",
            "I2C is not reliable at 400 kHz: 100 kHz and 400 Hz from now on; check pull-ups",
            lambda bench: bench.bus.faults.append(
                lambda transfer: (
                    Injected(ADDRESS_NACK) if transfer.address == 0x18 and bench.bus.frequency_hz > 100_000 else None
                )
            ),
        ),
        trouble(
            "a stuck FIFO",
            "I2C or sensor: LIS3DH FIFO does not fill at 1344 Hz: check Qwiic cable and address",
            lambda bench: setattr(bench.lis3dh, "stuck_fifo", True),
        ),
        trouble(
            "no Notecard",
            "no Notecard at 0x17: FEATHER power switch on? Qwiic cable? a supply that gives 2 A?",
            lambda bench: bench.bus.chips.pop(0x17),
        ),
        trouble(
            "a mute Notecard",
            "no good answer from the Notecard to card.version (Failed to transact with Notecard.); if it stays so, "
            "check FEATHER power switch, Qwiic cable, supply",
            lambda bench: bench.notecard.faults.append(Mute()),
        ),
        trouble(
            "an old Notecard",
            "Notecard firmware notecard-4.4.1.4015903 lacks card.binary, needs 5.3.1 or later: `firmware install "
            "latest` in the Blues terminal",
            lambda bench: setattr(bench.notecard, "version", "notecard-4.4.1.4015903"),
        ),
        trouble(
            "no product",
            "the Notecard has no product and cannot reach Notehub: set PRODUCT_UID in settings.toml",
            lambda bench: bench.notecard.hub.clear(),
        ),
        trouble(
            "no pull-ups",
            "I2C bus does not open (No pull up found on SDA or SCL; check your wiring): no pull-ups? is the Qwiic "
            "cable in, is the Notecarrier powered?",
            edit=no_pull_ups,
        ),
        trouble(
            "a wrong setting",
            "settings.toml line 1: SAMPLES = 7; must be a whole number from 64 to 4096; using 1024",
            SAMPLES=7,
        ),
    ],
)
def test_trouble_is_one_line_the_same_in_the_log_and_in_the_selftest(
    bench_with, measure, line, prepare, edit, settings
):
    _, rest, _ = measure(prepare, edit, **settings)
    assert rest.count(line) == 1, rest
    with bench_with(FIRMWARE, prepare, edit, **settings) as bench:
        bench.run_for(300)
    log = [NEXT_TRY.sub("", said) for said in bench.swan.lines]
    assert line in log, log
