"""The file that Notehub gives a board to take over: a lead, a header that says what it is, then the content.

The lead is the beginning of an image for no host that a Notecard knows, so that it flashes none of this by mistake.
Then, little-endian: magic `56 55 C1 7F`, u8 version (1), u8 kind (1 model, 2 code), u16 header length (64), u32 length
and u32 CRC-32 of the content, 44 bytes of version text (UTF-8, filled up with NUL; of a model, its id), u32 CRC-32 of
the 60 bytes before.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self
from zlib import crc32

LEAD = b"/// BINPACK ///\nHOST: judder\n/// BINPACK ///\n\0"
MAGIC = b"VU\xc1\x7f"
HEADER = struct.Struct("<4sBBHII44sI")
VERSION = 1
VERSION_BYTES = 44
_SEALED = HEADER.size - 4


class UpdateError(ValueError):
    """A file that is no update, or a damaged one, in a line."""


class Kind(IntEnum):
    """What the content is."""

    MODEL = 1
    CODE = 2


@dataclass(frozen=True)
class Update:
    """`version` is that of the code, or the id of the model. Raises UpdateError for one that does not fit."""

    kind: Kind
    version: str
    content: bytes

    def __post_init__(self) -> None:
        size = len(self.version.encode())
        if not 0 < size <= VERSION_BYTES or not self.version.isprintable():
            raise UpdateError(f"version {self.version!r}: give 1 to {VERSION_BYTES} bytes of printable text")

    def to_bytes(self) -> bytes:
        """The file."""
        head = HEADER.pack(
            MAGIC,
            VERSION,
            self.kind,
            HEADER.size,
            len(self.content),
            crc32(self.content),
            self.version.encode(),
            0,
        )[:_SEALED]
        return LEAD + head + struct.pack("<I", crc32(head)) + self.content

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Of a whole file. Raises UpdateError."""
        if not is_update(data) or len(data) < len(LEAD) + HEADER.size:
            raise UpdateError("this is no update file: its magic is missing")
        data = data[len(LEAD) :]
        _, version, kind, header_length, length, content_crc32, text, header_crc32 = HEADER.unpack_from(data)
        if crc32(data[:_SEALED]) != header_crc32:
            raise UpdateError("the header is damaged: its CRC-32 is wrong")
        if version != VERSION or header_length != HEADER.size:
            raise UpdateError(f"version {version} of the format is not known: {VERSION} is")
        content = data[HEADER.size :]
        if len(content) != length:
            raise UpdateError(f"{len(content)} bytes follow the header, and {length} should")
        if crc32(content) != content_crc32:
            raise UpdateError("the content is damaged: its CRC-32 is wrong")
        try:
            return cls(Kind(kind), text.rstrip(b"\0").decode(), content)
        except ValueError as error:
            raise UpdateError(f"the header says what no version of ours means: {error}") from None


def is_update(data: bytes) -> bool:
    """Whether it begins as one."""
    return data.startswith(LEAD + MAGIC)
