"""Images: all that a Swan's flash holds, as one binpack that a Notecard can write; reproducible, and read back.

Bootloader and interpreter are the user's files. The drive is made here: firmware, libraries, a manifest, and behind
them, erased, the files that the firmware writes to. The same inputs give the same bytes: no time in it but
SOURCE_DATE_EPOCH, no name of a place.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from judder import __version__, binpack, fat12, inspection, program
from judder.binpack import MARKER, Binpack, Header, Part
from judder.board import RING_BYTES, RING_FILE, SETTINGS_FILE, SLOT_FOLDER, SLOTS, Tree, tree
from judder.deploy import base
from judder.inspection import FACTORY, HOST, NOTECARDS, PRODUCT
from judder.manifest import MANIFEST
from judder.program import BOOTLOADER, DRIVE, INTERPRETER, INTERPRETER_ALONE, Region

_PAGE_BYTES = 4096
_FIRST_DATE = datetime(1980, 1, 1, tzinfo=UTC)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_VERSION = re.compile(r"(\d{1,5})\.(\d{1,5})\.(\d{1,5})([-+][0-9A-Za-z.+-]{1,32})?", re.ASCII)


class ImageError(ValueError):
    """An image that cannot be made, in a line."""


# --- the drive --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """What an image's drive is made of; `source`: the board's tree, by default our own."""

    version: str
    model: bytes | None = None
    settings: bytes | None = None
    source: Tree = field(default_factory=tree)

    def files(self) -> dict[str, bytes]:
        """Path and content of each file but those that begin erased. Raises ImageError."""
        found = {**FACTORY, f"{SLOT_FOLDER}/": b""}
        if self.settings is not None:  # before what the manifest lists: where all of that is written, so are these
            found[SETTINGS_FILE] = self.settings
        found |= base(self.version, self.model, self.source)
        for path, content in found.items():
            if MARKER.encode() in content:
                raise ImageError(f"{path} has {MARKER} in it, by which Notehub looks for the version: take it out")
        return found


def erased_files() -> dict[str, bytes]:
    """What the firmware writes to, as it is in an image."""
    return {name: b"\xff" * size for name, size in {RING_FILE: RING_BYTES, **SLOTS}.items()}


# --- the pack ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """A pack that was read back, with what is in it; `sha256` by part, of the files as they were given."""

    data: bytes
    header: Header
    info: Mapping[str, Any]
    files: Mapping[str, int]
    sha256: Mapping[str, str]


def build(
    contents: Contents,
    interpreter: bytes | None = None,
    bootloader: bytes | None = None,
    *,
    trim: bool = True,
    most_bytes: int = NOTECARDS["cellular"],
    on_bytes: Callable[[int, int], None] = lambda done, total: None,
) -> Image:
    """The image; without an interpreter, of the drive only. Raises ImageError, ProgramError, Fat12Error.

    `on_bytes` hears how many bytes are packed, and of how many.
    """
    checked_version(contents.version)
    files, erased = contents.files(), erased_files()
    volume = fat12.volume(files, last=erased)
    given = _programs(interpreter, bootloader)
    parts = [_part(region, content, trim=trim) for region, content in [*given, (DRIVE, volume)]]
    sha256 = {region.name: hashlib.sha256(content).hexdigest() for region, content in given}
    sha256[DRIVE.name] = hashlib.sha256(parts[-1].data).hexdigest()
    when = build_time()
    info = _info(contents, files, when, sha256)
    data = binpack.pack(Binpack(when, HOST, parts, MARKER + json.dumps(info, separators=(",", ":"))), on_bytes)
    if len(data) > most_bytes:
        raise ImageError(f"the image has {len(data)} bytes, and the Notecard takes {most_bytes}: leave something out")
    _prove(data, parts, files | erased)
    return Image(data, binpack.read_header(data), info, {path: len(files[path]) for path in files}, sha256)


def _programs(interpreter: bytes | None, bootloader: bytes | None) -> list[tuple[Region, bytes]]:
    """Where each goes. Raises ImageError, and ProgramError for one that cannot run there."""
    if interpreter is None:
        if bootloader is not None:
            raise ImageError("a bootloader starts an interpreter: give that, too")
        return []
    placed = [(INTERPRETER_ALONE, interpreter)]
    if bootloader is not None:
        placed = [(BOOTLOADER, bootloader), (INTERPRETER, interpreter)]
    for region, content in placed:
        program.check(region, content)
    return placed


def checked_version(version: str) -> tuple[int, int, int]:
    """Major, minor and patch. Raises ImageError."""
    found = _VERSION.fullmatch(version)
    if found is None:
        raise ImageError(f"{version!r} is no version: give one as 2.1.0 or 2.1.0-rc1")
    return int(found[1]), int(found[2]), int(found[3])


def build_time() -> datetime:
    """SOURCE_DATE_EPOCH, or always the same. Raises ImageError."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return _FIRST_DATE
    try:
        return datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise ImageError(f"SOURCE_DATE_EPOCH is {text!r}, and should be seconds since 1970") from None


def _info(contents: Contents, files: Mapping[str, bytes], when: datetime, sha256: Mapping[str, str]) -> dict[str, Any]:
    """For Notehub (blues/note-python: examples/outboard-dfu), and to tell where an image comes from."""
    major, minor, patch = checked_version(contents.version)
    listing = json.loads(files[MANIFEST])
    model = listing["model"]
    return {
        "org": PRODUCT,
        "product": PRODUCT,
        "description": f"vibration windows, {f'model {model}' if model else 'no model'}",
        "version": contents.version,
        "built": f"{_MONTHS[when.month - 1]} {when:%d} {when.year} {when:%H:%M:%S}",
        "ver_major": major,
        "ver_minor": minor,
        "ver_patch": patch,
        "builder": f"judder {__version__}",
        "revision": listing["revision"],
        "model": model,
        "sha256": dict(sha256),
    }


def _part(region: Region, content: bytes, *, trim: bool) -> Part:
    """Whole pages; erased ones at the end need not be sent."""
    kept = content.rstrip(b"\xff") if trim else content
    padded = kept.ljust(-(-len(kept) // _PAGE_BYTES) * _PAGE_BYTES, b"\xff")
    return Part(region.name, region.address, padded, len(padded))


def _prove(data: bytes, parts: Sequence[Part], files: Mapping[str, bytes]) -> None:
    """Raises ImageError unless the pack reads back as what was put into it."""
    found = inspection.inspect(data)
    wrong = [*found.wrong]
    if found.files != files:
        wrong.append("its drive has other files")
    if list(found.parts) != list(parts):
        wrong.append("its parts are others")
    if wrong:
        raise ImageError(f"the image reads back wrong and was not written: {wrong[0]}; please report this")
