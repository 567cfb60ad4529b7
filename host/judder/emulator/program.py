"""The Swan's whole flash, as the ROM's bootloader writes it over a serial line: what an outboard update changes.

Part: STM32L4R5 in dual-bank mode, 512 pages of 4 KB from 0x08000000 on. Bootloader and interpreter lie in the lower
bank, the drive in the upper one. Ref: RM0432, "Embedded Flash memory"; DS12023 (a mass erase of both banks takes
typically 22.13 ms); AN2606 and AN3155, the bootloader and its protocol, which also erases single pages.

What boots: no interpreter runs here, so its bytes are compared. A board starts if the lower bank holds, from first to
last byte, what an image puts there that the board was given: all parts of a binpack that lie in that bank, or a bare
program for 0x08000000 whose vector table is plausible (PM0214: a stack in RAM, an entry in flash with the Thumb bit).
What lies behind or between the parts does not matter, as it does not to the part.
"""

import random
import struct
from collections.abc import Iterable
from typing import Protocol

from judder.emulator.clock import Clock
from judder.emulator.flash import BASE_ADDRESS, PAGE_BYTES, PAGES, Flash, Pages, PowerLostError

PROGRAM_ADDRESS = 0x08000000
ERASE_ALL_NS = 22_130_000
VECTORS_BYTES = 1024
FLASH_BYTES = 2 * PAGES * PAGE_BYTES
RAM = range(0x20000000, 0x200A0001)  # 640 KB, and the end of it, where a stack begins

_ERASED = b"\xff" * PAGE_BYTES


class Part(Protocol):
    """Bytes for an address, as judder.binpack.Part."""

    @property
    def address(self) -> int: ...

    @property
    def data(self) -> bytes: ...


class Program(Pages):
    """Both banks; the upper one is `drive`, page for page. Time is for whoever writes it to charge."""

    def __init__(self, drive: Flash, clock: Clock, *, seed: int = 0) -> None:
        super().__init__([*(bytearray(_ERASED) for _ in range(PAGES)), *drive.pages], clock, seed)
        self.drive = drive
        self.drive_is_new = True
        """Whether the drive was written here since the board last took its files from it."""
        self._given: list[list[Part]] = []

    def give(self, parts: Iterable[Part]) -> None:
        """An image from which the board may boot."""
        below = [part for part in parts if part.data and part.address < BASE_ADDRESS]
        if below and below not in self._given:
            self._given.append(below)

    def load(self, parts: Iterable[Part]) -> None:
        """Make it hold an image without a step, and erased around it, as whoever made the board has left it.

        Raises ValueError for a part that goes beyond the flash.
        """
        parts = list(parts)
        pages = dict(self.cut_into_pages(parts))
        self.give(parts)
        for number, page in enumerate(self.pages):
            page[:] = pages.get(number, _ERASED)
        self.drive.power_up()
        self.drive_is_new = True

    def cut_into_pages(self, parts: Iterable[Part]) -> list[tuple[int, bytes]]:
        """Number and content of each page that `parts` touch, erased where they do not; a page comes once.

        Raises ValueError for a part that goes beyond the flash.
        """
        pages: dict[int, bytearray] = {}
        for part in parts:
            start = part.address - PROGRAM_ADDRESS
            if not 0 <= start <= start + len(part.data) <= FLASH_BYTES:
                raise ValueError(f"{len(part.data)} bytes at {part.address:#010x} are not within the flash")
            at = 0
            while at < len(part.data):
                number, skip = divmod(start + at, PAGE_BYTES)
                piece = part.data[at : at + PAGE_BYTES - skip]
                pages.setdefault(number, bytearray(_ERASED))[skip : skip + len(piece)] = piece
                at += len(piece)
        return [(number, bytes(data)) for number, data in pages.items()]

    def read(self, address: int, length: int) -> bytes:
        """What lies at an address now."""
        first, skip = divmod(address - PROGRAM_ADDRESS, PAGE_BYTES)
        last = first + (skip + length - 1) // PAGE_BYTES
        return b"".join(self.pages[first : last + 1])[skip : skip + length]

    def holds(self, parts: Iterable[Part]) -> bool:
        """Whether all of them lie where they should."""
        return all(self.read(part.address, len(part.data)) == part.data for part in parts)

    def boots(self) -> bool:
        """Whether the lower bank starts: see above."""
        return any(self.holds(parts) for parts in self._given)

    def erase(self, page: int) -> None:
        """As Pages.erase; a page of the drive wears out there as well."""
        if page >= PAGES:
            self.drive.erases[page - PAGES] += 1
        super().erase(page)

    def _step(self, page: int, data: bytes) -> None:
        self.drive_is_new = self.drive_is_new or page >= PAGES
        super()._step(page, data)

    def erase_all(self) -> None:
        """Both banks in one step. Raises PowerLostError."""
        self.erases = [erases + 1 for erases in self.erases]
        self.drive.erases = [erases + 1 for erases in self.drive.erases]
        self.drive_is_new = True
        cut = self._is_cut()
        held, erased = b"".join(self.pages), b"\xff" * FLASH_BYTES
        left = self._remains(held, erased) if cut else erased
        for number, page in enumerate(self.pages):
            page[:] = left[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        if cut:
            raise PowerLostError(f"at step {self.steps}, both banks are {self.torn}")


def is_plausible(program: bytes) -> bool:
    """Whether it begins with a vector table."""
    if len(program) < 8:
        return False
    stack, entry = struct.unpack_from("<II", program)
    return stack in RAM and entry % 2 == 1 and PROGRAM_ADDRESS < entry < PROGRAM_ADDRESS + len(program)


def stand_in(size: int = 64 * 1024) -> bytes:
    """A file that may pass for an interpreter at 0x08000000; it is none: the emulated board has its own."""
    vectors = [RAM.stop - 1, PROGRAM_ADDRESS + VECTORS_BYTES + 1]
    vectors += [PROGRAM_ADDRESS + VECTORS_BYTES + 3] * (VECTORS_BYTES // 4 - len(vectors))
    code = b"\x00\xbf" + b"\xfe\xe7"  # nop; b . (the handler that a start-up file gives what has none)
    body = random.Random(size).randbytes(size - VECTORS_BYTES - len(code))
    return struct.pack(f"<{len(vectors)}I", *vectors) + code + body
