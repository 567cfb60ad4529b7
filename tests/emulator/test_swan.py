"""The emulated Swan: small firmwares in the child interpreter show that it behaves as the board's sources say."""

import itertools
import os
import textwrap

import pytest

from judder.board import Tree, tree
from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import I2CBus
from judder.emulator.stream import Stream, carry_out
from judder.emulator.swan import RTC_HZ, Swan, SwanCrashError, Timing

STEADY = Timing(stall_probability=0.0)


class Echo:
    """A chip that gives back what was written to it, and refuses 0xEE."""

    def __init__(self):
        self.held = b""

    def answers(self):
        return True

    def write(self, data, byte_ns):
        self.held = data
        return data[:1] != b"\xee"

    def read(self, length, byte_ns):
        return (self.held * length)[:length]


@pytest.fixture
def run(tmp_path):
    """Run a firmware given as text until it prints `end`; returns its lines and the Swan."""

    def run_firmware(text, timing=STEADY, until="end", **options):
        (tmp_path / "main.py").write_text(textwrap.dedent(text))
        (tmp_path / "lib").symlink_to(tree().device / "lib")
        bus = I2CBus(VirtualClock())
        bus.attach(0x42, Echo())
        firmware = Tree(tmp_path, tree().boot)
        with Swan(bus.clock, bus, timing=timing, firmware=firmware, **options) as swan:
            swan.run(lambda: until in swan.lines)
        return [line for line in swan.lines if line != until][1:], swan

    return run_firmware


def test_time_comes_in_ticks_of_the_crystal_and_reading_it_takes_one(run):
    lines, _ = run(
        """
        import time
        print([time.monotonic_ns() for _ in range(5)])
        print("end")
        """
    )
    times = eval(lines[0])
    for a, b in itertools.pairwise(times):
        assert round((b - a) * RTC_HZ / 1e9) == 1
        assert abs(a * RTC_HZ / 1e9 - round(a * RTC_HZ / 1e9)) < 1e-4


def test_a_fast_crystal_shows_in_the_boards_time_only(run):
    lines, swan = run(
        """
        import time
        before = time.monotonic_ns()
        time.sleep(100)
        print(time.monotonic_ns() - before)
        print("end")
        """,
        timing=Timing(stall_probability=0.0, crystal_ppm=50_000.0),
    )
    assert int(lines[0]) / 1e9 == pytest.approx(100, abs=0.002)
    assert swan.clock.now_ns() / 1e9 == pytest.approx(100 / 1.05, abs=0.002)


def test_sleep_ends_on_a_tick_and_so_up_to_a_tick_early(run):
    lines, _ = run(
        """
        import time
        for i in range(40):
            time.sleep(0.0037)
            before = time.monotonic_ns()
            time.sleep(0.005)
            print(time.monotonic_ns() - before)
        print("end")
        """
    )
    slept_ms = [int(line) / 1e6 for line in lines]
    assert all(3.9 < ms < 5.0 for ms in slept_ms)


def test_busio_is_as_strict_as_the_port(run):
    lines, _ = run(
        """
        import board, busio
        def error(call):
            try:
                call()
                return "fine"
            except Exception as error:
                return type(error).__name__
        print(error(lambda: busio.I2C(board.SCL, board.SDA, frequency=1000000)))
        i2c = busio.I2C(board.SCL, board.SDA, frequency=400000)
        print(error(lambda: busio.I2C(board.SCL, board.SDA)))
        print(error(lambda: i2c.writeto(0x42, b"x")))
        print(i2c.try_lock(), i2c.try_lock())
        print(error(lambda: i2c.writeto(0x42, b"x")))
        print(error(lambda: i2c.writeto(0x43, b"x")))
        print(error(lambda: i2c.writeto(0x42, b"\\xee")))
        print(i2c.scan())
        i2c.deinit()
        print(error(lambda: i2c.writeto(0x42, b"x")))
        busio.I2C(board.SCL, board.SDA, frequency=100000)
        print("end")
        """
    )
    assert lines == [
        "ValueError",
        "ValueError",
        "RuntimeError",
        "True False",
        "fine",
        "OSError",
        "OSError",
        "[66]",
        "ValueError",
    ]


def test_start_and_end_count_elements(run):
    lines, _ = run(
        """
        import board, busio
        from array import array
        i2c = busio.I2C(board.SCL, board.SDA, frequency=400000)
        i2c.try_lock()
        i2c.writeto(0x42, b"abcdef", start=1, end=3)
        counts = array("h", [0] * 6)
        i2c.readfrom_into(0x42, counts, start=3, end=5)
        print(list(counts))
        print("end")
        """
    )
    assert lines == [str([0, 0, 0, 0x6362, 0x6362, 0])]


def test_write_then_read_hides_a_nack_as_the_stm_port_does(run):
    lines, _ = run(
        """
        import board, busio
        i2c = busio.I2C(board.SCL, board.SDA, frequency=400000)
        i2c.try_lock()
        buffer = bytearray(b"old")
        i2c.writeto_then_readfrom(0x43, b"x", buffer)
        print(buffer)
        print("end")
        """
    )
    assert lines == ["bytearray(b'old')"]


def test_bus_calls_cost_interpreter_and_wire_and_stalls_come_on_top(run):
    firmware = """
        import board, busio, time
        i2c = busio.I2C(board.SCL, board.SDA, frequency=400000)
        i2c.try_lock()
        before = time.monotonic_ns()
        for _ in range(200):
            i2c.writeto(0x42, b"x")
        print((time.monotonic_ns() - before) // 200)
        print("end")
        """
    steady, _ = run(firmware)
    assert int(steady[0]) == pytest.approx(100_000 + 20 * 2500, rel=0.02)


def test_stalls_are_random_and_bounded(run):
    lines, _ = run(
        """
        import board, busio, time
        i2c = busio.I2C(board.SCL, board.SDA, frequency=400000)
        i2c.try_lock()
        for _ in range(2000):
            before = time.monotonic_ns()
            i2c.writeto(0x42, b"x")
            took = time.monotonic_ns() - before
            if took > 300000:
                print(took)
        print("end")
        """,
        timing=Timing(stall_probability=0.05),
    )
    assert 60 < len(lines) < 150
    assert max(map(int, lines)) < 10_300_000


def test_random_numbers_follow_the_seed(tmp_path, run):
    firmware = "import os\nprint(os.urandom(4).hex())\nprint('end')\n"
    first, _ = run(firmware, seed=7)
    (tmp_path / "lib").unlink()
    second, _ = run(firmware, seed=7)
    (tmp_path / "lib").unlink()
    third, _ = run(firmware, seed=8)
    assert first == second != third


def test_settings_are_on_the_drive_and_the_libraries_are_the_boards(run):
    lines, _ = run(
        """
        import sys, adafruit_lis3dh, notecard
        print(open("settings.toml").read())
        print(sys.implementation.name, notecard.use_i2c_lock, notecard.use_periphery)
        print("end")
        """,
        settings={"LABEL": "idle", "SAMPLES": 256},
    )
    assert lines == ["LABEL = 'idle'", "SAMPLES = 256", "", "circuitpython True False"]


def test_a_reset_boots_anew(run):
    _, swan = run(
        """
        import microcontroller, os
        if "been.here" in os.listdir():
            print("end")
        open("been.here", "w").close()
        microcontroller.reset()
        """
    )
    assert swan.boots == 2


def test_the_reason_of_a_reset_is_unknown_as_the_stm_port_has_it_unless_told_otherwise(tmp_path):
    (tmp_path / "main.py").write_text("import microcontroller as m\nprint(m.cpu.reset_reason)\nprint('end')\n")
    bus = I2CBus(VirtualClock())
    with Swan(bus.clock, bus, firmware=Tree(tmp_path, tree().boot)) as swan:
        swan.run(lambda: "end" in swan.lines)
        swan.reset(reset_reason="WATCHDOG")
        swan.run(lambda: swan.lines.count("end") == 2)
    reasons = [line for line in swan.lines if "Reason" in line]
    assert reasons == ["microcontroller.ResetReason.UNKNOWN", "microcontroller.ResetReason.WATCHDOG"]


def test_a_firmware_that_ends_is_a_crash_with_its_last_words(run):
    with pytest.raises(SwanCrashError, match=r"(?s)last words.*ZeroDivisionError"):
        run("print('last words')\n1 / 0\n")


def test_the_stream_knows_transfer_probe_reset_and_refuses_the_rest():
    to_bench, client_out = os.pipe()
    client_in, from_bench = os.pipe()
    bus = I2CBus(VirtualClock())
    bus.attach(0x42, Echo())
    stream = Stream(to_bench, from_bench)

    def ask(op, address=0, written=b"", read_length=0):
        header = bytes([ord(op), address, *len(written).to_bytes(2, "little"), *read_length.to_bytes(2, "little")])
        for part in (header[:3], header[3:] + written):  # requests may arrive in pieces
            os.write(client_out, part)
        request = stream.request()
        stream.reply(*carry_out(request, bus, {}))
        return os.read(client_in, 1000)

    assert ask("T", 0x42, b"ab", 4) == b"\0\4\0abab"
    assert ask("T", 0x42) == b"\0\0\0"
    assert ask("T", 0x43, b"a") == b"\1\0\0"
    assert ask("T", 0x42, b"\xee") == b"\2\0\0"
    assert ask("X") == b"\0\0\0"
    assert bus.resets == 1
    assert ask("?") == b"\xff\0\0"
    os.close(client_out)
    assert stream.request() is None
    for fd in (to_bench, client_in, from_bench):
        os.close(fd)
