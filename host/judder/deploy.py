"""`judder deploy`: put the firmware on a board, so that a cable pulled at any moment leaves it as it was, or idle.

What differs is first written beside what is there, under names of its own, and read back. Then main.py goes away, the
new files take the places of the old ones, and main.py comes last: the board runs the old firmware, or the new one, or
for the second in between none, in which case a repeated deploy finds the new files and finishes. The board's own
settings.toml is never touched, nor is the ring file once it is there.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from judder.board import RING_BYTES, RING_FILE, Tree, tree
from judder.console import Identity, RemoteError
from judder.drive import SERVICE_FLAG, Digest, Drive, Progress, Step
from judder.usb import BoardError

START_FILE = "main.py"
BEFORE_MAIN = ("code.txt", "code.py")  # CircuitPython runs the first of these and main.py (circuitpython:main.c)
DEFAULT_CODE = Digest.of(b'print("Hello World!")\n')
SWAN_BOARD = "swan_r5"
OLDEST_CIRCUITPYTHON = (9, 0)
STAGED = ".new"
KEPT = ".before-judder"
_CLUSTER = 512
_OWN_FOLDERS = ("node",)  # all of it is ours; in lib/ a user may keep libraries of his own


@dataclass(frozen=True)
class Plan:
    """What a board lacks.

    `staged` are changed files that an interrupted deploy has brought there already; `obsolete`, modules of an older
    firmware and leftovers; `defaults` and `replaced`, files in the way of main.py: CircuitPython's own, and others.
    """

    changed: dict[str, bytes]
    unchanged: Sequence[str]
    staged: frozenset[str]
    folders: Sequence[str]
    obsolete: Sequence[str]
    replaced: Sequence[str]
    defaults: Sequence[str]
    ring_bytes: int
    leaves_service_mode: bool
    remarks: Sequence[str] = field(default_factory=tuple)

    @property
    def bytes_to_write(self) -> int:
        return sum(len(data) for path, data in self.changed.items() if path not in self.staged)

    @property
    def nothing(self) -> bool:
        return not (
            self.changed
            or self.obsolete
            or self.replaced
            or self.defaults
            or self.ring_bytes
            or self.leaves_service_mode
        )


def firmware(source: Tree | None = None) -> dict[str, bytes]:
    """Path on the board and content of each file of the firmware and its libraries."""
    source = source or tree()
    files = {"boot.py": source.boot.read_bytes()}
    for path in sorted(source.device.rglob("*.py")):
        relative = path.relative_to(source.device)
        if "__pycache__" not in relative.parts:
            files[relative.as_posix()] = path.read_bytes()
    return files


def check_board(identity: Identity, *, any_board: bool = False) -> None:
    """Raises BoardError for a board that the firmware is not made for, unless any will do."""
    if identity.runtime == "micropython" or any_board:
        return
    if identity.runtime != "circuitpython":
        raise BoardError(f"{identity.machine} runs {identity.runtime}, neither CircuitPython nor MicroPython")
    if identity.board != SWAN_BOARD:
        raise BoardError(
            f"this is a {identity.board} ({identity.machine}), and the firmware is made for {SWAN_BOARD}; if you want "
            "it there all the same: --any-board"
        )
    if identity.version < OLDEST_CIRCUITPYTHON:
        version = ".".join(map(str, identity.version))
        raise BoardError(f"CircuitPython {version} is too old: put 10 or later on the board (hold BOOT, press RESET)")


def plan(drive: Drive, files: dict[str, bytes]) -> Plan:
    """Compare a board with the firmware."""
    present = drive.names("")
    paths = [*files, *(path + STAGED for path in files), *BEFORE_MAIN, RING_FILE]
    found = drive.digests(paths)
    changed = {path: data for path, data in files.items() if found[path] != Digest.of(data)}
    ring = found[RING_FILE]
    in_the_way = [name for name in BEFORE_MAIN if found[name] is not None]
    remarks = []
    if ring is not None and ring.size != RING_BYTES:
        remarks.append(f"{RING_FILE} has {ring.size} bytes and not {RING_BYTES}: left alone, it may hold windows")
    if "settings.toml" not in present:
        remarks.append("no settings.toml on the board: it runs with the defaults, see settings.example.toml")
    return Plan(
        changed=changed,
        unchanged=[path for path in files if path not in changed],
        staged=frozenset(path for path, data in changed.items() if found[path + STAGED] == Digest.of(data)),
        folders=_missing_folders(drive, changed),
        obsolete=[
            *_old_modules(drive, files),
            *(path + STAGED for path in files if path not in changed and found[path + STAGED] is not None),
        ],
        replaced=[name for name in in_the_way if found[name] != DEFAULT_CODE],
        defaults=[name for name in in_the_way if found[name] == DEFAULT_CODE],
        ring_bytes=RING_BYTES if ring is None else 0,
        leaves_service_mode=SERVICE_FLAG in present,
        remarks=remarks,
    )


def carry_out(drive: Drive, intended: Plan, progress: Progress = lambda written: None) -> None:
    """Bring the board to the firmware. Raises BoardError; the board is then as it was, or is said not to be."""
    if intended.nothing:
        return
    drive.take()
    _check_room(drive, intended)
    try:
        for folder in intended.folders:
            drive.make_folder(folder)
        if intended.ring_bytes:  # first: in one piece, as far as the drive allows
            drive.fill(RING_FILE, intended.ring_bytes)
        for path, data in intended.changed.items():
            if path not in intended.staged:
                drive.write(path + STAGED, data, progress)
    except OSError as error:
        _give_up(drive, intended, error.errno or 0, str(error))
    except RemoteError as error:
        _give_up(drive, intended, error.errno, str(error))
    _check(drive, {path + STAGED: data for path, data in intended.changed.items()}, "what was written")
    drive.change(_swap(intended))
    _check(drive, intended.changed, "the firmware")


def _swap(intended: Plan) -> list[Step]:
    """The steps that make staged files the firmware; main.py goes first and comes last."""
    staged_start = START_FILE + STAGED
    keep_start = START_FILE in intended.unchanged
    steps = [Step(START_FILE, staged_start)] if keep_start else [Step(START_FILE)]
    steps += [Step(name) for name in intended.defaults]
    steps += [Step(name, name + KEPT) for name in intended.replaced]
    for path in intended.changed:
        if path != START_FILE:
            steps += [Step(path), Step(path + STAGED, path)]
    steps += [Step(path) for path in intended.obsolete]
    if intended.leaves_service_mode:
        steps.append(Step(SERVICE_FLAG))
    return [*steps, Step(staged_start, START_FILE)]


def _missing_folders(drive: Drive, changed: dict[str, bytes]) -> list[str]:
    wanted = {str(parent) for path in changed for parent in PurePosixPath(path).parents if str(parent) != "."}
    missing = []
    for folder in sorted(wanted):
        parent = PurePosixPath(folder).parent
        listed = [] if str(parent) in missing else drive.names("" if str(parent) == "." else str(parent))
        if PurePosixPath(folder).name not in listed:
            missing.append(folder)
    return missing


def _old_modules(drive: Drive, files: dict[str, bytes]) -> list[str]:
    return [
        f"{folder}/{name}"
        for folder in _OWN_FOLDERS
        for name in drive.names(folder)
        if name.endswith((".py", ".mpy")) and f"{folder}/{name}" not in files
    ]


def _check_room(drive: Drive, intended: Plan) -> None:
    sizes = [len(data) for path, data in intended.changed.items() if path not in intended.staged]
    needed = sum(-(-size // _CLUSTER) * _CLUSTER for size in [*sizes, intended.ring_bytes])
    free = drive.free_bytes()
    if needed > free:
        raise BoardError(
            f"not enough room on the board: {needed // 1024} KB are needed, {free // 1024} KB are free; delete files "
            "there (what you have put in lib/, say) and repeat the command; nothing was changed"
        )


def _check(drive: Drive, expected: dict[str, bytes], what: str) -> None:
    found = drive.digests(list(expected))
    wrong = [path for path, data in expected.items() if found[path] != Digest.of(data)]
    if wrong:
        raise BoardError(
            f"{what} reads back wrong ({', '.join(wrong)}): repeat the command; if it stays so the flash is worn out"
        )


def _give_up(drive: Drive, intended: Plan, number: int, text: str) -> None:
    """Take back what was staged, and say why."""
    drive.change([Step(path + STAGED) for path in intended.changed])
    if number == errno.ENOSPC:
        raise BoardError(
            "the board's drive is full: delete files there and repeat the command; the firmware is as it was"
        )
    if number == errno.EROFS:
        raise BoardError("the board's drive became read-only while it was written: press RESET and repeat the command")
    raise BoardError(
        f"the board refused a file ({text}): press RESET and repeat the command; the firmware is as it was"
    )


def deploy(
    drive: Drive,
    identity: Identity | None = None,
    *,
    on_plan: Callable[[Plan], Progress | None],
    any_board: bool = False,
) -> Plan:
    """Compare, ask `on_plan` for a progress (None: a dry run), and write. Without `identity` any board will do."""
    if identity is not None:
        check_board(identity, any_board=any_board)
    intended = plan(drive, firmware())
    progress = on_plan(intended)
    if progress is not None:
        carry_out(drive, intended, progress)
    return intended


def ask_for_service_mode(drive: Drive) -> None:
    """Leave the flag that makes boot.py give the drive to the PC at the next reset."""
    drive.take()
    drive.write(SERVICE_FLAG, b"", lambda written: None)
