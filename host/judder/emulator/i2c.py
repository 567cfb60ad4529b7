"""The I2C bus of the emulated bench: addresses, acknowledgements, bit time and injected faults.

A transfer costs its bits at the bus frequency: start, address and R/W, 9 clocks a byte, stop. Checked against the
bus times of ST's AN3308 section 9.5 (830 us for one set, 17.57 ms for 32 at 100 kHz, start and stop not counted).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from judder.emulator.clock import Clock
from judder.emulator.trace import Trace, silent

ACK = 0
ADDRESS_NACK = 1
DATA_NACK = 2

STANDARD_HZ = 100_000
FAST_HZ = 400_000


class Chip(Protocol):
    """Something with an I2C address. The clock stands at the first data byte when a method is called."""

    def answers(self) -> bool:
        """Whether it acknowledges its address; False while it has no power."""

    def write(self, data: bytes, byte_ns: int) -> bool:
        """Take the bytes of one write; False refuses them (data NACK)."""

    def read(self, length: int, byte_ns: int) -> bytes:
        """Give `length` bytes; byte i is on the wire at now + i * byte_ns. The bus charges the time afterwards."""


@dataclass(frozen=True)
class Transfer:
    """What the controller asks for: a write, a read, or both with a repeated start; neither is a probe."""

    address: int
    written: bytes
    read_length: int


@dataclass
class Injected:
    """What a fault does to one transfer: answer `status` instead of the chip.

    With `consumed` the chip is read all the same and only the first `delivered` bytes reach the controller: an EIO
    in mid-burst, where the sensor's FIFO has moved on but the host has nothing to show for it.
    """

    status: int
    consumed: bool = False
    delivered: int = 0


Fault = Callable[[Transfer], Injected | None]


@dataclass
class I2CBus:
    """Chips by 7-bit address on one pair of wires."""

    clock: Clock
    frequency_hz: int = STANDARD_HZ
    faults: list[Fault] = field(default_factory=list)
    chips: dict[int, Chip] = field(default_factory=dict)
    resets: int = 0
    injected: int = 0  # transfers that a fault answered
    trace: Trace = silent

    def attach(self, address: int, chip: Chip) -> None:
        """Put `chip` on the bus."""
        self.chips[address] = chip

    def reset(self) -> None:
        """Clock out a stuck transfer, as a controller does with nine pulses on SCL."""
        self.resets += 1
        self.trace("bus reset")
        self.clock.charge(9 * self._bit_ns())

    def transfer(self, transfer: Transfer) -> tuple[int, bytes]:
        """Run one transfer; returns the status and the bytes read."""
        status, data = self._transfer(transfer)
        self.trace(
            "bus",
            address=transfer.address,
            status=status,
            length=transfer.read_length,
            written=transfer.written,
            read=data,
        )
        return status, data

    def _transfer(self, transfer: Transfer) -> tuple[int, bytes]:
        for fault in self.faults:
            injected = fault(transfer)
            if injected is not None:
                return self._inject(transfer, injected)
        chip = self.chips.get(transfer.address)
        self.clock.charge(11 * self._bit_ns())
        if chip is None or not chip.answers():
            return ADDRESS_NACK, b""
        return self._run(chip, transfer)

    def _run(self, chip: Chip, transfer: Transfer) -> tuple[int, bytes]:
        byte_ns = 9 * self._bit_ns() if self.clock.charges else 0
        if transfer.written:
            accepted = chip.write(transfer.written, byte_ns)
            self.clock.charge(len(transfer.written) * byte_ns)
            if not accepted:
                return DATA_NACK, b""
            if transfer.read_length:
                self.clock.charge(10 * self._bit_ns())
        if not transfer.read_length:
            return ACK, b""
        data = chip.read(transfer.read_length, byte_ns)
        self.clock.charge(transfer.read_length * byte_ns)
        return ACK, data

    def _inject(self, transfer: Transfer, injected: Injected) -> tuple[int, bytes]:
        self.injected += 1
        self.clock.charge(11 * self._bit_ns())
        data = b""
        if injected.consumed and transfer.address in self.chips:
            _, data = self._run(self.chips[transfer.address], transfer)
        return injected.status, data[: injected.delivered]

    def _bit_ns(self) -> int:
        return 1_000_000_000 // self.frequency_hz
