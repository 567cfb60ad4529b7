"""`judder deploy`: put the firmware on a board, so that a cable pulled at any moment leaves it as it was, or idle.

What differs is first written beside what is there, under names of its own, and read back. Then main.py goes away, the
new files take the places of the old ones, and main.py comes last: the board runs the old firmware, or the new one, or
for the second in between none, in which case a repeated deploy finds the new files and finishes. Slots for updates by
file come when that is done, each whole or not at all. The board's own settings.toml is never touched, nor is the ring
file once it is there; somebody's own program is kept under another name.
"""

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from judder import __version__
from judder.board import MODEL_FILE, RING_BYTES, RING_FILE, SETTINGS_FILE, SLOT_FOLDER, SLOTS, Tree, tree
from judder.console import Identity, RemoteError
from judder.drive import FOLDER, SERVICE_FLAG, Digest, Drive, Progress, Step
from judder.manifest import MANIFEST, manifest, revision
from judder.usb import BoardError

START_FILE = "main.py"
BOOT_FILES = ("boot.py", "safemode.py")
BEFORE_MAIN = ("code.txt", "code.py")  # CircuitPython runs the first of these and main.py (circuitpython:main.c)
DEFAULT_CODE = Digest.of(b'print("Hello World!")\n')
SWAN_BOARD = "swan_r5"
OLDEST_CIRCUITPYTHON = (9, 0)
STAGED = ".new"
KEPT = ".before-judder"
LEFT_OUT = (
    "lib/adafruit_bus_device/spi_device.py",
    "lib/notecard/card.py",
    "lib/notecard/dfu.py",
    "lib/notecard/env.py",
    "lib/notecard/file.py",
    "lib/notecard/hub.py",
    "lib/notecard/note.py",
    "lib/notecard/ntn.py",
    "lib/notecard/upload.py",
    "lib/notecard/validators.py",
    "lib/notecard/var.py",
    "lib/notecard/web.py",
)
"""What the firmware never imports of its libraries: it writes requests itself, and the sensor is on I2C. They would
take 120 KB of the drive's 1004, and updates by file need the room."""
_CLUSTER = 512
_SPARE_BYTES = 8192  # for folders that grow, and what the board writes itself: boot_out.txt, recoveries.txt
_OWN_FOLDER = "node"  # all of it is ours, and tells that we were here; in lib/ a user may keep libraries of his own


@dataclass(frozen=True)
class Plan:
    """What a board lacks. `kept` says which of somebody's programs gets which name; the rest are paths.

    `staged` are changed files that an interrupted deploy has brought there already, `stale` what else it has left,
    `obsolete` modules of an older firmware, `defaults` CircuitPython's own program in the way of main.py. `slots` are
    made, with their sizes, when all else is done; `dropped` are slots that go before it begins: those of another size,
    and where the room is needed meanwhile those for code, whose content belongs to the firmware that is replaced.
    """

    changed: dict[str, bytes]
    unchanged: Sequence[str]
    staged: frozenset[str]
    stale: Sequence[str]
    folders: Sequence[str]
    obsolete: Sequence[str]
    kept: dict[str, str]
    defaults: Sequence[str]
    makes_ring: bool
    leaves_service_mode: bool
    slots: Mapping[str, int]
    dropped: Sequence[str]
    free_bytes: int
    """For what is staged."""
    remarks: Sequence[str]

    @property
    def to_write(self) -> dict[str, bytes]:
        return {path: data for path, data in self.changed.items() if path not in self.staged}

    @property
    def bytes_to_write(self) -> int:
        return sum(map(len, self.to_write.values()))

    @property
    def room_to_stage(self) -> int:
        """Bytes that the drive must have free besides what is there."""
        return sum(map(_room, map(len, self.to_write.values()))) + (RING_BYTES if self.makes_ring else 0)

    @property
    def removed(self) -> list[str]:
        return [*self.defaults, *self.obsolete, *self.stale, *(name for name in self.dropped if name not in self.slots)]

    @property
    def exchanges(self) -> bool:
        """Whether main.py has to go away for a moment."""
        others = self.defaults or self.obsolete or self.kept or self.makes_ring or self.leaves_service_mode
        return bool(self.changed or others)

    @property
    def nothing(self) -> bool:
        return not (self.exchanges or self.stale or self.folders or self.slots or self.dropped)


def firmware(source: Tree | None = None) -> dict[str, bytes]:
    """Path on the board and content of each file of the firmware and, but for LEFT_OUT, its libraries."""
    source = source or tree()
    paths = {
        path.relative_to(source.device).as_posix(): path
        for path in sorted(source.device.rglob("*.py"))
        if "__pycache__" not in path.parts
    }
    files = {name: path.read_bytes() for name, path in paths.items() if name not in LEFT_OUT}
    files["boot.py"] = source.boot.read_bytes()
    return files


def base(version: str, model: bytes | None = None, source: Tree | None = None) -> dict[str, bytes]:
    """All that updates by file build upon: firmware, model if there is one, and the manifest that lists both."""
    source = source or tree()
    files, model_id = firmware(source), ""
    if model is not None:
        from judder.model import file  # numpy, only for those who have a model

        files[MODEL_FILE], model_id = model, file.model_id(model)
    return {MANIFEST: manifest(files, version, revision(source), model_id), **files}


def check_board(identity: Identity, *, any_board: bool = False) -> None:
    """Raises BoardError for a board that the firmware is not made for, unless any will do."""
    if identity.runtime == "micropython" or any_board:
        return
    if identity.runtime != "circuitpython":
        raise BoardError(
            f"{identity.machine} runs {identity.runtime}: put CircuitPython on it (or MicroPython on another board)"
        )
    if identity.board != SWAN_BOARD:
        raise BoardError(
            f"this is a {identity.board} ({identity.machine}), and the firmware is made for {SWAN_BOARD}; if you want "
            "it there all the same: --any-board"
        )
    if identity.version < OLDEST_CIRCUITPYTHON:
        version = ".".join(map(str, identity.version))
        raise BoardError(f"CircuitPython {version} is too old: put 10 or later on the board (docs/operations.md)")


def plan(drive: Drive, files: dict[str, bytes]) -> Plan:
    """Compare a board with the firmware. Raises BoardError for a folder where a file has to be, or the reverse."""
    names = drive.names("")
    folders = sorted({str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."} | {SLOT_FOLDER})
    staged_names = [path + STAGED for path in [*files, RING_FILE, *SLOTS]]
    own = [*files, *staged_names, *BEFORE_MAIN, RING_FILE, *SLOTS, SETTINGS_FILE, SERVICE_FLAG]
    obsolete = _obsolete(drive, files)
    found = drive.digests([*own, *folders, *obsolete])
    _check_kinds(found, folders)
    changed = {path: data for path, data in files.items() if found[path] != Digest.of(data)}
    staged = frozenset(path for path, data in changed.items() if found[path + STAGED] == Digest.of(data))
    installed = any(found[path] is not None for path in files if path.startswith(f"{_OWN_FOLDER}/"))
    starters = [] if installed else [name for name in (*BOOT_FILES, START_FILE) if name in changed]
    kept, defaults = _programs_of_others(found, names, starters, drive.identity.runtime)
    stale = [name for name in staged_names if found[name] is not None and name.removesuffix(STAGED) not in staged]
    odd = [name for name, size in SLOTS.items() if (slot := found[name]) is not None and slot.size != size]
    intended = Plan(
        changed=changed,
        unchanged=[path for path in files if path not in changed],
        staged=staged,
        stale=stale,
        folders=[folder for folder in folders if found[folder] is None],
        obsolete=obsolete,
        kept=kept,
        defaults=defaults,
        makes_ring=found[RING_FILE] is None,
        leaves_service_mode=found[SERVICE_FLAG] is not None,
        slots={},
        dropped=odd,
        free_bytes=drive.free_bytes() + _taken(found, [*stale, *odd]),
        remarks=list(_remarks(found)),
    )
    return _with_slots(intended, found)


def _obsolete(drive: Drive, files: dict[str, bytes]) -> list[str]:
    """Modules that an older firmware has left; in lib/, only what is ours to the byte."""
    modules = [name for name in drive.names(_OWN_FOLDER) if name.endswith((".py", ".mpy", STAGED))]
    paths = [f"{_OWN_FOLDER}/{name}" for name in modules]
    device = tree().device
    ours = {path: Digest.of((device / path).read_bytes()) for path in LEFT_OUT if path not in files}
    found = drive.digests(list(ours))
    return [
        *(path for path in paths if path.removesuffix(STAGED) not in files),
        *(path for path, digest in ours.items() if found[path] == digest),
    ]


def _with_slots(intended: Plan, found: Mapping[str, Digest | None]) -> Plan:
    """The plan with slots: all that are missing, or none when there is no room for all of them."""
    dropped = list(intended.dropped)
    free = intended.free_bytes
    if intended.to_write and intended.room_to_stage + _SPARE_BYTES > free:
        for_code = [
            name for name in SLOTS if name.startswith("code") and name not in dropped and found[name] is not None
        ]
        dropped += for_code
        free += _taken(found, for_code)
    slots = {name: size for name, size in SLOTS.items() if found[name] is None or name in dropped}
    replaced = [path for path in intended.changed if path not in intended.kept]
    later = free - intended.room_to_stage + _taken(found, [*replaced, *intended.obsolete, *intended.defaults])
    missing = sum(slots.values()) + _SPARE_BYTES - later
    remarks = list(intended.remarks)
    if slots and missing > 0:
        remarks.append(
            f"no room for {', '.join(slots)}: {-(-missing // 1024)} KB are missing, and without them there are no "
            "updates by file; judder deploy --service gives you the drive: delete files there and repeat the command"
        )
        slots = {}
    return replace(intended, slots=slots, dropped=dropped, free_bytes=free, remarks=remarks)


def _taken(found: Mapping[str, Digest | None], paths: Iterable[str]) -> int:
    """The room that these files take on the drive."""
    return sum(_room(digest.size) for path in paths if (digest := found[path]) is not None)


def _check_kinds(found: dict[str, Digest | None], folders: Sequence[str]) -> None:
    for path, digest in found.items():
        if digest is not None and (digest == FOLDER) != (path in folders):
            is_one, must_be = ("folder", "file") if digest == FOLDER else ("file", "folder")
            raise BoardError(
                f"{path} is a {is_one} on the board and has to be a {must_be}: delete it there and repeat the command"
            )


def _programs_of_others(
    found: dict[str, Digest | None], names: Sequence[str], starters: Sequence[str], runtime: str
) -> tuple[dict[str, str], list[str]]:
    """Programs in our way that are not ours, with the names they get; and CircuitPython's own, to be removed."""
    in_the_way = [name for name in BEFORE_MAIN if found[name] is not None and runtime == "circuitpython"]
    defaults = [name for name in in_the_way if found[name] == DEFAULT_CODE]
    strangers = [name for name in in_the_way if name not in defaults]
    strangers += [name for name in starters if found[name] is not None]
    kept: dict[str, str] = {}
    for name in strangers:
        free = name + KEPT
        number = 2
        while free in names:
            free = f"{name}{KEPT}-{number}"
            number += 1
        kept[name] = free
    return kept, defaults


def _remarks(found: dict[str, Digest | None]) -> Iterable[str]:
    ring = found[RING_FILE]
    if ring is not None and ring.size != RING_BYTES:
        yield f"{RING_FILE} has {ring.size} bytes and not {RING_BYTES}: left alone, it may hold windows"
    if found[SETTINGS_FILE] is None:
        yield f"no {SETTINGS_FILE} on the board: it runs with the defaults, see settings.example.toml"


def carry_out(drive: Drive, intended: Plan, progress: Progress = lambda written: None) -> None:
    """Bring the board to the firmware. Raises BoardError; the board is then as it was, or is said not to be."""
    if intended.nothing:
        return
    _check_room(intended)
    drive.take()
    try:
        drive.change([Step(path) for path in [*intended.stale, *intended.dropped]])
        for folder in intended.folders:
            drive.make_folder(folder)
        if intended.makes_ring:  # first: in one piece, as far as the drive allows
            drive.fill(RING_FILE + STAGED, RING_BYTES)
        for path, data in intended.to_write.items():
            drive.write(path + STAGED, data, progress)
        _check(drive, {path + STAGED: data for path, data in intended.changed.items()})
    except (OSError, RemoteError) as error:
        _give_up(drive, intended, error)
    if intended.exchanges:
        try:
            drive.change(_swap(intended))
        except (OSError, RemoteError) as error:
            raise BoardError(
                f"the files could not be exchanged ({error}), and no firmware runs now: press RESET and repeat the "
                "command"
            ) from None
        _check(drive, intended.changed)
    _make_slots(drive, intended.slots, progress)


def _make_slots(drive: Drive, slots: Mapping[str, int], progress: Progress) -> None:
    """Raises BoardError; the firmware runs without them."""
    try:
        for name, size in slots.items():
            drive.fill(name + STAGED, size)
            progress(size)
        drive.change([Step(name + STAGED, name) for name in slots])
    except (OSError, RemoteError) as error:
        with suppress(OSError, RemoteError):
            drive.change([Step(name + STAGED) for name in slots])
        raise BoardError(
            f"the firmware is in place, and room for updates by file could not be made ({error}): press RESET and "
            "repeat the command"
        ) from None


def _swap(intended: Plan) -> list[Step]:
    """The steps that make staged files the firmware; main.py goes first and comes last."""
    staged_start = START_FILE + STAGED
    steps = []
    if START_FILE in intended.unchanged:
        steps.append(Step(START_FILE, staged_start))
    elif START_FILE not in intended.kept:
        steps.append(Step(START_FILE))
    steps += [Step(name) for name in [*intended.defaults, *intended.obsolete]]
    steps += [Step(name, other) for name, other in intended.kept.items()]
    if intended.makes_ring:
        steps.append(Step(RING_FILE + STAGED, RING_FILE))
    for path in sorted(intended.changed, key=lambda path: path in BOOT_FILES):  # once they are there, so is the rest
        if path != START_FILE:
            steps += [Step(path), Step(path + STAGED, path)]
    if intended.leaves_service_mode:
        steps.append(Step(SERVICE_FLAG))
    return [*steps, Step(staged_start, START_FILE)]


def _check_room(intended: Plan) -> None:
    needed, free = intended.room_to_stage, intended.free_bytes
    if needed > free:
        raise BoardError(
            f"not enough room on the board: {needed // 1024} KB are needed, {free // 1024} KB are free; judder deploy "
            "--service gives you the drive: delete files there and repeat the command; nothing was changed"
        )


def _room(size: int) -> int:
    return -(-size // _CLUSTER) * _CLUSTER


def _check(drive: Drive, expected: dict[str, bytes]) -> None:
    found = drive.digests(list(expected))
    wrong = [path for path, data in expected.items() if found[path] != Digest.of(data)]
    if wrong:
        raise BoardError(
            f"what was written reads back wrong ({', '.join(wrong)}): repeat the command; if it stays so the flash is "
            "worn out"
        )


def _give_up(drive: Drive, intended: Plan, error: OSError | RemoteError) -> None:
    """Take back what was staged, and say why. Raises BoardError."""
    with suppress(OSError, RemoteError):  # of a drive that is no longer ours, say; the next deploy takes care of it
        drive.change([Step(path + STAGED) for path in [*intended.changed, RING_FILE]])
    if error.errno == errno.ENOSPC:
        raise BoardError(
            "the board's drive is full: judder deploy --service gives it to you; delete files there and repeat the "
            "command; the firmware is as it was"
        ) from None
    if error.errno == errno.EROFS:
        raise BoardError(
            "the board's drive became read-only while it was written: press RESET and repeat the command"
        ) from None
    raise BoardError(
        f"the board refused a file ({error}): press RESET and repeat the command; the firmware is as it was"
    ) from None


def deploy(
    drive: Drive,
    *,
    on_plan: Callable[[Plan], Progress | None],
    any_board: bool = False,
    model: bytes | None = None,
) -> Plan:
    """Compare, ask `on_plan` for a progress (None: a dry run), and write. Without `model` the board keeps its own."""
    check_board(drive.identity, any_board=any_board)
    intended = plan(drive, base(__version__, model))
    progress = on_plan(intended)
    if progress is not None:
        carry_out(drive, intended, progress)
    return intended


def ask_for_service_mode(drive: Drive, *, dry_run: bool = False, any_board: bool = False) -> None:
    """Leave the flag that makes boot.py give the drive to the PC at the next reset."""
    check_board(drive.identity, any_board=any_board)
    if drive.identity.runtime != "circuitpython":
        raise BoardError(
            "service mode is CircuitPython's: a MicroPython board shows no drive, mpremote reads and writes it"
        )
    if "boot.py" not in drive.names(""):
        raise BoardError("this board's drive is the PC's already: it has no boot.py, and so no judder firmware yet")
    if not dry_run:
        drive.take()
        drive.write(SERVICE_FLAG, b"", lambda written: None)
