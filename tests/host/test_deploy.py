"""judder deploy on an emulated board, through the real mpremote: the board runs, or we say what to do."""

import os
import pty

import pytest
from serial.tools.list_ports_common import ListPortInfo
from tests.desk import bare_desk, console_of
from tests.host.test_cli import complaint, judder

from judder import usb
from judder.board import RING_BYTES
from judder.console import Console
from judder.deploy import carry_out, check_board, firmware, plan
from judder.drive import READ_ONLY, ConsoleDrive, FolderDrive
from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import PowerCut
from judder.usb import BoardError, Seen

MAIN = """
from node import part
import library
print("runs", {version!r}, part.VERSION, library.VERSION)
"""
IDLE = "Code done running."


def small(version):
    """A firmware of few files that tells which of them it is made of."""
    return {
        "boot.py": firmware()["boot.py"] + f"# {version}\n".encode(),
        "main.py": MAIN.format(version=version).encode(),
        "node/__init__.py": b"",
        "node/part.py": f"VERSION = {version!r}\n".encode(),
        "lib/library.py": f"VERSION = {version!r}\n".encode() + b"#" * 3000,
    }


@pytest.fixture
def new_desk(tmp_path):
    """Makes boards that last as long as the test."""
    made = []

    def make(name="desk", **options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        clock = VirtualClock()
        desk = bare_desk(clock, I2CBus(clock), folder, **options)
        desk.__enter__()
        made.append(desk)
        return desk

    yield make
    for desk in made:
        desk.__exit__(None, None, None)
        assert desk.error is None


def put(desk, files):
    """Deploy `files` and reset; returns the plan."""
    with console_of(desk) as console:
        drive = ConsoleDrive(console)
        intended = plan(drive, files)
        carry_out(drive, intended)
        desk.swan.lines.clear()
        console.reset()
    return intended


def on(desk, path):
    return desk.swan.drive / path


def test_a_new_board_gets_everything_and_runs_it(new_desk):
    desk = new_desk()
    intended = put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    assert intended.defaults == ["code.py"]
    assert not on(desk, "code.py").exists()
    assert on(desk, "ring.bin").stat().st_size == RING_BYTES
    assert not list(desk.swan.drive.rglob("*.new"))
    assert "normal mode: the firmware owns the drive" in desk.swan.lines


def test_only_what_differs_is_written(new_desk):
    desk = new_desk()
    put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    steps = len(desk.swan.drive_steps)
    again = put(desk, small("1"))
    assert again.nothing
    assert len(again.unchanged) == 5
    desk.wait_for("runs 1 1 1")
    changed = small("1") | {"node/part.py": b"VERSION = '2'\n"}
    intended = put(desk, changed)
    desk.wait_for("runs 1 2 1")
    assert list(intended.changed) == ["node/part.py"]
    # staged (open, write), main.py aside, old away, new in its place, main.py back
    assert desk.swan.drive_steps[steps:] == ["open", "write", "rename", "remove", "rename", "rename"]


def test_the_boards_own_files_stay(new_desk):
    desk = new_desk()
    desk.do(lambda: desk.swan.pc_writes("settings.toml", b'DEVICE_SN = "pump-3"\n'))
    desk.do(lambda: desk.swan.pc_writes("lib/mine.py", b"mine = 1\n"))
    desk.do(lambda: desk.swan.pc_writes("code.py", b"print('my own program')\n"))
    put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    on(desk, "ring.bin").write_bytes(b"windows".ljust(RING_BYTES, b"\0"))
    intended = put(desk, small("2"))
    desk.wait_for("runs 2 2 2")
    assert on(desk, "settings.toml").read_bytes() == b'DEVICE_SN = "pump-3"\n'
    assert on(desk, "lib/mine.py").read_bytes() == b"mine = 1\n"
    assert on(desk, "code.py.before-judder").read_bytes() == b"print('my own program')\n"
    assert on(desk, "ring.bin").read_bytes().startswith(b"windows")
    assert intended.ring_bytes == 0


def test_a_ring_file_of_another_size_is_left_alone(new_desk):
    desk = new_desk()
    put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    on(desk, "ring.bin").write_bytes(b"short")
    with console_of(desk) as console:
        intended = plan(ConsoleDrive(console), small("1"))
    assert intended.ring_bytes == 0
    assert "left alone" in intended.remarks[0]


def test_modules_of_an_older_firmware_go_away(new_desk):
    desk = new_desk()
    put(desk, small("1") | {"node/old.py": b""})
    desk.wait_for("runs")
    assert put(desk, small("1")).obsolete == ["node/old.py"]
    desk.wait_for("runs")
    assert not on(desk, "node/old.py").exists()


def drive_steps_of_an_update(new_desk):
    desk = new_desk("count")
    put(desk, small("old"))
    desk.wait_for("runs old old old")
    before = len(desk.swan.drive_steps)
    put(desk, small("new"))
    desk.wait_for("runs new new new")
    return len(desk.swan.drive_steps) - before


@pytest.mark.slow
@pytest.mark.parametrize("cut", list(PowerCut))
def test_a_cable_pulled_at_any_step_leaves_a_board_that_runs_or_waits_for_another_try(new_desk, cut, tmp_path):
    steps = drive_steps_of_an_update(new_desk)
    outcomes = set()
    for step in range(1, steps + 1):
        desk = new_desk(f"{cut}{step}")
        put(desk, small("old"))
        desk.wait_for("runs old old old")
        desk.swan.cut_at, desk.swan.cut = len(desk.swan.drive_steps) + step, cut
        with pytest.raises(BoardError, match=r"the board went away .*: plug it in again and repeat the command"):
            put(desk, small("new"))
        assert not desk.swan.has_power
        desk.swan.lines.clear()
        desk.do(desk.swan.power_on)
        outcomes.add(what_runs(desk))
        put(desk, small("new"))
        desk.wait_for("runs new new new")
        assert not list(desk.swan.drive.rglob("*.new"))
        desk.do(desk.swan.power_off)
    assert steps > 15
    assert outcomes == {"runs old old old", IDLE}  # never a mixture; a last step leaves nothing to be cut


def what_runs(desk):
    """The line of the firmware that ran, or that none did. A traceback is neither."""
    desk.wait_for(IDLE)
    (said,) = [line for line in desk.swan.lines if line.startswith(("runs", "Traceback"))] or [IDLE]
    return said


@pytest.mark.slow
def test_a_cable_pulled_at_any_step_of_the_first_installation(new_desk):
    desk = new_desk("count")
    put(desk, small("new"))
    desk.wait_for("runs new new new")
    steps = len(desk.swan.drive_steps)
    for step in [*range(1, 5), *range(steps - 24, steps + 1)]:  # the ring file's 64 writes are all alike
        desk = new_desk(f"step{step}")
        desk.swan.cut_at = step
        with pytest.raises(BoardError, match="plug it in again"):
            put(desk, small("new"))
        desk.do(desk.swan.power_on)
        desk.wait_for(IDLE)
        put(desk, small("new"))
        desk.wait_for("runs new new new")
        desk.do(desk.swan.power_off)


def test_a_drive_that_is_full_from_the_start_is_left_as_it_was(new_desk):
    desk = new_desk()
    desk.swan.drive_bytes = 100_000
    desk.do(desk.swan.reset)
    before = sorted(path.name for path in desk.swan.drive.rglob("*"))
    with pytest.raises(BoardError, match=r"not enough room on the board: 26\d KB are needed, 9\d KB are free; delete"):
        put(desk, small("1"))
    assert sorted(path.name for path in desk.swan.drive.rglob("*")) == before


def test_a_drive_that_fills_up_meanwhile_keeps_the_old_firmware(new_desk):
    desk = new_desk()
    put(desk, small("old"))
    desk.wait_for("runs old old old")
    with console_of(desk) as console:
        drive = ConsoleDrive(console)
        intended = plan(drive, small("new"))

        def fill_up(written):
            on(desk, "log").write_bytes(bytes(desk.swan.drive_bytes))

        with pytest.raises(BoardError, match="the board's drive is full: delete files there and repeat"):
            carry_out(drive, intended, fill_up)
        assert not list(desk.swan.drive.rglob("*.new"))
        desk.swan.lines.clear()
        console.reset()
    desk.wait_for("runs old old old")


def test_a_drive_that_cannot_be_taken_says_what_to_do(new_desk):
    desk = new_desk(version=(10, 2, 0))
    with pytest.raises(BoardError) as raised:
        put(desk, small("1"))
    assert str(raised.value) == READ_ONLY


def test_a_drive_that_becomes_read_only_meanwhile(new_desk):
    desk = new_desk()
    with console_of(desk) as console:
        drive = ConsoleDrive(console)
        intended = plan(drive, small("1"))

        def hand_over(written):
            console.run("storage.enable_usb_drive()")

        with pytest.raises(BoardError, match="became read-only while it was written: press RESET and repeat"):
            carry_out(drive, intended, hand_over)


def test_what_reads_back_wrong_is_not_installed(new_desk):
    desk = new_desk()
    put(desk, small("old"))
    desk.wait_for("runs old old old")
    with console_of(desk) as console:
        drive = ConsoleDrive(console)

        def spoil(written):
            for path in desk.swan.drive.rglob("*.new"):
                path.write_bytes(b"spoiled")

        with pytest.raises(BoardError, match="what was written reads back wrong"):
            carry_out(drive, plan(drive, small("new")), spoil)
        desk.swan.lines.clear()
        console.reset()
    desk.wait_for("runs old old old")


def test_another_board_is_refused_unless_asked_for(new_desk):
    desk = new_desk(board="raspberry_pi_pico")
    with console_of(desk) as console:
        with pytest.raises(BoardError, match=r"this is a raspberry_pi_pico .* --any-board"):
            check_board(console.identity)
        check_board(console.identity, any_board=True)


def test_an_old_circuitpython_is_refused(new_desk):
    with (
        console_of(new_desk(version=(8, 2, 2))) as console,
        pytest.raises(BoardError, match=r"CircuitPython 8\.2\.2 is too old"),
    ):
        check_board(console.identity)


def test_a_micropython_board(new_desk):
    try:
        runtime = RUNTIMES["micropython"]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    desk = new_desk(runtime=runtime)
    with console_of(desk) as console:
        check_board(console.identity)
        assert console.identity.runtime == "micropython"
    put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    intended = put(desk, small("1") | {"node/part.py": b"VERSION = '2'\n"})
    assert list(intended.changed) == ["node/part.py"]
    desk.wait_for("runs 1 2 1")


def test_onto_a_mounted_drive(tmp_path):
    folder = tmp_path / "CIRCUITPY"
    (folder / "lib").mkdir(parents=True)
    (folder / "code.py").write_text('print("Hello World!")\n')
    (folder / "settings.toml").write_text("")
    drive = FolderDrive(folder)
    carry_out(drive, plan(drive, small("1")))
    assert plan(drive, small("1")).nothing
    assert not (folder / "code.py").exists()
    assert (folder / "ring.bin").stat().st_size == RING_BYTES


def test_a_folder_that_is_none(tmp_path):
    assert "is no folder: give the place where the drive CIRCUITPY is mounted" in complaint(
        "deploy", "--drive", tmp_path / "nowhere"
    )


# --- finding the board --------------------------------------------------------------------------------------------


def port(device, ids):
    found = ListPortInfo(device)
    found.vid, found.pid = ids
    found.product = "Swan R5"
    return found


def seen(*ports, ids=(), labels=()):
    return Seen(ports, frozenset(ids), frozenset(labels))


def test_the_one_swan_is_found_among_other_things():
    assert usb.find(seen(port("/dev/b", usb.NOTECARD), port("/dev/a", usb.SWAN), port("/dev/c", (1, 2)))) == "/dev/a"
    assert usb.find(seen(port("/dev/b", usb.NOTECARD), port("/dev/c", (0x2E8A, 5)))) == "/dev/c"


def test_two_boards_are_named():
    with pytest.raises(BoardError, match=r"2 boards: /dev/a \(Swan R5\), /dev/b \(Swan R5\); choose one with --port"):
        usb.find(seen(port("/dev/a", usb.SWAN), port("/dev/b", usb.SWAN)))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (seen(), "no board on USB: plug in the Swan's own socket"),
        (seen(labels={"SWANBOOT"}, ids={usb.SWAN}), "I see SWANBOOT, the Swan's bootloader; copy CircuitPython's .uf2"),
        (seen(ids={usb.ROM_BOOTLOADER}), "press RESET without holding BOOT"),
        (seen(ids={usb.SWAN}), "a Swan is there without a serial port"),
        (seen(port("/dev/a", usb.NOTECARD), ids={usb.NOTECARD}), "only the Notecard's own USB is connected"),
    ],
)
def test_without_a_board_the_likeliest_reason_is_told(what, said):
    with pytest.raises(BoardError) as raised:
        usb.find(what)
    assert said in str(raised.value)


def test_a_real_look_at_this_computer_works():
    assert isinstance(usb.look().labels, frozenset)


def test_a_port_that_is_not_there_or_not_ours(tmp_path, monkeypatch):
    with pytest.raises(BoardError, match="is not there: plug the board in"):
        usb.check_access(str(tmp_path / "ttyACM0"))
    locked = tmp_path / "ttyACM1"
    locked.touch()
    monkeypatch.setattr(usb.os, "access", lambda path, mode: False)  # as root everything may be opened
    with pytest.raises(BoardError, match=r"permission denied on .*: sudo usermod -aG \w+ \$USER, then log in again"):
        usb.check_access(str(locked))


def test_something_that_is_no_console():
    master, slave = pty.openpty()
    try:
        with pytest.raises(BoardError, match="does not answer as a Python console: is it the right port"):
            Console(os.ttyname(slave), patience_s=0.2).__enter__()
    finally:
        os.close(master)
        os.close(slave)


# --- the command --------------------------------------------------------------------------------------------------


def test_the_command_installs_the_whole_firmware(new_desk):
    desk = new_desk()
    dry = judder("deploy", "--port", desk.path, "--dry-run").stdout
    assert "main.py differs" in dry
    assert "ring.bin would be made, 256 KB" in dry
    assert desk.swan.drive_steps == []
    ended = judder("deploy", "--port", desk.path, "--watch-s", "1", "--json")
    assert '"removed": ["code.py"]' in ended.stdout
    for path, data in firmware().items():
        assert on(desk, path).read_bytes() == data
    assert "up to date" in judder("deploy", "--port", desk.path, "--watch-s", "0").stdout


def test_service_mode_and_back(new_desk):
    desk = new_desk()
    put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    desk.swan.lines.clear()
    said = judder("deploy", "--port", desk.path, "--service", "--watch-s", "0").stdout
    assert "the drive belongs to this computer until the next judder deploy" in said
    desk.wait_for("service mode: the PC owns the drive")
    desk.wait_for("runs 1 1 1")  # the firmware runs all the same
    desk.do(lambda: desk.swan.pc_writes("settings.toml", b"SAMPLES = 512\n"))
    assert put(desk, small("1")).leaves_service_mode
    desk.wait_for("normal mode: the firmware owns the drive")
    assert not on(desk, "service").exists()
    assert on(desk, "settings.toml").read_bytes() == b"SAMPLES = 512\n"


def test_no_board_is_one_line():
    if usb.look().ports:
        pytest.skip("a board is plugged in")
    assert "no board on USB" in complaint("deploy") or "Notecard" in complaint("deploy")
