"""The Swan's drive as a FAT on its flash: as `judder deploy` leaves it, with files that lie in one piece.

Ref: Microsoft, "FAT: General Overview of On-Disk Format", 1.03. A volume of 2048 blocks with one block to a cluster is
a FAT12; boot sector and table lie in page 0, so a power cut into that page takes the whole drive. Files begin at block
39, the last of page 4: as on the real drive, no file can count on beginning with a page.
"""

import struct
from collections.abc import Mapping

from judder.emulator.flash import BLOCK_BYTES, BLOCKS, BLOCKS_PER_PAGE, Flash

FILES_FROM = 39

_BOOT = struct.Struct("<3x8x HBHBHHBH 2x2x4x4x 3x4x11x 8s")
_ENTRY = struct.Struct("<11sB14xHI")
_ROOT_ENTRIES = 512
_ROOT_BLOCKS = _ROOT_ENTRIES * 32 // BLOCK_BYTES
_TABLE_BLOCKS = FILES_FROM - 1 - _ROOT_BLOCKS
_MEDIA, _ARCHIVE, _LAST = 0xF8, 0x20, 0xFFF
_SIGNATURE = b"\x55\xaa"


def volume(files: Mapping[str, bytes]) -> bytes:
    """The whole drive with these files (name as in 8.3, content) one behind the other."""
    table, root, contents = [0xF00 | _MEDIA, _LAST], b"", b""
    for name, content in files.items():
        root += _ENTRY.pack(_short(name), _ARCHIVE, len(table) if content else 0, len(content))
        clusters = -(-len(content) // BLOCK_BYTES)
        first = len(table)
        table += [*range(first + 1, first + clusters), _LAST] if clusters else []
        contents += content.ljust(clusters * BLOCK_BYTES, b"\0")
    parts = (_boot_sector(), 1), (_packed(table), _TABLE_BLOCKS), (root, _ROOT_BLOCKS)
    head = b"".join(part.ljust(blocks * BLOCK_BYTES, b"\0") for part, blocks in parts)
    return (head + contents).ljust(BLOCKS * BLOCK_BYTES, b"\xff")


def find(flash: Flash, name: str) -> tuple[int, int] | None:
    """First block and size of a file that `volume` has put there, as the flash holds it now. None without one."""
    boot = bytes(flash.pages[0][:BLOCK_BYTES])
    if boot != _boot_sector():
        return None
    root = b"".join(flash.pages[: -(-FILES_FROM // BLOCKS_PER_PAGE)])[
        (1 + _TABLE_BLOCKS) * BLOCK_BYTES : FILES_FROM * BLOCK_BYTES
    ]
    for found, _, cluster, size in _ENTRY.iter_unpack(root):
        if found == _short(name):
            return FILES_FROM + cluster - 2, size
    return None


def _boot_sector() -> bytes:
    head = bytearray(_BOOT.pack(BLOCK_BYTES, 1, 1, 1, _ROOT_ENTRIES, BLOCKS, _MEDIA, _TABLE_BLOCKS, b"FAT12   "))
    head[:3] = b"\xeb\xfe\x90"  # the jump by which a boot sector is known
    return bytes(head.ljust(BLOCK_BYTES - 2, b"\0") + _SIGNATURE)


def _packed(table: list[int]) -> bytes:
    """Twelve bits an entry, two in three bytes."""
    table = table + [0] * (len(table) % 2)
    return b"".join((low | high << 12).to_bytes(3, "little") for low, high in zip(table[::2], table[1::2], strict=True))


def _short(name: str) -> bytes:
    stem, _, extension = name.upper().partition(".")
    return stem.ljust(8).encode() + extension.ljust(3).encode()
