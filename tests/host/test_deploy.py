"""judder deploy on an emulated board, through the real mpremote: the board runs, or we say what to do."""

import errno
import json
import os
import pty
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serial.tools.list_ports_common import ListPortInfo
from tests.desk import bare_desk, console_of, desks
from tests.host.test_cli import judder
from tests.models import drawn, spectral

import slots
from judder import __version__, code, usb
from judder.board import MODEL_FILE, RING_BYTES, RING_FILE, SLOT_FOLDER, SLOTS, tree
from judder.console import Console, Identity
from judder.deploy import LEFT_OUT, ask_for_service_mode, base, carry_out, check_board, deploy, firmware, plan
from judder.drive import FOLDER, READ_ONLY, ConsoleDrive, Digest, FolderDrive
from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import PowerCut
from judder.manifest import MANIFEST, read_manifest
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

    def make(name="desk", **options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        clock = VirtualClock()
        return switch_on(bare_desk(clock, I2CBus(clock), folder, **options))

    with desks() as switch_on:
        yield make


def put(desk, files):
    """Deploy `files` and reset; returns the plan."""
    with console_of(desk) as console:
        drive = ConsoleDrive(console)
        intended = plan(drive, files)
        carry_out(drive, intended)
        desk.swan.lines.clear()
        console.needs_reset = True
    return intended


def on(desk, path):
    return desk.swan.drive / path


def slots_on(folder):
    return {name: (folder / name).stat().st_size for name in SLOTS if (folder / name).exists()}


def test_a_new_board_gets_everything_and_runs_it(new_desk):
    desk = new_desk()
    intended = put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    assert intended.defaults == ["code.py"]
    assert not on(desk, "code.py").exists()
    assert on(desk, "ring.bin").stat().st_size == RING_BYTES
    assert slots_on(desk.swan.drive) == SLOTS
    assert on(desk, SLOT_FOLDER).is_dir()
    assert not list(desk.swan.drive.rglob("*.new"))
    assert "normal mode: the firmware owns the drive" in desk.swan.lines


def test_firmware_and_deploy_mean_the_same_ring_file():
    assert f'RING_FILE = "{RING_FILE}"' in firmware()["node/node.py"].decode()


def test_firmware_and_deploy_mean_the_same_slots():
    assert [name for kind in (slots.MODEL, slots.CODE) for name in slots.NAMES[kind]] == list(SLOTS)
    assert slots.NAMES[slots.CODE][0] == code.SLOT
    assert f'"{code.SLOT}" in os.listdir()' in firmware()["main.py"].decode()
    assert (f"/{SLOT_FOLDER}", MANIFEST, MODEL_FILE) == (slots.FOLDER, slots.MANIFEST, slots.MODEL_FILE)
    assert (slots.CONTENT_AT, slots.GUARD_BYTES) == (code.HEAD_BYTES, code.GUARD_BYTES)
    assert f'ENDING = "{code.ENDING}"' in firmware()["node/update.py"].decode()
    assert f'FILE = "{MANIFEST}"' in firmware()["node/manifest.py"].decode()


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
    assert not intended.makes_ring


def test_a_ring_file_of_another_size_is_left_alone(new_desk):
    desk = new_desk()
    put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    on(desk, "ring.bin").write_bytes(b"short")
    with console_of(desk) as console:
        intended = plan(ConsoleDrive(console), small("1"))
    assert not intended.makes_ring
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
@pytest.mark.parametrize("cut", [PowerCut.before, PowerCut.midway])
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
        assert on(desk, "ring.bin").stat().st_size == RING_BYTES
        desk.do(desk.swan.power_off)
    assert steps > 15
    assert outcomes == {"runs old old old", IDLE}  # never a mixture; a last step leaves nothing to be cut


@pytest.mark.slow
def test_a_cut_into_the_drive_s_table_costs_the_drive_and_the_next_deploy_installs_everything(new_desk):
    """CircuitPython finds no file system then, and makes a new one: ring.bin, settings and all are gone."""
    for step in range(1, drive_steps_of_an_update(new_desk) + 1):
        desk = new_desk(f"table{step}")
        put(desk, small("old"))
        desk.wait_for("runs old old old")
        desk.swan.cut_at, desk.swan.cut = len(desk.swan.drive_steps) + step, PowerCut.table
        with pytest.raises(BoardError, match="plug it in again"):
            put(desk, small("new"))
        assert "write in place" not in desk.swan.drive_steps
        desk.swan.lines.clear()
        desk.do(desk.swan.power_on)
        desk.wait_for("Hello World!")
        assert not on(desk, "ring.bin").exists()
        intended = put(desk, small("new"))
        assert intended.makes_ring
        assert intended.changed.keys() == small("new").keys()
        desk.wait_for("runs new new new")
        assert on(desk, "ring.bin").stat().st_size == RING_BYTES
        desk.do(desk.swan.power_off)


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
    exchanged = steps - len(SLOTS) - sum(1 + size // 4096 for size in SLOTS.values())
    in_slots = [exchanged + 1, steps - len(SLOTS), steps - len(SLOTS) + 1, steps]
    for step in [*range(1, 5), *range(exchanged - 24, exchanged + 1), *in_slots]:  # a file's writes are all alike
        desk = new_desk(f"step{step}")
        desk.swan.cut_at = step
        with pytest.raises(BoardError, match="plug it in again"):
            put(desk, small("new"))
        desk.swan.lines.clear()
        desk.do(desk.swan.power_on)
        desk.wait_for(IDLE)
        if step > exchanged:
            assert "runs new new new" in desk.swan.lines
            assert slots_on(desk.swan.drive).items() <= SLOTS.items()
        put(desk, small("new"))
        desk.wait_for("runs new new new")
        assert on(desk, "ring.bin").stat().st_size == RING_BYTES
        assert slots_on(desk.swan.drive) == SLOTS
        desk.do(desk.swan.power_off)


def test_slots_for_code_make_way_for_a_firmware_that_has_no_room_beside_the_old_one(new_desk):
    desk = new_desk()
    large = {"node/large.py": b"#" * 20_000}
    put(desk, small("1") | large)
    desk.wait_for("runs 1 1 1")
    on(desk, "model-a.bin").write_bytes(b"a model".ljust(SLOTS["model-a.bin"], b"\0"))
    used = sum(-(-path.stat().st_size // 512) * 512 for path in desk.swan.drive.rglob("*.*")) + 512 * 5
    desk.swan.drive_bytes = used + 12_000
    desk.do(desk.swan.reset)
    intended = put(desk, small("2") | {"node/large.py": b"#" * 20_001})
    desk.wait_for("runs 2 2 2")
    assert list(intended.dropped) == list(intended.slots) == ["code-a.bin", "code-b.bin"]
    assert slots_on(desk.swan.drive) == SLOTS
    assert on(desk, "model-a.bin").read_bytes().startswith(b"a model")
    assert not list(desk.swan.drive.rglob("*.new"))


def test_a_drive_that_is_full_from_the_start_is_left_as_it_was(new_desk):
    desk = new_desk()
    desk.swan.drive_bytes = 100_000
    desk.do(desk.swan.reset)
    before = sorted(path.name for path in desk.swan.drive.rglob("*"))
    with pytest.raises(BoardError, match=r"not enough room on the board: 26\d KB are needed, 9\d KB are free; judder"):
        put(desk, small("1"))
    assert sorted(path.name for path in desk.swan.drive.rglob("*")) == before
    desk.do(lambda: desk.swan.pc_writes("settings.toml", b""))  # the drive is still the PC's, who can make room


def test_a_drive_that_fills_up_meanwhile_keeps_the_old_firmware(new_desk):
    desk = new_desk()
    put(desk, small("old"))
    desk.wait_for("runs old old old")
    with console_of(desk) as console:
        drive = ConsoleDrive(console)
        intended = plan(drive, small("new"))

        def fill_up(written):
            on(desk, "log").write_bytes(bytes(desk.swan.drive_bytes))

        with pytest.raises(BoardError, match="the board's drive is full: judder deploy --service gives it to you"):
            carry_out(drive, intended, fill_up)
        assert not list(desk.swan.drive.rglob("*.new"))
        desk.swan.lines.clear()
    desk.wait_for("runs old old old")  # again, as after each refusal


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
    desk.wait_for("runs old old old")


def test_another_board_is_refused_unless_asked_for(new_desk):
    desk = new_desk(board="raspberry_pi_pico")
    desk.wait_for(IDLE)
    desk.swan.lines.clear()
    with console_of(desk) as console:
        with pytest.raises(BoardError, match=r"this is a raspberry_pi_pico .* --any-board"):
            check_board(console.identity)
        with pytest.raises(BoardError, match="--any-board"):
            ask_for_service_mode(ConsoleDrive(console))
        check_board(console.identity, any_board=True)
        desk.swan.lines.clear()
    desk.wait_for("Hello World!")  # its own program runs again
    assert desk.swan.drive_steps == []


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
    with console_of(desk) as console, pytest.raises(BoardError, match="service mode is CircuitPython's"):
        ask_for_service_mode(ConsoleDrive(console))


@pytest.fixture
def mounted(tmp_path):
    """A drive as CircuitPython makes it, mounted."""
    folder = tmp_path / "CIRCUITPY"
    (folder / "lib").mkdir(parents=True)
    (folder / "code.py").write_text('print("Hello World!")\n')
    (folder / "settings.toml").write_text("")
    (folder / "boot_out.txt").write_text(
        "Adafruit CircuitPython 10.2.0 on 2026-01-01; Swan\nBoard ID:swan_r5\nUID:00\n"
    )
    return folder


def test_onto_a_mounted_drive(mounted):
    drive = FolderDrive(mounted)
    assert drive.identity.version == (10, 2, 0)
    carry_out(drive, plan(drive, small("1")))
    assert plan(drive, small("1")).nothing
    assert not (mounted / "code.py").exists()
    assert (mounted / "ring.bin").stat().st_size == RING_BYTES


def test_the_command_onto_a_mounted_drive(mounted):
    ended = judder("deploy", "--drive", mounted)
    assert "press RESET on the board" in ended.stderr
    for path, data in firmware().items():
        assert (mounted / path).read_bytes() == data


def test_the_manifest_tells_what_was_deployed_and_a_second_deploy_writes_nothing(mounted):
    model = drawn(blocks=[spectral(fft=16)]).to_bytes()
    for chosen, model_id in ((None, ""), (model, model[-4:][::-1].hex()), (None, "")):
        deploy(FolderDrive(mounted), on_plan=lambda intended: lambda written: None, model=chosen)
        listing = read_manifest((mounted / MANIFEST).read_bytes())
        assert (listing["version"], listing["model"]) == (__version__, model_id)
        files = firmware() | ({} if chosen is None else {MODEL_FILE: chosen})
        assert listing["files"] == {path: tuple(Digest.of(content)) for path, content in files.items()}
        assert deploy(FolderDrive(mounted), on_plan=lambda intended: None, model=chosen).nothing
    assert (mounted / MODEL_FILE).read_bytes() == model


def test_what_the_firmware_never_imports_is_left_out_and_removed_where_it_is_ours(mounted):
    libraries = {path: (tree().device / path).read_bytes() for path in LEFT_OUT}
    assert not firmware().keys() & libraries.keys()
    for path, content in libraries.items():
        (mounted / path).parent.mkdir(exist_ok=True)
        (mounted / path).write_bytes(content)
    theirs = mounted / "lib/notecard/card.py"
    theirs.write_bytes(theirs.read_bytes() + b"# mine\n")
    intended = plan(FolderDrive(mounted), small("1"))
    assert set(intended.obsolete) == {*LEFT_OUT} - {"lib/notecard/card.py"}
    carry_out(FolderDrive(mounted), intended)
    assert [path for path in LEFT_OUT if (mounted / path).exists()] == ["lib/notecard/card.py"]
    assert theirs.read_bytes().endswith(b"# mine\n")
    assert plan(FolderDrive(mounted), small("1")).nothing


def test_what_is_left_out_is_named_once_and_would_take_what_is_said():
    assert len(set(LEFT_OUT)) == len(LEFT_OUT)
    assert sum((tree().device / path).stat().st_size for path in LEFT_OUT) == pytest.approx(120_000, rel=0.01)


def test_a_slot_of_another_size_is_replaced_and_one_of_the_right_size_stays(mounted):
    carry_out(FolderDrive(mounted), plan(FolderDrive(mounted), small("1")))
    start = (mounted / "main.py").stat()
    (mounted / "code-a.bin").write_bytes(bytes(128 * 1024))
    (mounted / "code-b.bin").unlink()
    (mounted / "model-b.bin").write_bytes(b"an update".ljust(SLOTS["model-b.bin"], b"\0"))
    intended = plan(FolderDrive(mounted), small("1"))
    assert (list(intended.slots), list(intended.dropped)) == (["code-a.bin", "code-b.bin"], ["code-a.bin"])
    carry_out(FolderDrive(mounted), intended)
    assert slots_on(mounted) == SLOTS
    assert (mounted / "model-b.bin").read_bytes().startswith(b"an update")
    found = (mounted / "main.py").stat()
    assert (found.st_ino, found.st_ctime_ns) == (start.st_ino, start.st_ctime_ns)  # it had no need to go away


def test_the_slot_folder_alone_is_made(mounted):
    carry_out(FolderDrive(mounted), plan(FolderDrive(mounted), base(__version__)))
    (mounted / SLOT_FOLDER).rmdir()
    assert judder("deploy", "--drive", mounted).stdout == f"{mounted}: slot/ made\n"
    assert (mounted / SLOT_FOLDER).is_dir()


def test_a_model_goes_along_and_stays(mounted, tmp_path):
    data = drawn(blocks=[spectral(fft=16)]).to_bytes()
    (tmp_path / "some.bin").write_bytes(data)
    judder("deploy", "--drive", mounted, "--model", tmp_path / "some.bin")
    assert (mounted / MODEL_FILE).read_bytes() == data
    judder("deploy", "--drive", mounted)
    assert (mounted / MODEL_FILE).read_bytes() == data
    (tmp_path / "some.bin").write_bytes(data[:-1])
    ended = judder("deploy", "--drive", mounted, "--model", tmp_path / "some.bin", code=2)
    (line,) = ended.stderr.splitlines()
    assert "some.bin" in line
    assert "bytes are there" in line
    assert (mounted / MODEL_FILE).read_bytes() == data


def test_firmware_and_deploy_mean_the_same_model_file():
    assert f'MODEL_FILE = "{MODEL_FILE}"' in firmware()["node/policy.py"].decode()


def test_a_folder_that_is_no_drive_is_left_alone(tmp_path):
    (tmp_path / "main.py").write_text("mine")
    ended = judder("deploy", "--drive", tmp_path, code=1)
    assert "is no CircuitPython drive" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["main.py"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("node/part.py", "node/part.py is a folder on the board and has to be a file: delete it there"),
        ("main.py", "main.py is a folder on the board"),
        ("service", "service is a folder on the board"),
        ("code-a.bin", "code-a.bin is a folder on the board"),
    ],
)
def test_a_folder_where_a_file_has_to_be(mounted, path, said):
    (mounted / path).mkdir(parents=True)
    with pytest.raises(BoardError, match=said):
        plan(FolderDrive(mounted), small("1"))


def test_a_file_where_a_folder_has_to_be(mounted):
    (mounted / "node").write_text("")
    with pytest.raises(BoardError, match="node is a file on the board and has to be a folder: delete it there"):
        plan(FolderDrive(mounted), small("1"))


def test_programs_of_others_are_kept_under_names_that_are_free(mounted):
    (mounted / "code.py").write_text("second")
    (mounted / "code.py.before-judder").write_text("first")
    (mounted / "main.py").write_text("somebody's")
    (mounted / "boot.py").write_text("somebody's too")
    drive = FolderDrive(mounted)
    carry_out(drive, plan(drive, small("1")))
    assert (mounted / "code.py.before-judder").read_text() == "first"
    assert (mounted / "code.py.before-judder-2").read_text() == "second"
    assert (mounted / "main.py.before-judder").read_text() == "somebody's"
    assert (mounted / "boot.py.before-judder").read_text() == "somebody's too"
    carry_out(drive, plan(drive, small("2")))
    assert not (mounted / "main.py.before-judder-2").exists()  # that one was ours


# --- interrupted, at random ------------------------------------------------------------------------------------------


class CutError(Exception):
    pass


class Fat:
    """A drive in memory that behaves as FAT does, and loses its power at step `cut`."""

    identity = Identity("swan_r5", "circuitpython", (10, 3, 1), "Swan")

    def __init__(self, files, capacity=1 << 20):
        self.files = dict(files)
        self.capacity = capacity
        self.folders = set()
        self.steps, self.cut = 0, 0

    def _step(self):
        self.steps += 1
        if self.steps == self.cut:
            raise CutError

    def take(self):
        pass

    def digests(self, paths):
        found = {path: Digest.of(self.files[path]) if path in self.files else None for path in paths}
        return found | {path: FOLDER for path in paths if path in self.folders}

    def names(self, folder):
        prefix = f"{folder}/" if folder else ""
        paths = [path for path in [*self.files, *self.folders] if path.startswith(prefix)]
        return sorted({path.removeprefix(prefix).split("/")[0] for path in paths})

    def free_bytes(self):
        return self.capacity - sum(-(-len(data) // 512) * 512 for data in self.files.values())

    def make_folder(self, path):
        self._step()
        self.folders.add(path)

    def write(self, path, data, progress):
        for part in (b"", data[: len(data) // 2], data):
            self._step()
            self.files[path] = part
            if self.free_bytes() < 0:
                raise OSError(errno.ENOSPC, "No space left on device", path)

    def fill(self, path, size):
        self.write(path, b"\xff" * size, None)

    def change(self, steps):
        for old, new in steps:
            self._step()
            if not new:
                self.files.pop(old, None)
            elif new in self.files or old not in self.files:
                raise OSError(errno.EEXIST if new in self.files else errno.ENOENT, "refused", new)
            else:
                self.files[new] = self.files.pop(old)


def runs(drive, versions):
    """Which version starts; None for none or somebody's. Fails for a mixture."""
    if "main.py" not in drive.files or {"code.py", "code.txt"} & drive.files.keys():
        return None
    for version, files in versions.items():
        if all(drive.files.get(path) == data for path, data in files.items()):
            return version
    if drive.files["main.py"] == b"somebody's":
        return None
    raise AssertionError(sorted(drive.files))


ROOMY, TIGHT, NARROW = 1 << 20, RING_BYTES + sum(SLOTS.values()) + 44_000, RING_BYTES + 200_000


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from("123"), st.integers(0, 75)), max_size=4),
    st.sampled_from("123"),
    st.booleans(),
    st.sampled_from(
        [
            {"code.py": b'print("Hello World!")\n'},
            {"code.py": b"somebody's", "code.py.before-judder": b"older"},
            {"main.py": b"somebody's", "boot.py": b"somebody's"},
            {"code-a.bin": bytes(1000), "model-a.bin": bytes(SLOTS["model-a.bin"] + 1)},
            {},
        ]
    ),
    st.sampled_from([ROOMY, TIGHT, NARROW]),
)
def test_after_any_interruptions_one_version_runs_whole_or_none_and_another_try_finishes(
    tries, last, same_main, start, capacity
):
    versions = {
        version: small(version) | {f"node/only{version}.py": b"", "node/large.py": version.encode() * 25_000}
        for version in "123"
    }
    if same_main:
        versions = {version: files | {"main.py": small("0")["main.py"]} for version, files in versions.items()}
    drive = Fat(start, capacity)
    for version, cut in tries:
        drive.steps, drive.cut = 0, cut
        with suppress(CutError):
            carry_out(drive, plan(drive, versions[version]))
        runs(drive, versions)
    drive.cut = 0
    carry_out(drive, plan(drive, versions[last]))
    assert runs(drive, versions) == last
    again = plan(drive, versions[last])
    assert again.nothing
    assert len(drive.files["ring.bin"]) == RING_BYTES
    made = {} if capacity == NARROW else SLOTS
    assert {name: len(drive.files[name]) for name in SLOTS if name in drive.files} == made
    assert len(again.remarks) == 1 + (capacity == NARROW)  # no settings.toml
    assert not [path for path in drive.files if path.endswith(".new")]
    assert sorted(data for data in start.values() if data in (b"somebody's", b"older")) == sorted(
        data for data in drive.files.values() if data in (b"somebody's", b"older")
    )


def test_slots_that_have_no_room_are_a_remark_and_the_firmware_is_installed():
    drive = Fat({}, 0)
    others = Fat({**small("1"), RING_FILE: bytes(RING_BYTES)}, 0)
    drive.capacity = sum(SLOTS.values()) + 8192 - others.free_bytes() - 3 * 1024
    intended = plan(drive, small("1"))
    assert intended.slots == {}
    assert intended.remarks[-1].startswith(
        "no room for model-a.bin, model-b.bin, code-a.bin, code-b.bin: 3 KB are missing, and without them there are no "
        "updates by file; judder deploy --service gives you the drive"
    )
    carry_out(drive, intended)
    assert runs(drive, {"1": small("1")}) == "1"
    drive.capacity += 3 * 1024
    carry_out(drive, plan(drive, small("1")))
    assert {name: len(drive.files[name]) for name in SLOTS} == SLOTS


def test_slots_that_find_less_room_than_was_there_leave_the_firmware_in_place():
    drive = Fat({})
    intended = plan(drive, small("1"))
    drive.capacity = RING_BYTES + 100_000
    with pytest.raises(BoardError, match="the firmware is in place, and room for updates by file could not be made"):
        carry_out(drive, intended)
    assert runs(drive, {"1": small("1")}) == "1"
    assert not SLOTS.keys() & {path.removesuffix(".new") for path in drive.files}


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


def test_a_strangers_serial_port_is_not_touched():
    with pytest.raises(BoardError, match=r"no Swan .* if it is one of /dev/c: --port"):
        usb.find(seen(port("/dev/c", (0x0403, 0x6001))))


def test_a_real_look_at_this_computer_works():
    here = usb.look()
    assert all(port.vid is not None for port in here.ports)
    assert {(port.vid, port.pid) for port in here.ports} <= here.usb_ids


def test_a_port_that_is_not_there_or_not_ours(tmp_path, monkeypatch):
    with pytest.raises(BoardError, match="is not there: plug the board in"):
        usb.check_access(str(tmp_path / "ttyACM0"))
    with pytest.raises(BoardError, match="is no serial port: leave out --port"):
        usb.check_access(str(tmp_path))
    monkeypatch.setattr(usb.os, "access", lambda path, mode: False)  # as root everything may be opened
    with pytest.raises(BoardError, match=r"permission denied on .*: sudo usermod -aG \w+ \$USER, then log in again"):
        usb.check_access("/dev/tty")


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
    assert "model-a.bin, model-b.bin, code-a.bin, code-b.bin would be made for updates by file, 400 KB" in dry
    assert desk.swan.drive_steps == []
    ended = judder("deploy", "--port", desk.path, "--watch-s", "1", "--json")
    told = json.loads(ended.stdout)
    assert (told["removed"], told["ring_made"], told["board"]) == (["code.py"], True, "swan_r5")
    assert (told["slots_made"], told["slots_dropped"]) == (list(SLOTS), [])
    for path, data in firmware().items():
        assert on(desk, path).read_bytes() == data
    boots = desk.swan.boots
    assert "up to date" in judder("deploy", "--port", desk.wait_for_port(), "--watch-s", "0").stdout
    desk.wait_for_port()
    assert desk.swan.boots == boots + 1  # which also ends safe mode, and service mode by the button


def test_service_mode_and_back(new_desk):
    desk = new_desk()
    put(desk, small("1"))
    desk.wait_for("runs 1 1 1")
    desk.swan.lines.clear()
    steps = len(desk.swan.drive_steps)
    assert (
        "service mode would be from the reset on"
        in judder("deploy", "--port", desk.path, "--service", "--dry-run").stdout
    )
    assert len(desk.swan.drive_steps) == steps
    said = judder("deploy", "--port", desk.wait_for_port(), "--service", "--watch-s", "0").stdout
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
    ended = judder("deploy", "--json", code=1)
    assert "no board on USB" in ended.stderr or "Notecard" in ended.stderr
    assert json.loads(ended.stdout)["error"] in ended.stderr
