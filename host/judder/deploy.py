"""`judder deploy`: put the firmware on a board, so that a cable pulled at any moment leaves it as it was, or idle.

What differs is first written beside what is there, under names of its own, and read back. Then main.py goes away, the
new files take the places of the old ones, and main.py comes last: the board runs the old firmware, or the new one, or
for the second in between none, in which case a repeated deploy finds the new files and finishes. The board's own
settings.toml is never touched, nor is the ring file once it is there; somebody's own program is kept under another
name.
"""

import errno
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from judder.board import MODEL_FILE, RING_BYTES, RING_FILE, SETTINGS_FILE, Tree, tree
from judder.console import Identity, RemoteError
from judder.drive import FOLDER, SERVICE_FLAG, Digest, Drive, Progress, Step
from judder.usb import BoardError

START_FILE = "main.py"
BOOT_FILES = ("boot.py", "safemode.py")
BEFORE_MAIN = ("code.txt", "code.py")  # CircuitPython runs the first of these and main.py (circuitpython:main.c)
DEFAULT_CODE = Digest.of(b'print("Hello World!")\n')
SWAN_BOARD = "swan_r5"
OLDEST_CIRCUITPYTHON = (9, 0)
STAGED = ".new"
KEPT = ".before-judder"
_CLUSTER = 512
_OWN_FOLDER = "node"  # all of it is ours, and tells that we were here; in lib/ a user may keep libraries of his own


@dataclass(frozen=True)
class Plan:
    """What a board lacks. `kept` says which of somebody's programs gets which name; the rest are paths.

    `staged` are changed files that an interrupted deploy has brought there already, `stale` what else it has left,
    `obsolete` modules of an older firmware, `defaults` CircuitPython's own program in the way of main.py.
    """

    changed: dict[str, bytes]
    unchanged: Sequence[str]
    staged: frozenset[str]
    stale: dict[str, int]
    folders: Sequence[str]
    obsolete: Sequence[str]
    kept: dict[str, str]
    defaults: Sequence[str]
    makes_ring: bool
    leaves_service_mode: bool
    remarks: Sequence[str]

    @property
    def to_write(self) -> dict[str, bytes]:
        return {path: data for path, data in self.changed.items() if path not in self.staged}

    @property
    def bytes_to_write(self) -> int:
        return sum(map(len, self.to_write.values()))

    @property
    def removed(self) -> list[str]:
        return [*self.defaults, *self.obsolete, *self.stale]

    @property
    def nothing(self) -> bool:
        return not (self.changed or self.removed or self.kept or self.makes_ring or self.leaves_service_mode)


def firmware(source: Tree | None = None) -> dict[str, bytes]:
    """Path on the board and content of each file of the firmware and its libraries."""
    source = source or tree()
    files = {
        path.relative_to(source.device).as_posix(): path.read_bytes()
        for path in sorted(source.device.rglob("*.py"))
        if "__pycache__" not in path.parts
    }
    files["boot.py"] = source.boot.read_bytes()
    return files


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
    folders = sorted({str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."})
    staged_names = [path + STAGED for path in [*files, RING_FILE]]
    wanted = [*files, *staged_names, *BEFORE_MAIN, RING_FILE, SETTINGS_FILE, SERVICE_FLAG, *folders]
    found = drive.digests(wanted)
    _check_kinds(found, folders)
    changed = {path: data for path, data in files.items() if found[path] != Digest.of(data)}
    staged = frozenset(path for path, data in changed.items() if found[path + STAGED] == Digest.of(data))
    modules = drive.names(_OWN_FOLDER)
    installed = any(found[path] is not None for path in files if path.startswith(f"{_OWN_FOLDER}/"))
    starters = [] if installed else [name for name in (*BOOT_FILES, START_FILE) if name in changed]
    kept, defaults = _programs_of_others(found, names, starters, drive.identity.runtime)
    return Plan(
        changed=changed,
        unchanged=[path for path in files if path not in changed],
        staged=staged,
        stale={
            name: digest.size
            for name in staged_names
            if (digest := found[name]) is not None and name.removesuffix(STAGED) not in staged
        },
        folders=[folder for folder in folders if found[folder] is None],
        obsolete=[
            f"{_OWN_FOLDER}/{name}"
            for name in modules
            if name.endswith((".py", ".mpy", STAGED)) and f"{_OWN_FOLDER}/{name.removesuffix(STAGED)}" not in files
        ],
        kept=kept,
        defaults=defaults,
        makes_ring=found[RING_FILE] is None,
        leaves_service_mode=found[SERVICE_FLAG] is not None,
        remarks=list(_remarks(found)),
    )


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
    _check_room(drive, intended)
    drive.take()
    try:
        drive.change([Step(path) for path in intended.stale])
        for folder in intended.folders:
            drive.make_folder(folder)
        if intended.makes_ring:  # first: in one piece, as far as the drive allows
            drive.fill(RING_FILE + STAGED, RING_BYTES)
        for path, data in intended.to_write.items():
            drive.write(path + STAGED, data, progress)
        _check(drive, {path + STAGED: data for path, data in intended.changed.items()})
    except (OSError, RemoteError) as error:
        _give_up(drive, intended, error)
    try:
        drive.change(_swap(intended))
    except (OSError, RemoteError) as error:
        raise BoardError(
            f"the files could not be exchanged ({error}), and no firmware runs now: press RESET and repeat the command"
        ) from None
    _check(drive, intended.changed)


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


def _check_room(drive: Drive, intended: Plan) -> None:
    sizes = [*map(len, intended.to_write.values()), RING_BYTES if intended.makes_ring else 0]
    free = drive.free_bytes() + sum(map(_room, intended.stale.values()))
    needed = sum(map(_room, sizes))
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
    intended = plan(drive, firmware() | ({} if model is None else {MODEL_FILE: model}))
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
