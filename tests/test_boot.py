"""boot.py and safemode.py on the emulated board: who owns the drive, and how it gets up again after a crash."""

import pytest
from tests.desk import bare_desk, console_of, full_desk, install

from judder.config import Config
from judder.deploy import firmware
from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import I2CBus
from judder.emulator.notehub import Notehub
from judder.server import background

NORMAL = "normal mode: the firmware owns the drive"
SERVICE = "service mode: the PC owns the drive"
MAIN = b"import safemode\nprint('runs, recoveries', safemode.recoveries())\n"
LIMIT = 5


@pytest.fixture
def desk(tmp_path):
    """A board with the real boot.py and safemode.py, and a main.py that says that it runs."""
    with installed(tmp_path, tmp_path / "drive") as desk:
        yield desk


def installed(tmp_path, drive, **options):
    drive.mkdir()
    files = firmware()
    (drive / "boot.py").write_bytes(files["boot.py"])
    (drive / "safemode.py").write_bytes(files["safemode.py"])
    (drive / "main.py").write_bytes(MAIN)
    clock = VirtualClock()
    return bare_desk(clock, I2CBus(clock), tmp_path, drive=drive, **options)


def again(desk, safe_mode=""):
    """What the board prints after a reset, until it waits for a key."""

    def reset():
        desk.swan.lines.clear()
        desk.swan.reset(safe_mode)

    desk.do(reset)
    desk.wait_for("Press any key")
    return list(desk.swan.lines)


def test_normally_the_firmware_owns_the_drive(desk):
    lines = again(desk)
    assert NORMAL in lines
    assert "runs, recoveries 0" in lines
    with pytest.raises(PermissionError):
        desk.do(lambda: desk.swan.pc_writes("settings.toml", b""))


def test_the_button_gives_it_to_the_pc(desk):
    desk.swan.button_pressed = True
    lines = again(desk)
    assert SERVICE in lines
    assert "runs, recoveries 0" in lines
    desk.do(lambda: desk.swan.pc_writes("settings.toml", b"SAMPLES = 512\n"))
    desk.swan.button_pressed = False
    assert NORMAL in again(desk)


def test_so_does_the_flag_until_the_pc_takes_it_away(desk):
    (desk.swan.drive / "service").touch()
    assert SERVICE in again(desk)
    assert SERVICE in again(desk)
    (desk.swan.drive / "service").unlink()  # as the PC may
    assert NORMAL in again(desk)


@pytest.mark.parametrize(
    "text",
    [b"import nothing_of_that_name\n", b"def broken(:\n", b"raise MemoryError\n", b"import storage\nstorage.x()\n"],
)
def test_a_broken_boot_py_leaves_the_drive_to_the_pc(desk, text):
    (desk.swan.drive / "boot.py").write_bytes(text)
    again(desk)
    desk.do(lambda: desk.swan.pc_writes("boot.py", firmware()["boot.py"]))
    assert NORMAL in again(desk)


def test_a_board_that_cannot_be_asked_stays_open(desk):
    text = firmware()["boot.py"].replace(b"import board\n", b"import a_board_of_another_kind as board\n")
    (desk.swan.drive / "boot.py").write_bytes(text)
    assert SERVICE in again(desk)


def test_a_board_without_the_button_has_the_flag(desk):
    text = firmware()["boot.py"].replace(b'"BUTTON_USR"', b'"BUTTON_OF_ANOTHER_BOARD"')
    (desk.swan.drive / "boot.py").write_bytes(text)
    assert NORMAL in again(desk)


@pytest.mark.parametrize("reason", ["HARD_FAULT", "BROWNOUT", "NLR_JUMP_FAIL", "WATCHDOG", "NO_HEAP", "STACK_OVERFLOW"])
def test_after_a_crash_it_gets_up_by_itself(desk, reason):
    boots = desk.swan.boots
    assert "runs, recoveries 1" in again_and_up(desk, reason)
    assert desk.swan.boots == boots + 2
    with pytest.raises(PermissionError):  # and the firmware owns the drive as before
        desk.do(lambda: desk.swan.pc_writes("settings.toml", b""))


def again_and_up(desk, reason):
    desk.do(lambda: crash(desk, reason))
    desk.wait_for("runs, recoveries")
    return list(desk.swan.lines)


def crash(desk, reason):
    desk.swan.lines.clear()
    desk.swan.reset(reason)


def test_but_not_for_ever(desk):
    for time in range(1, LIMIT + 1):
        assert f"runs, recoveries {time}" in again_and_up(desk, "HARD_FAULT")
    boots = desk.swan.boots
    lines = again(desk, "HARD_FAULT")
    assert desk.swan.boots == boots + 1
    assert "Running in safe mode! Not running saved code." in lines
    desk.do(lambda: desk.swan.pc_writes("main.py", MAIN))  # the PC owns the drive
    assert f"runs, recoveries {LIMIT}" in again(desk)  # a person or the watchdog presses RESET: it runs


def test_a_stored_window_makes_it_start_counting_anew(tmp_path):
    drive = tmp_path / "drive"
    install(drive)
    (drive / "recoveries.txt").write_text("4")
    with background(Config(data=tmp_path / "data", port=0)) as server:
        hub = Notehub({"ingest": server.url})
        with full_desk(tmp_path, drive=drive, send=hub.send) as desk:
            desk.wait_for("stored")
            desk.wait_for(":1 captured")
            assert not (drive / "recoveries.txt").exists()
        assert desk.error is None


def test_the_pauses_grow_from_one_to_sixteen_seconds(desk):
    paused_s = []
    for _ in range(LIMIT):
        before = desk.swan.clock.now_ns()
        again_and_up(desk, "BROWNOUT")
        paused_s.append(round((desk.swan.clock.now_ns() - before) / 1e9))
    assert paused_s == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    "reason", ["USER", "PROGRAMMATIC", "SAFEMODE_PY_ERROR", "USB_TOO_MANY_ENDPOINTS", "FLASH_WRITE_FAIL"]
)
def test_who_asks_for_safe_mode_gets_it(desk, reason):
    lines = again(desk, reason)
    assert "Running in safe mode! Not running saved code." in lines
    assert not (desk.swan.drive / "recoveries.txt").exists()


def test_a_count_that_cannot_be_read_counts_as_full(desk):
    (desk.swan.drive / "recoveries.txt").write_text("\0\0")
    assert "Running in safe mode! Not running saved code." in again(desk, "HARD_FAULT")


def test_a_count_that_cannot_be_written_means_no_recovery(desk):
    """Or it would go on for ever."""
    desk.swan.drive_bytes = 0
    lines = again(desk, "HARD_FAULT")
    assert any("No space left on device" in line for line in lines)
    assert "Running in safe mode! Not running saved code." in lines
    desk.do(lambda: desk.swan.pc_writes("settings.toml", b""))  # the PC can make room


def test_safe_mode_is_entered_from_the_repl(desk):
    again(desk)
    with console_of(desk) as console:
        console.run("import microcontroller\nmicrocontroller.on_next_reset(microcontroller.RunMode.SAFE_MODE)")
        desk.swan.lines.clear()
        console.needs_reset = True
    desk.wait_for("Running in safe mode!")
