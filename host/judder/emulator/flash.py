"""The Swan's CIRCUITPY flash, as CircuitPython drives it: what a power cut leaves, what wears out, what takes time.

Part: STM32L4R5, upper bank in dual-bank mode: 256 pages of 4 KB at 0x08100000. A page is erased as a whole to 0xFF
and then programmed in double words; the CPU stands still meanwhile.
Ref: RM0432, "Embedded Flash memory"; DS12023, "Flash memory characteristics" (typically 22.02 ms to erase a page and
81.69 us to program a double word; 10,000 cycles).

Driver: one page is cached in RAM; a write to another page, or a read outside it, first writes the cached page back,
unless the flash holds the same already (circuitpython:ports/stm/supervisor/internal_flash.c). A countdown of 1000
ticks that runs while something is unwritten writes it back too (circuitpython:supervisor/shared/filesystem.c), and so
does os.sync. A flush stops the countdown, also the one within a write that goes to another page: what that write has
put into the cache stays there until the next call of any kind (circuitpython:supervisor/shared/flash.c).

Not modelled: the ECC error of a double word cut in the midst of being programmed, which the real part reports by an
NMI when it is read; nor the master boot record that CircuitPython makes up in front of block 0.
"""

import random
from collections import deque
from enum import StrEnum

from judder.emulator.clock import Clock, VirtualClock
from judder.emulator.stream import Handler, Request

BASE_ADDRESS = 0x08100000
PAGE_BYTES = 4096
PAGES = 256
BLOCK_BYTES = 512
BLOCKS = PAGES * PAGE_BYTES // BLOCK_BYTES
BLOCKS_PER_PAGE = PAGE_BYTES // BLOCK_BYTES
ERASE_NS = 22_020_000
PROGRAM_NS = PAGE_BYTES // 8 * 81_690
STEPS_KEPT = 10_000
FLUSH_AFTER_NS = 1000 * 10**9 // 1024

_ERASED = b"\xff" * PAGE_BYTES


class Torn(StrEnum):
    """What a step that the power cut into leaves of its page."""

    untouched = "untouched"  # as it was before the step
    erased = "erased"
    partial = "partial"  # the step is done in the first half only
    garbage = "garbage"  # so it is, and the second half holds anything


class PowerLostError(Exception):
    """The power went in the midst of something; whatever was in RAM is gone."""


class Pages:
    """Flash by the page. Each erase and each program is a step; at step `cut_at` the power goes."""

    def __init__(self, pages: list[bytearray], clock: Clock, seed: int) -> None:
        self._clock = clock
        self._random = random.Random(seed)
        self.pages = pages
        """What the flash holds, without a cache."""
        self.erases = [0] * len(pages)
        self.steps = 0
        self.step_ns: deque[int] = deque(maxlen=STEPS_KEPT)
        """When the last steps began."""
        self.cut_at: int | None = None
        self.torn = Torn.erased

    def erase(self, page: int) -> None:
        """Raises PowerLostError."""
        self.erases[page] += 1
        self._step(page, _ERASED)

    def program(self, page: int, data: bytes) -> None:
        """Raises PowerLostError."""
        self._step(page, data)

    def _step(self, page: int, data: bytes) -> None:
        if self._is_cut():
            self.pages[page][:] = self._remains(bytes(self.pages[page]), data)
            raise PowerLostError(f"at step {self.steps}, page {page} is {self.torn}")
        self.pages[page][:] = data

    def _is_cut(self) -> bool:
        """Count a step; True when the power goes in it."""
        self.steps += 1
        self.step_ns.append(self._clock.now_ns())
        return self.steps == self.cut_at

    def _remains(self, before: bytes, data: bytes) -> bytes:
        half = len(data) // 2
        return {
            Torn.untouched: before,
            Torn.erased: b"\xff" * len(data),
            Torn.partial: data[:half] + before[half:],
            Torn.garbage: data[:half] + self._random.randbytes(half),
        }[self.torn]


class Flash(Pages):
    """The drive's blocks behind the cache."""

    def __init__(self, clock: Clock | None = None, *, seed: int = 0) -> None:
        super().__init__([bytearray(_ERASED) for _ in range(PAGES)], clock or VirtualClock(), seed)
        self.power_up()

    def load(self, image: bytes) -> None:
        """Make it hold all of `image` without a step, as whoever prepared the board has left it."""
        if len(image) != PAGES * PAGE_BYTES:
            raise ValueError(f"{len(image)} bytes are not the whole flash")
        for number, page in enumerate(self.pages):
            page[:] = image[number * PAGE_BYTES : (number + 1) * PAGE_BYTES]
        self.power_up()

    def power_up(self) -> None:
        """After a power cut or a reset: an empty cache."""
        self._cache = bytearray(PAGE_BYTES)
        self._cached_page: int | None = None
        self._dirty_since_ns: int | None = None
        self._countdown_ns = FLUSH_AFTER_NS

    # --- what the file system calls ---------------------------------------------------------------------------------

    def read(self, block: int, count: int = 1) -> bytes:
        """`count` blocks, from the cache if it holds them all."""
        _check(block, count)
        self.background()
        page, first = divmod(block, BLOCKS_PER_PAGE)
        start, end = first * BLOCK_BYTES, (first + count) * BLOCK_BYTES
        if page == self._cached_page and end <= PAGE_BYTES:
            return bytes(self._cache[start:end])
        self.flush()
        last_page = (block + count - 1) // BLOCKS_PER_PAGE
        return b"".join(self.pages[page : last_page + 1])[start:end]

    def write(self, block: int, data: bytes) -> None:
        """Whole blocks, into the cache."""
        count, rest = divmod(len(data), BLOCK_BYTES)
        if rest:
            raise ValueError(f"{len(data)} bytes are no whole blocks")
        _check(block, count)
        self.background()
        if self._dirty_since_ns is None:
            self._dirty_since_ns = self._clock.now_ns()
        for number in range(count):
            self._cache_block(block + number, data[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])

    def _cache_block(self, block: int, data: bytes) -> None:
        page, first = divmod(block, BLOCKS_PER_PAGE)
        if page != self._cached_page:
            self.flush()
            self._cached_page = page
            self._cache[:] = self.pages[page]
        self._cache[first * BLOCK_BYTES : (first + 1) * BLOCK_BYTES] = data

    def flush(self) -> None:
        """os.sync: the cached page goes to the flash; it stays cached."""
        if self._dirty_since_ns is not None:
            self._countdown_ns = max(1, self._countdown_ns - (self._clock.now_ns() - self._dirty_since_ns))
        self._dirty_since_ns = None
        if self._cached_page is not None and self._cache != self.pages[self._cached_page]:
            self._rewrite(self._cached_page, bytes(self._cache))

    def background(self) -> None:
        """What CircuitPython does between two bytecodes: flush when the countdown has run out."""
        if self._dirty_since_ns is None or self._clock.now_ns() - self._dirty_since_ns < self._countdown_ns:
            return
        self.flush()
        self._countdown_ns = FLUSH_AFTER_NS

    def _rewrite(self, page: int, data: bytes) -> None:
        try:
            self.erase(page)
            self._clock.charge(ERASE_NS)
            self.program(page, data)
            self._clock.charge(PROGRAM_NS)
        except PowerLostError:
            self.power_up()
            raise


class FlashPort:
    """The flash at the end of the stream: choose a block, then read or write from it on; flush."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash
        self._block = 0
        self.ops: dict[int, Handler] = {
            ord("H"): self._choose,
            ord("V"): lambda request: flash.read(self._block, request.read_length // BLOCK_BYTES),
            ord("D"): self._write,
            ord("Y"): self._flush,
        }

    def _choose(self, request: Request) -> bytes:
        self._block = int.from_bytes(request.written, "little")
        return b""

    def _write(self, request: Request) -> bytes:
        self._flash.write(self._block, request.written)
        return b""

    def _flush(self, request: Request) -> bytes:
        self._flash.flush()
        return b""


def _check(block: int, count: int) -> None:
    if block < 0 or count < 0 or block + count > BLOCKS:
        raise ValueError(f"blocks {block} to {block + count} are not all among the drive's {BLOCKS}")
