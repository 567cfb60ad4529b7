"""What the board says to somebody at its console: its own measurements, what is wrong, and that it was stopped.

What is wrong is said in one line, the same in the log of the running firmware and in the selftest.
"""

import itertools
import json
import re
import shutil

import pytest

from judder import decode
from judder.board import RING_BYTES, Tree, tree
from judder.emulator.bench import Bench
from judder.emulator.i2c import ADDRESS_NACK, Injected
from judder.emulator.lis3dh import LIS3DH
from judder.emulator.machine import Machine
from judder.emulator.notecard import Fault, WebResponse
from judder.emulator.notecard.link import NEVER
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError

SELFTEST = 'from firmware import selftest\nselftest()\nprint("end")\nwhile True:\n    import time\n    time.sleep(1)\n'
FIRMWARE = "from firmware import main\nmain()\n"
STOPPED = """
import time
from node import clock
import firmware
sleep = time.sleep
def sleep_or_stop(seconds):
    if clock.now_us() >= {stop_us}:
        time.sleep = sleep
        raise KeyboardInterrupt
    sleep(seconds)
time.sleep = sleep_or_stop
firmware.main()
print("main has returned")
firmware.selftest()
print("end")
while True:
    sleep(1)
"""
NEXT_TRY = re.compile(r"; \d+ waiting, next try in \d+ s$")


def acknowledge(request):
    held = [(window.boot, window.sequence) for window in decode(request.body)]
    return WebResponse(200, json.dumps({"stored": held, "rejected": []}).encode())


@pytest.fixture(params=["cpython", "micropython", "wasm"])
def runtime(request):
    try:
        return RUNTIMES[request.param]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def bench_with(runtime, tmp_path):
    """Make a bench that `prepare` may spoil; it runs `main`, and the firmware is a module that `edit` may change."""

    def make(
        main, prepare=lambda bench: None, edit=lambda text: text, odr_error=None, ring_bytes=RING_BYTES, **settings
    ):
        device = tmp_path / "device"
        shutil.rmtree(device, ignore_errors=True)
        shutil.copytree(tree().device, device)
        (device / "firmware.py").write_text(edit((device / "main.py").read_text()))
        (device / "main.py").write_text(main)
        bench = Bench(
            Machine.demo(),
            acknowledge,
            settings=settings,
            firmware=Tree(device, tree().boot),
            runtime=runtime,
            odr_error=odr_error,
            ring_bytes=ring_bytes,
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
        "sign",
        "frame",
        "binary_transfer",
        "level_read_longest",
        "heap_free" if bench.swan.heap_bytes else "frame",
    } <= figures.keys()
    assert figures["fifo_empty_flag"].strip() == "one read later"
    assert figures["wrong_offset"].startswith("refused")
    assert re.match(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{8} ", figures["notecard_crc"])
    assert "{not-supported}" in figures["notecard_errors"]
    assert figures["env_modified"].startswith("{")  # an answer, no error
    assert figures["signature"].strip() == "off"
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


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def stop(bench_with):
    """Start the firmware, press Ctrl-C after a while, then run the selftest; returns what main said, and the bench."""

    def run(after_s, prepare=lambda bench: None, **settings):
        with bench_with(STOPPED.format(stop_us=int(after_s * 1e6)), prepare, **settings) as bench:
            bench.swan.run(lambda: "main has returned" in bench.swan.lines)
            said = [line for line in bench.swan.lines if "mode: " not in line]
            bench.left_armed = bench.notecard.attn.due_ns() < NEVER
            bench.stopping_s = bench.clock.now_ns() / 1e9 - after_s
            bench.swan.run(lambda: "end" in bench.swan.lines)
        return said[:-1], bench

    return run


def without_network(bench):
    bench.notecard.link.outages.append((0, 86400 * 10**9))


def test_ctrl_c_ends_in_one_line_that_counts_the_windows_lost(stop):
    said, bench = stop(200, without_network, CAPTURE_EVERY_S=30, ring_bytes=0)
    assert said[0] == "judder 0.1.0 starts"
    assert len(bench.captured) >= 4
    assert said[-1] == f"stopped at the console; windows not sent yet, and lost: {len(bench.captured)}"
    assert not bench.left_armed
    assert bench.swan.lines[-2] == "selftest: all well"  # the bus is free again


def test_ctrl_c_leaves_windows_in_the_ring_s_file(stop):
    said, bench = stop(200, without_network, CAPTURE_EVERY_S=30)
    assert len(bench.captured) >= 4
    assert (
        sum(int(line.split()[0]) for line in said if "moved to ring.bin, 0 in RAM" in line) == len(bench.captured) + 1
    )  # the report
    assert said[-1] == "stopped at the console"


@pytest.mark.parametrize("runtime", ["cpython"], indirect=True)
@pytest.mark.parametrize("after_s", [0.4, 0.9, 1.3, 2, 2.5, 2.64, 2.7, 3, 4, 5, 5.22, 5.28, 14.76, 14.82, 15.7, 60])
def test_ctrl_c_may_come_at_any_time_and_leaves_no_watchdog_armed(stop, after_s):
    said, bench = stop(after_s, lambda bench: bench.notecard.attn.set_mode(["watchdog"], 1800, None, 0))
    assert said[-1].startswith("stopped at the console")
    assert not bench.left_armed
    assert bench.stopping_s < 12  # up to 10 of them until the next sleep, where Ctrl-C comes in


@pytest.mark.parametrize("runtime", ["cpython", "micropython"], indirect=True)
def test_ctrl_c_works_without_a_notecard(stop):
    said, _ = stop(60, lambda bench: bench.bus.chips.pop(0x17))
    assert said[-1] == "stopped at the console"


def test_nothing_is_lost_when_nothing_waited(stop):
    said, bench = stop(120)
    assert bench.acknowledged
    assert said[-1] == "stopped at the console"


@pytest.mark.parametrize("runtime", ["cpython"], indirect=True)
def test_ctrl_c_before_anything_has_started_is_no_different(stop):
    said, _ = stop(0)
    assert said == ["judder 0.1.0 starts", "stopped at the console"]
