"""A board's files: read, compared and changed over its console, or on its drive where the PC has it mounted."""

import errno
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol
from zlib import crc32

from judder.console import Console, Identity, RemoteError
from judder.usb import BoardError

CHUNK_BYTES = 2048
PAGE_BYTES = 4096  # of the Swan's flash
SERVICE_FLAG = "service"  # on the drive: boot.py leaves it to the PC

_BOOT_OUT = re.compile(r"Adafruit CircuitPython (\d+\.\d+\.\d+).*\nBoard ID:(\w+)")

Progress = Callable[[int], None]

_AGENT = """
import os
from binascii import crc32
block = bytearray(4096)
def digests(paths):
    for path in paths:
        crc = size = 0
        try:
            if os.stat(path)[0] & 0x4000:
                print("folder")
                continue
            with open(path, "rb") as file:
                while True:
                    n = file.readinto(block)
                    if not n:
                        break
                    crc = crc32(memoryview(block)[:n], crc)
                    size += n
            print(size, crc)
        except OSError:
            print("-")
def names(folder):
    try:
        print("\\n".join(os.listdir(folder)))
    except OSError:
        pass
def change(steps):
    for old, new in steps:
        if new:
            os.rename(old, new)
        else:
            try:
                os.remove(old)
            except OSError as error:
                if error.errno != 2:
                    raise
    if hasattr(os, "sync"):
        os.sync()
def fill(path, blocks):
    for i in range(len(block)):
        block[i] = 255
    with open(path, "wb") as file:
        for _ in range(blocks):
            file.write(block)
"""
_TAKE = """
import storage
if storage.getmount("/").readonly:
    if hasattr(storage, "unsafe_disable_usb_drive"):
        storage.unsafe_disable_usb_drive()
    print("read-only" if storage.getmount("/").readonly else "taken")
"""
READ_ONLY = (
    "the board's drive belongs to this computer (a new board, or service mode) and CircuitPython before 10.3 cannot "
    "take it over: judder deploy --drive /path/to/CIRCUITPY copies onto it instead; or delete its file `service`, if "
    "it has one, and press RESET"
)


class Digest(NamedTuple):
    """Size and CRC-32 of a file, or FOLDER. Not against forgery: the Swan has no other hash."""

    size: int
    crc: int

    @classmethod
    def of(cls, data: bytes) -> "Digest":
        return cls(len(data), crc32(data))


FOLDER = Digest(-1, 0)


class Step(NamedTuple):
    """Rename `old` to `new`; with no `new`, remove it if it is there."""

    old: str
    new: str = ""


_SPECIAL = {"-": None, "folder": FOLDER}


class Drive(Protocol):
    """Paths are relative to the drive's root. Methods may raise BoardError, among them RemoteError, and OSError."""

    identity: Identity

    def take(self) -> None:
        """Make sure that we may write."""

    def digests(self, paths: Sequence[str]) -> dict[str, Digest | None]:
        """What each file is; None where there is none."""

    def names(self, folder: str) -> list[str]:
        """What a folder holds; nothing if there is no such folder."""

    def free_bytes(self) -> int:
        """Room left."""

    def make_folder(self, path: str) -> None:
        """A new folder in one that exists."""

    def write(self, path: str, data: bytes, progress: Progress) -> None:
        """A file, new or in place of an old one."""

    def fill(self, path: str, size: int) -> None:
        """A file of `size` bytes 0xFF."""

    def change(self, steps: Iterable[Step]) -> None:
        """All steps in their order, without anything between them."""


class ConsoleDrive:
    """The drive of the board behind `console`."""

    def __init__(self, console: Console) -> None:
        self.identity = console.identity
        self._console = console
        console.run(_AGENT)

    def take(self) -> None:
        self._console.needs_reset = True
        if self.identity.runtime != "circuitpython":
            return
        if hasattr(os, "sync"):
            os.sync()  # what this computer has not written yet would be lost
        if self._console.run(_TAKE).strip() == "read-only":
            raise BoardError(READ_ONLY)

    def digests(self, paths: Sequence[str]) -> dict[str, Digest | None]:
        lines = self._console.run(f"digests({list(paths)!r})").splitlines()
        return {
            path: _SPECIAL[line] if line in _SPECIAL else Digest(*map(int, line.split()))
            for path, line in zip(paths, lines, strict=True)
        }

    def names(self, folder: str) -> list[str]:
        return self._console.run(f"names({folder!r})").splitlines()

    def free_bytes(self) -> int:
        text = self._console.run("found = os.statvfs(os.getcwd())\nprint(found[0] * found[3])")
        return int(text)

    def make_folder(self, path: str) -> None:
        self._console.run(f"os.mkdir({path!r})")

    def write(self, path: str, data: bytes, progress: Progress) -> None:
        self._console.run(f"file = open({path!r}, 'wb')")
        try:
            for start in range(0, len(data), CHUNK_BYTES):
                chunk = data[start : start + CHUNK_BYTES]
                self._console.run(f"file.write({chunk!r})")
                progress(len(chunk))
        except RemoteError:
            with suppress(RemoteError):  # or it would be written to when it is collected, removed or not
                self._console.run("file.close()")
            raise
        self._console.run("file.close()")

    def fill(self, path: str, size: int) -> None:
        self._console.run(f"fill({path!r}, {size // PAGE_BYTES})")

    def change(self, steps: Iterable[Step]) -> None:
        self._console.run(f"change({[tuple(step) for step in steps]!r})")


class FolderDrive:
    """The drive where this computer has it mounted. The program on the board should stand still meanwhile."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            told = _BOOT_OUT.match((folder / "boot_out.txt").read_text())
        except (OSError, ValueError):
            told = None
        if told is None:
            raise BoardError(
                f"{folder} is no CircuitPython drive (it has no boot_out.txt that says so): give the place where "
                "CIRCUITPY is mounted"
            )
        self.identity = Identity(told[2], "circuitpython", tuple(map(int, told[1].split("."))), told[2])

    def take(self) -> None:
        if not os.access(self._folder, os.W_OK) or os.statvfs(self._folder).f_flag & os.ST_RDONLY:
            raise BoardError(
                f"{self._folder} is read-only: the board owns it (normal mode); deploy over its port, or press RESET "
                "and hold USR for three seconds"
            )

    def digests(self, paths: Sequence[str]) -> dict[str, Digest | None]:
        return {path: _digest(self._folder / path) for path in paths}

    def names(self, folder: str) -> list[str]:
        path = self._folder / folder
        return [entry.name for entry in path.iterdir()] if path.is_dir() else []

    def free_bytes(self) -> int:
        found = os.statvfs(self._folder)
        return found.f_frsize * found.f_bavail

    def make_folder(self, path: str) -> None:
        (self._folder / path).mkdir()

    def write(self, path: str, data: bytes, progress: Progress) -> None:
        with (self._folder / path).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        progress(len(data))

    def fill(self, path: str, size: int) -> None:
        self.write(path, b"\xff" * size, lambda written: None)

    def change(self, steps: Iterable[Step]) -> None:
        for step in steps:
            old = self._folder / step.old
            if step.new:
                if (self._folder / step.new).exists():
                    raise FileExistsError(errno.EEXIST, "File exists", step.new)
                old.rename(self._folder / step.new)
            else:
                old.unlink(missing_ok=True)
        os.sync()


def _digest(path: Path) -> Digest | None:
    if path.is_dir():
        return FOLDER
    return Digest.of(path.read_bytes()) if path.is_file() else None
