"""The emulated board on a desk, through the real mpremote: CircuitPython's console, drive and ways to restart."""

import time

import pytest
from mpremote.transport import TransportExecError
from mpremote.transport_serial import SerialTransport
from tests.desk import bare_desk

from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import I2CBus

FOR_EVER = b"import time\nprint('runs')\nwhile True:\n    time.sleep(1)\n"


@pytest.fixture
def desk(tmp_path):
    clock = VirtualClock()
    with bare_desk(clock, I2CBus(clock), tmp_path) as desk:
        yield desk


@pytest.fixture
def mpremote(desk):
    transport = SerialTransport(str(desk.path), timeout=5)
    transport.enter_raw_repl()
    yield transport
    transport.serial.close()


def error(transport, source):
    with pytest.raises(TransportExecError) as raised:
        transport.exec(source)
    return raised.value.error_output.strip().splitlines()[-1]


def test_a_new_board_says_hello_and_waits_for_a_key(desk):
    desk.wait_for("Press any key to enter the REPL")
    assert "Hello World!" in desk.swan.lines


def test_code_runs_by_raw_paste_and_keeps_its_names(mpremote):
    mpremote.exec("x = 6")
    assert mpremote.exec("print(x * 7)") == b"42\r\n"
    assert mpremote.use_raw_paste
    long = "text = '" + "a" * 5000 + "'\nprint(len(text))"
    assert mpremote.exec(long) == b"5000\r\n"


def test_code_runs_without_raw_paste_too(mpremote):
    mpremote.use_raw_paste = False
    assert mpremote.exec("print(1 + 1)") == b"2\r\n"


def test_errors_are_in_circuitpythons_words(mpremote):
    assert error(mpremote, "open('nothing')") == "OSError: [Errno 2] No such file/directory"
    assert error(mpremote, "import os\nos.mkdir('new')") == "OSError: [Errno 30] Read-only filesystem"
    assert error(mpremote, "open('new', 'w')") == "OSError: [Errno 30] Read-only filesystem"
    assert error(mpremote, "import storage\nstorage.remount('/', False)").startswith("RuntimeError: Cannot remount")
    assert error(mpremote, "import os\nos.ilistdir()").startswith("AttributeError")
    assert error(mpremote, "1 +") != ""
    assert error(mpremote, "raise ValueError('x')") == "ValueError: x"


def test_the_repl_takes_the_drive_and_writes(mpremote, desk):
    mpremote.exec("import os, storage\nstorage.unsafe_disable_usb_drive()")
    mpremote.exec("os.mkdir('d')\nwith open('d/f', 'wb') as file: file.write(b'abc')")
    assert (desk.swan.drive / "d" / "f").read_bytes() == b"abc"
    assert error(mpremote, "os.mkdir('d')") == "OSError: [Errno 17] File exists"
    assert error(mpremote, "os.rename('d/f', 'settings.toml')") == "OSError: [Errno 17] File exists"
    mpremote.exec("os.rename('d/f', 'd/g')\nos.remove('d/g')\nos.rmdir('d')")
    mpremote.exec("storage.enable_usb_drive()")
    assert error(mpremote, "os.mkdir('d')") == "OSError: [Errno 30] Read-only filesystem"


def test_a_drive_that_is_erased_is_a_new_one(mpremote, desk):
    desk.do(lambda: desk.swan.pc_writes("lib/mine.py", b""))
    with pytest.raises(OSError, match="Input/output error"):  # the port goes away
        mpremote.exec("import storage\nstorage.erase_filesystem()")
    desk.wait_for_port()
    assert sorted(path.name for path in desk.swan.drive.iterdir() if path.name != "boot_out.txt") == [
        "code.py",
        "lib",
        "settings.toml",
    ]
    assert not list((desk.swan.drive / "lib").iterdir())


def test_an_older_circuitpython_cannot_take_it(tmp_path):
    clock = VirtualClock()
    with bare_desk(clock, I2CBus(clock), tmp_path, version=(10, 2, 0)) as desk:
        transport = SerialTransport(str(desk.path), timeout=5)
        transport.enter_raw_repl()
        assert "AttributeError" in error(transport, "import storage\nstorage.unsafe_disable_usb_drive()")
        transport.close()


def test_a_full_drive_says_so(mpremote, desk):
    mpremote.exec("import os, storage\nstorage.unsafe_disable_usb_drive()")
    free = int(mpremote.exec("found = os.statvfs('/')\nprint(found[0] * found[3])"))
    mpremote.exec(f"file = open('big', 'wb')\nfile.write(bytes({free - 1024}))\nfile.close()")
    assert error(mpremote, "file = open('more', 'wb')\nfile.write(bytes(4096))") == (
        "OSError: [Errno 28] No space left on device"
    )


def test_mpremotes_own_copy_of_a_new_file_fails_as_on_the_board(mpremote):
    """The reason for judder's own way: adafruit/circuitpython#10507."""
    mpremote.exec("import storage\nstorage.unsafe_disable_usb_drive()")
    with pytest.raises(TransportExecError):
        mpremote.fs_stat("/new.py")


def test_a_running_program_is_interrupted(desk):
    desk.do(lambda: desk.swan.pc_writes("code.py", FOR_EVER))
    desk.wait_for("runs")
    transport = SerialTransport(str(desk.path), timeout=5)
    transport.enter_raw_repl()
    assert transport.exec("print(1)") == b"1\r\n"
    assert "KeyboardInterrupt: " in desk.swan.lines
    transport.close()


def test_auto_reload_runs_what_the_pc_wrote_but_not_while_the_repl_is_used(desk, mpremote):
    desk.do(lambda: desk.swan.pc_writes("code.py", b"print('one')\n"))
    mpremote.exec("print('still here')")
    assert "one" not in desk.swan.lines
    mpremote.exit_raw_repl()
    mpremote.serial.write(b"\x04")
    desk.wait_for("one")
    desk.do(lambda: desk.swan.pc_writes("code.py", b"print('two')\n"))
    desk.wait_for("two")
    assert desk.swan.boots == 1


def test_the_pc_cannot_write_what_the_firmware_owns(desk):
    desk.do(lambda: desk.swan.pc_writes("boot.py", b"import storage\nstorage.remount('/', readonly=False)\n"))
    desk.do(desk.swan.reset)
    desk.wait_for("Press any key")
    with pytest.raises(PermissionError):
        desk.do(lambda: desk.swan.pc_writes("code.py", b""))


def test_the_friendly_repl_edits_and_evaluates(desk, mpremote):
    mpremote.exit_raw_repl()
    mpremote.serial.write(b"2+2x\x08\r")
    deadline = time.monotonic() + 5
    seen = b""
    while b"4\r\n>>> " not in seen and time.monotonic() < deadline:
        seen += mpremote.serial.read(max(1, mpremote.serial.inWaiting()))
    assert b"4\r\n>>> " in seen


def test_a_reset_takes_the_port_away_and_brings_another(desk, mpremote):
    desk.do(desk.swan.reset)
    with pytest.raises(OSError, match="Input/output error"):
        mpremote.serial.inWaiting()
    again = SerialTransport(str(desk.wait_for_port()), timeout=5)
    again.enter_raw_repl()
    assert again.exec("print(1)") == b"1\r\n"
    assert desk.swan.boots == 2
    again.close()


def test_after_a_crash_nothing_runs_but_safemode_py(desk):
    desk.do(
        lambda: desk.swan.pc_writes("safemode.py", b"import supervisor\nprint(supervisor.runtime.safe_mode_reason)")
    )
    desk.do(lambda: desk.swan.reset("HARD_FAULT"))
    desk.wait_for("HARD_FAULT")
    desk.wait_for("Running in safe mode!")
    assert list(desk.swan.lines).count("Hello World!") <= 2
