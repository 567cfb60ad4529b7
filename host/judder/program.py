"""Programs in the Swan's flash: where bootloader, interpreter and drive have room, and whether one can start there.

Ref: circuitpython:ports/stm/boards/STM32L4R5_boot.ld, STM32L4R5_default.ld, supervisor/internal_flash.c; RM0432,
"Memory organization" (640 KB of RAM) and "Interrupts".
"""

import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from judder import fat12

_KIB = 1024
_FLASH = 0x08000000
_RAM, _RAM_END = 0x20000000, 0x200A0000
_VECTORS = 16 + 95  # the core's and the part's
_BRANCH_TO_ITSELF = b"\xfe\xe7"


class ProgramError(ValueError):
    """A program that cannot run where it should, in a line."""


class Region(NamedTuple):
    """Of the flash."""

    name: str
    address: int
    bytes: int


BOOTLOADER = Region("bootloader", _FLASH, 64 * _KIB)
INTERPRETER = Region("interpreter", 0x08010000, (4 + 828) * _KIB)
"""Behind a bootloader: CircuitPython's released build, which cannot start without one."""
INTERPRETER_ALONE = Region("interpreter", _FLASH, (4 + 892) * _KIB)
DRIVE = Region("filesystem", 0x08100000, fat12.SECTORS * fat12.SECTOR_BYTES)


def check(region: Region, content: bytes) -> None:
    """Raises ProgramError for what cannot run there."""
    if content.startswith(b"UF2\n"):
        raise ProgramError(f"the {region.name} is a UF2 file: give the .bin")
    if len(content) > region.bytes:
        raise ProgramError(
            f"the {region.name} has {len(content)} bytes, and at 0x{region.address:08x} there are {region.bytes}"
        )
    if reason := why_not_to_start(content, region.address):
        raise ProgramError(f"the {region.name} cannot start at 0x{region.address:08x}: {reason}")


def why_not_to_start(content: bytes, address: int) -> str:
    """What is wrong with the vector table that a program begins with; "" if nothing is."""
    if len(content) < 4 * _VECTORS:
        return f"{len(content)} bytes are not even a vector table"
    vectors = struct.unpack_from(f"<{_VECTORS}I", content)
    stack, reset = vectors[:2]
    if not _RAM < stack <= _RAM_END or stack % 4:
        return f"0x{stack:08x}, where its stack should begin, is not in RAM: is it a raw .bin for the Swan?"
    linked = _linked_at(content, vectors)
    if not (reset % 2 and address <= reset < address + len(content)):
        linked = linked or (INTERPRETER if reset >= INTERPRETER.address else INTERPRETER_ALONE).address
        if linked == address:
            return f"its reset vector 0x{reset:08x} points out of it"
    if linked in (None, address):
        return ""
    if linked == INTERPRETER.address:
        return f"it is linked for 0x{linked:08x}, as CircuitPython's released .bin is: give --bootloader FILE, too"
    return f"it is linked for 0x{linked:08x}, where no bootloader leaves it room: leave --bootloader out"


def _linked_at(content: bytes, vectors: Sequence[int]) -> int | None:
    """Where it was linked for, if that is plain: the reset vector may lie in both places, so look for a known handler.

    The one that most interrupts share is a branch to itself (STMicroelectronics/cmsis_device_l4: startup files).
    """
    ((shared, _),) = Counter(vector for vector in vectors[2:] if vector % 2).most_common(1) or [(0, 0)]
    places = (INTERPRETER_ALONE.address, INTERPRETER.address)
    offsets = {place: shared - 1 - place for place in places if shared > place}
    found = [place for place, at in offsets.items() if content[at : at + 2] == _BRANCH_TO_ITSELF]
    return found[0] if len(found) == 1 else None
