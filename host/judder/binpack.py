"""Binpacks: what Notehub keeps and a Notecard writes into a host's flash, as parts with their addresses.

Ref: blues/note-cli:notecard/binpack.go. First a header of text lines, ended by NUL, then the parts in its order: each
in frames of at most 8192 bytes before compression, each frame a length (32 bits, little-endian; the highest bit: not
compressed) and a Snappy block. A pack of 2022 has no SNAP line; its parts are not compressed and fill whole words.
"""

import hashlib
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from judder import snappy
from judder.snappy import SnappyError

FRAME_BYTES = 8192
MOST_BYTES = 64 * 1024 * 1024
"""Of a part that is read."""
MARKER = "firmware::info:"
"""What INFO begins with, and by which Notehub finds the version. Programs may have it in them, too; judder.image keeps
it off the drive.
"""
FENCE = "/// BINPACK ///"
"""Around the header."""

_WHEN = "%Y-%m-%d %H:%M:%S UTC"
_LENGTH = struct.Struct("<I")
_STORED = 1 << 31
_MOST_HEADER_BYTES = 65536
_WORD_BYTES = 4


class BinpackError(ValueError):
    """A pack that cannot be made or read, in a line."""


@dataclass(frozen=True)
class Part:
    """`data` for `address`. `region`: how many bytes it may take; None: as many as it has."""

    name: str
    address: int
    data: bytes
    region: int | None = None


@dataclass(frozen=True)
class Binpack:
    """Parts for a host of the kind `host`, "stm32" for a Swan; `info` is "" or MARKER with a JSON object."""

    when: datetime
    host: str
    parts: Sequence[Part]
    info: str = ""


class Load(NamedTuple):
    """What the header says of a part; `packed_bytes` of the pack, at `offset`."""

    name: str
    address: int
    region: int
    bytes: int
    packed_bytes: int
    md5: str
    offset: int


@dataclass(frozen=True)
class Header:
    """`frame_bytes`: most that a frame holds; 0: parts are not compressed. `length`: of the whole pack."""

    when: datetime
    host: str
    frame_bytes: int
    loads: Sequence[Load]
    info: str
    length: int


# --- writing ----------------------------------------------------------------------------------------------------------


def pack(binpack: Binpack, on_bytes: Callable[[int, int], None] = lambda done, total: None) -> bytes:
    """The file; `on_bytes` hears how many bytes are compressed, and of how many. Raises BinpackError."""
    lines = [
        FENCE,
        f"WHEN: {binpack.when.astimezone(UTC):{_WHEN}}",
        f"HOST: {binpack.host}",
        f"SNAP: {FRAME_BYTES}",
    ]
    total = sum(len(part.data) for part in binpack.parts)
    done = 0
    streams = []
    for part in binpack.parts:
        frames = bytearray()
        for at in range(0, len(part.data), FRAME_BYTES):
            frame = part.data[at : at + FRAME_BYTES]
            frames += _frame(frame)
            done += len(frame)
            on_bytes(done, total)
        streams.append(bytes(frames))
        name = part.name.replace(",", "")
        region = len(part.data) if part.region is None else part.region
        lines.append(f"LOAD: {name},{part.address},{region},{len(part.data)},{len(streams[-1])},{_md5(part.data)}")
    lines += [f"INFO: {binpack.info}"] * bool(binpack.info) + [FENCE]
    if wrong := next((line for line in lines if not line.isprintable()), None):
        raise BinpackError(f"a line of a pack's header cannot have control characters: {wrong!r}")
    return "".join(f"{line}\n" for line in lines).encode() + b"\0" + b"".join(streams)


def _frame(data: bytes) -> bytes:
    block = snappy.compress(data)
    if len(block) < len(data):
        return _LENGTH.pack(len(block)) + block
    return _LENGTH.pack(len(data) | _STORED) + data


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------------


def unpack(data: bytes) -> Binpack:
    """The pack in a file, every length and MD5 of it checked. Raises BinpackError."""
    header = read_header(data)
    if len(data) != header.length:
        raise BinpackError(f"the pack has {len(data)} bytes, and its header describes {header.length}")
    parts = [
        Part(load.name, load.address, _content(data, load, header.frame_bytes), load.region) for load in header.loads
    ]
    return Binpack(header.when, header.host, parts, header.info)


def is_binpack(data: bytes) -> bool:
    """Whether it begins as one."""
    return data.startswith(f"{FENCE}\n".encode())


def read_header(data: bytes) -> Header:
    """What a pack says of itself. Raises BinpackError."""
    end = data.find(b"\0", 0, _MOST_HEADER_BYTES)
    if not is_binpack(data) or end < 0:
        raise BinpackError("this is no binpack: it does not begin with a header that ends")
    try:
        text = data[:end].decode()
    except UnicodeDecodeError as error:
        raise BinpackError(f"byte {error.start} of the header is no text") from None
    head, fence, rest = text.removeprefix(f"{FENCE}\n").rpartition(f"{FENCE}\n")
    if not fence or rest:
        raise BinpackError(f"the header does not end with {FENCE}")
    head, _, info = head.removesuffix("\n").partition("\nINFO: ")  # the last; Go's may have lines of its own
    fields: dict[str, list[str]] = {"WHEN": [], "HOST": [], "SNAP": [], "LOAD": []}
    for number, line in enumerate(head.split("\n"), 2):
        name, colon, value = line.partition(": ")
        if not colon or name not in fields or (fields[name] and name != "LOAD"):
            raise BinpackError(f"line {number} of the header is not understood: {line[:80]!r}")
        fields[name].append(value)
    if missing := [name for name in ("WHEN", "HOST", "LOAD") if not fields[name]]:
        raise BinpackError(f"the header has no line {missing[0]}")
    frame_bytes = _number(fields["SNAP"][0], "SNAP", _STORED - 1) if fields["SNAP"] else 0
    if fields["SNAP"] and not frame_bytes:
        raise BinpackError("SNAP: a frame holds at least a byte")
    loads, offset = [], end + 1
    for value in fields["LOAD"]:
        loads.append(_load(value, offset, framed=frame_bytes > 0))
        offset += loads[-1].packed_bytes
    return Header(_when(fields["WHEN"][0]), fields["HOST"][0], frame_bytes, loads, info, offset)


def _load(value: str, offset: int, *, framed: bool) -> Load:
    name, *numbers, md5 = value.split(",")
    if len(numbers) != (4 if framed else 3):
        raise BinpackError(f"LOAD of {name} has {value.count(',') + 1} fields, and {6 if framed else 5} are due")
    if not re.fullmatch("[0-9a-f]{32}", md5):
        raise BinpackError(f"LOAD of {name} has no MD5 at its end: {md5[:40]!r}")
    address, region, size = (_number(one, f"LOAD of {name}", (1 << 32) - 1) for one in numbers[:3])
    if size > MOST_BYTES:
        raise BinpackError(f"LOAD of {name} has {size} bytes, and no host has a flash like that")
    packed = _number(numbers[3], f"LOAD of {name}", (1 << 32) - 1) if framed else -(-size // _WORD_BYTES) * _WORD_BYTES
    return Load(name, address, region, size, packed, md5, offset)


def _number(text: str, where: str, most: int) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > most:
        raise BinpackError(f"{where}: {text[:20]!r} is no number of at most {most}")
    return int(text)


def _when(text: str) -> datetime:
    try:
        return datetime.strptime(text, _WHEN).replace(tzinfo=UTC)
    except ValueError:
        raise BinpackError(f"WHEN: {text[:40]!r} is no time as 2026-05-04 12:00:00 UTC") from None


def _content(data: bytes, load: Load, frame_bytes: int) -> bytes:
    packed = data[load.offset : load.offset + load.packed_bytes]
    content = _unframed(packed, load, frame_bytes) if frame_bytes else packed[: load.bytes]
    if _md5(content) != load.md5:
        raise BinpackError(f"part {load.name} is damaged: its MD5 is {_md5(content)} and should be {load.md5}")
    return content


def _unframed(packed: bytes, load: Load, frame_bytes: int) -> bytes:
    content, at, number = bytearray(), 0, 0
    while at < len(packed):
        where = f"part {load.name}, frame {number}"
        if at + _LENGTH.size > len(packed):
            raise BinpackError(f"{where}: ends within its length")
        (length,) = _LENGTH.unpack_from(packed, at)
        block = packed[at + _LENGTH.size : at + _LENGTH.size + (length & ~_STORED)]
        if len(block) != length & ~_STORED:
            raise BinpackError(f"{where}: has {length & ~_STORED} bytes, and {len(block)} are there")
        expected = min(frame_bytes, load.bytes - len(content))
        try:
            frame = block if length & _STORED else snappy.decompress(block, expected)
        except SnappyError as error:
            raise BinpackError(f"{where}: {error}") from None
        if not expected or len(frame) != expected:
            raise BinpackError(f"{where}: holds {len(frame)} bytes, and {expected} are due")
        content += frame
        at += _LENGTH.size + len(block)
        number += 1
    if len(content) != load.bytes:
        raise BinpackError(f"part {load.name} holds {len(content)} bytes, of {load.bytes}")
    return bytes(content)
