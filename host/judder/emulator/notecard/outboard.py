"""Outboard firmware update: the card itself writes the host's flash, through the ROM's bootloader.

Documents: dev.blues.io on outboard firmware update and card.dfu; notecard-schema:card.dfu; what is in a binpack:
note-cli:notecard/binpack.go. A file that is none is written to 0x08000000. The image stays in the card, so the host's
own code is not needed to try again.

Assumed, all of it unverified: that both banks are erased before anything is written (`erases_all`; otherwise the pages
of the parts, each before it is written), that every page is written even if it is empty, 115200 baud, that the parts'
MD5s are compared with what the flash holds at the end, and that the host is reset then in any case. A pack that is
damaged or for another host is refused before anything is erased. What breaks off is begun again from the start,
RETRY_NS later and without end; an image that is wrong is not tried again.

Without a `host` behind the card an update counts as flashed at once.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from judder.binpack import Binpack, BinpackError, Part, is_binpack, unpack
from judder.emulator.flash import ERASE_NS, PAGE_BYTES, PROGRAM_NS, PowerLostError
from judder.emulator.notecard.binary_store import md5
from judder.emulator.notecard.link import NEVER
from judder.emulator.notecard.twin import Firmware
from judder.emulator.program import ERASE_ALL_NS, PROGRAM_ADDRESS, Program, is_plausible

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard

HOST = "stm32"
SYNC_NS = 100_000_000  # assumed: from the reset to the bootloader's first answer
SEND_NS = PAGE_BYTES * 11 * 1_000_000_000 // 115_200  # a page; AN3155 wants even parity
RETRY_NS = 60_000_000_000
ERASE_TIMEOUT = "can't initiate chip erase: send command 44 timeout {odfu-fail}"


class OutboardError(Exception):
    """The image is wrong, or the host refuses it: trying again would not help. The message is dfu.status'."""


class Host(Protocol):
    """What is wired to the card's AUX pins, BOOT and NRST."""

    @property
    def has_power(self) -> bool: ...

    @property
    def in_bootloader(self) -> bool: ...

    def enter_bootloader(self) -> None:
        """A reset with BOOT high: the ROM listens, until the next reset."""

    def reset(self) -> None:
        """A reset with BOOT low: what is in flash runs."""


class Outboard:
    """card.dfu, and what it allows. `name` is the kind of host, or "-"; `allowed_from_ns` when flashing may begin.

    `resets_host`: whether the host is reset when the card starts (card.dfu start, stop).
    """

    def __init__(self, card: "Notecard") -> None:
        self._card = card
        self.name = "-"
        self.mode = "aux"
        self.allowed_from_ns = 0
        self.resets_host = True
        self.erases_all = True
        self.host: Host | None = None
        self._program: Program | None = None
        self.flashed: list[Firmware] = []
        self.tries = 0
        self._steps: Iterator[int] = iter(())
        self._next_ns = 0

    def wire(self, host: Host, program: Program) -> None:
        """Put a host behind the card, with `program` as its flash."""
        self.host, self._program = host, program

    def due_ns(self) -> int:
        """When the next step is to be taken."""
        update = self._card.update
        if update.mode == "updating":
            return self._next_ns
        if update.mode == "ready" and self._fits():
            return max(update.ready_ns, self.allowed_from_ns)
        if update.mode == "ready-retry" and self._fits():
            return max(self._next_ns, self.allowed_from_ns)
        return NEVER

    def _fits(self) -> bool:
        return self.name != "-" if self.host is None else self.name == HOST

    def step(self, now_ns: int) -> None:
        """Take it. Raises PowerLostError when the host's power goes in it."""
        update = self._card.update
        if self.host is None or self._program is None:
            self._finish(now_ns)
            return
        if update.mode != "updating":
            self.tries += 1
            update.become("updating", "updating the host's firmware", now_ns)
            self._steps = self._flash(self.host, self._program)
            self._next_ns = now_ns
        try:
            self._next_ns += next(self._steps)
        except StopIteration:
            self._finish(now_ns)
        except OutboardError as error:
            update.stop("", str(error), now_ns)
            self._release()
        except PowerLostError:
            self._break_off(now_ns)
            raise
        except ConnectionError:
            self._break_off(now_ns)

    def restart(self, now_ns: int) -> None:
        """The card restarts, and resets the host unless it was told not to."""
        if self._card.update.mode == "updating":
            self._break_off(now_ns)
        if self.resets_host:
            self._release()

    def _finish(self, now_ns: int) -> None:
        firmware = self._card.update.firmware
        if firmware is not None:
            self.flashed.append(firmware)
            self._card.trace("outboard", file=firmware.name)
        self._card.update.stop("", "", now_ns)
        self._release()

    def _break_off(self, now_ns: int) -> None:
        self._steps = iter(())
        self._next_ns = now_ns + RETRY_NS
        self._card.update.become("ready-retry", "the host does not answer: trying again {odfu-init}", now_ns)

    def _release(self) -> None:
        if self.host is not None and self.host.has_power:
            self.host.reset()

    def _flash(self, host: Host, program: Program) -> Iterator[int]:
        """The steps, each of them taken and then told in nanoseconds. Raises OutboardError, ConnectionError."""
        parts = self._parts(program)
        host.enter_bootloader()
        yield SYNC_NS
        for act, duration_ns in self._plan(program, parts):
            if not host.in_bootloader:
                raise ConnectionError
            act()
            yield duration_ns
        for part in parts:
            if md5(program.read(part.address, len(part.data))) != md5(part.data):
                raise OutboardError(f"{part.name}: MD5 does not match what was written {{odfu-fail}}")

    def _parts(self, program: Program) -> Sequence[Part]:
        """What goes where; the board may boot from it."""
        firmware = self._card.update.firmware
        data = firmware.data if firmware else b""
        if not is_binpack(data):
            parts: Sequence[Part] = [Part("program", PROGRAM_ADDRESS, data)]
            bootable = is_plausible(data)
        else:
            pack = _unpacked(data)
            if pack.host != HOST:
                raise OutboardError(f"the image is for {pack.host} {{host-dfu-fatal}}")
            parts, bootable = pack.parts, True
        if bootable:
            program.give(parts)
        return parts

    def _plan(self, program: Program, parts: Sequence[Part]) -> Iterator[tuple[Callable[[], None], int]]:
        """What to do, and how long it takes."""
        try:
            pages = program.cut_into_pages(parts)
        except ValueError as error:
            raise OutboardError(f"{error} {{host-dfu-fatal}}") from None
        faults = self._card.faults
        if self.erases_all:
            if any(fault.refuses_erase() for fault in faults):
                raise OutboardError(ERASE_TIMEOUT)
            yield program.erase_all, ERASE_ALL_NS
        for number, data in pages:
            if not self.erases_all:
                yield partial(program.erase, number), ERASE_NS
            for fault in faults:
                data = fault.page(data)
            yield partial(program.program, number, data), SEND_NS + PROGRAM_NS


def _unpacked(data: bytes) -> Binpack:
    try:
        return unpack(data)
    except BinpackError as error:
        raise OutboardError(f"{error} {{host-dfu-fatal}}") from None
