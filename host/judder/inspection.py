"""Looking into images: any binpack or FAT12 volume, whoever made it, and all that can be wrong with it.

And into updates by file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from judder import binpack, fat12, update
from judder.binpack import MARKER, BinpackError, Header, Part
from judder.board import RING_FILE, SETTINGS_FILE, SLOT_FOLDER, SLOTS
from judder.code import MODEL_SLOT, ROOM_BYTES, SLOT
from judder.fat12 import Fat12Error
from judder.manifest import MANIFEST, ManifestError, differences, read_manifest
from judder.program import BOOTLOADER, DRIVE, INTERPRETER, INTERPRETER_ALONE, why_not_to_start
from judder.update import Kind, Update, UpdateError

FACTORY = {".fseventsd/no_log": b"", ".metadata_never_index": b"", ".Trashes": b"", ".Trash-1000": b""}
"""What CircuitPython puts on a new drive to keep PCs from writing to it (supervisor/shared/filesystem.c)."""
NOTECARDS = {"cellular": 1_500_000, "wifi-v2": 900_000}
"""Most bytes of an image that a Notecard takes (dev.blues.io, outboard firmware update)."""
PRODUCT, HOST = "judder", "stm32"
FS_ONLY_WARNING = (
    "an image without interpreter may leave a board that does not start: Notecards of firmware 8 were seen to erase "
    "the whole flash before they write the parts; prove it on one board in reach, or give --interpreter FILE"
)
_STARTS = {INTERPRETER_ALONE.address, INTERPRETER.address, BOOTLOADER.address}


class InspectionError(ValueError):
    """A file that is no image, in a line."""


@dataclass(frozen=True)
class Inspection:
    """What a file holds; of a damaged one, as much as could be read. `wrong`: in a line each."""

    header: Header | None = None
    """None: a bare volume, or an update by file."""
    parts: Sequence[Part] = ()
    info: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    manifest: Mapping[str, Any] | None = None
    remarks: Sequence[str] = ()
    wrong: Sequence[str] = ()
    update: Update | None = None


def inspect(data: bytes) -> Inspection:
    """Any binpack, FAT12 volume or update by file. Raises InspectionError for what is none, or a damaged update."""
    if update.is_update(data):
        return _update(data)
    if fat12.is_volume(data):
        files, listed, wrong = _drive(data)
        return Inspection(files=files, manifest=listed, remarks=list(_strangers(files, listed)), wrong=wrong)
    if not binpack.is_binpack(data):
        raise InspectionError("this is neither a binpack nor a FAT volume nor an update by file")
    return _binpack(data)


def _binpack(data: bytes) -> Inspection:
    try:
        header = binpack.read_header(data)
    except BinpackError as error:
        raise InspectionError(str(error)) from None
    try:
        parts = binpack.unpack(data).parts
    except BinpackError as error:
        return Inspection(header, wrong=[str(error)])
    info, wrong = _read_info(header.info)
    files: dict[str, bytes] = {}
    listed = None
    for part in parts:
        if fat12.is_volume(part.data):
            files, listed, of_drive = _drive(part.data)
            wrong += of_drive
        elif header.host == HOST and part.address == DRIVE.address:
            wrong.append(f"part {part.name} is at the drive's address and is no volume")
        elif header.host == HOST and part.address in _STARTS and (reason := why_not_to_start(part.data, part.address)):
            wrong.append(f"part {part.name} cannot start at 0x{part.address:08x}: {reason}")
    wrong += _overlaps(parts)
    if info is not None and info.get("product") == PRODUCT:
        wrong += _contradictions(info, parts, listed)
    remarks = [*_remarks(header, len(data), {part.address for part in parts}), *_strangers(files, listed)]
    return Inspection(header, parts, info, files, listed, remarks, wrong)


def _update(data: bytes) -> Inspection:
    try:
        found = Update.parse(data)
    except UpdateError as error:
        raise InspectionError(str(error)) from None
    room = ROOM_BYTES[SLOT if found.kind is Kind.CODE else MODEL_SLOT]
    files: dict[str, bytes] = {}
    if found.kind is Kind.CODE:
        files, _, wrong = _drive(found.content)
    else:
        wrong = list(_wrong_with_model(found))
    if len(found.content) > room:
        wrong.append(f"its content has {len(found.content)} bytes, and a board's slot takes {room}")
    return Inspection(update=found, files=files, wrong=wrong)


def _wrong_with_model(found: Update) -> Iterator[str]:
    from judder.model.file import ModelError, from_bytes, model_id  # numpy, only for those who have a model

    try:
        from_bytes(found.content)
    except ModelError as error:
        yield f"its content is no model: {error}"
        return
    if model_id(found.content) != found.version:
        yield f"it says model {found.version} and has {model_id(found.content)}"


def _drive(image: bytes) -> tuple[dict[str, bytes], dict[str, Any] | None, list[str]]:
    """Files, manifest, and what is wrong."""
    try:
        files = fat12.read(image)
    except Fat12Error as error:
        return {}, None, [f"the drive is damaged: {error}"]
    if MANIFEST not in files:
        return files, None, []
    try:
        members = read_manifest(files[MANIFEST])
    except ManifestError as error:
        return files, None, [str(error)]
    return files, members, list(differences(files, members["files"]))


def _read_info(text: str) -> tuple[dict[str, Any] | None, list[str]]:
    if not text:
        return None, []
    try:
        info = json.loads(text.removeprefix(MARKER))
    except (ValueError, RecursionError):
        info = None
    if not text.startswith(MARKER) or not isinstance(info, dict):
        return None, [f"INFO is not {MARKER} with a JSON object"]
    return info, []


def _contradictions(info: Mapping[str, Any], parts: Sequence[Part], listed: Mapping[str, Any] | None) -> Iterator[str]:
    """Between an image of ours and what it says of itself."""
    digests = info.get("sha256")
    expected = digests.get(DRIVE.name) if isinstance(digests, dict) else None
    for part in parts:
        if part.name == DRIVE.name and hashlib.sha256(part.data).hexdigest() != expected:
            yield f"part {part.name} is not the one that INFO describes"
    if listed is None:
        yield f"there is no {MANIFEST} on its drive"
    else:
        for name in ("version", "revision", "model"):
            if info.get(name) != listed.get(name):
                yield f"{name} is {info.get(name)!r} in INFO and {listed.get(name)!r} in the manifest"


def _overlaps(parts: Sequence[Part]) -> Iterator[str]:
    for one, other in pairwise(sorted(parts, key=lambda part: part.address)):
        if one.address + len(one.data) > other.address:
            yield f"parts {one.name} and {other.name} overlap at 0x{other.address:08x}"


def _remarks(header: Header, size: int, addresses: set[int]) -> Iterator[str]:
    if not header.info:
        yield "no INFO: Notehub will ask for the version"
    for kind, most in NOTECARDS.items():
        if size > most:
            yield f"{size} bytes are more than a Notecard {kind} takes ({most})"
    if header.host == HOST and not addresses & _STARTS:
        yield FS_ONLY_WARNING
    elif INTERPRETER.address in addresses and BOOTLOADER.address not in addresses:
        yield "the interpreter needs a bootloader, and there is none in it"


def _strangers(files: Mapping[str, bytes], listed: Mapping[str, Any] | None) -> Iterator[str]:
    if listed is None:
        return
    known = {*listed["files"], *FACTORY, MANIFEST, SETTINGS_FILE, RING_FILE, *SLOTS, f"{SLOT_FOLDER}/"}
    if others := sorted(set(files) - known):
        yield f"on the drive and not in the manifest: {', '.join(others[:8])}" + " ..." * (len(others) > 8)
