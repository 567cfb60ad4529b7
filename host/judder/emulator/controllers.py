"""I2C controllers for Python programs, with the surface of python-periphery's and of MicroPython's.

Either is put on a bus in this process (`I2CBus`) or on one behind a socket (`RemoteBus`), so that an unmodified driver
finds the emulated chips: `notecard.OpenI2C(PeripheryI2C(RemoteBus(path)), 0, 0)`. CircuitPython's busio is in
`modules/`, for whoever plays the Swan.
"""

import socket
from collections.abc import Sequence
from errno import EIO, ENODEV
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from judder.emulator.i2c import ACK, ADDRESS_NACK, Transfer
from judder.emulator.stream import REPLY, REQUEST


class Bus(Protocol):
    """Whatever can run a transfer."""

    def transfer(self, transfer: Transfer) -> tuple[int, bytes]:
        """Run one transfer; returns the status and the bytes read."""


class RemoteBus:
    """The bus behind the Unix socket of `judder emulate notecard --i2c-socket`. Raises OSError when it is not there."""

    def __init__(self, path: Path | str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def transfer(self, transfer: Transfer) -> tuple[int, bytes]:
        header = REQUEST.pack(ord("T"), transfer.address, len(transfer.written), transfer.read_length)
        self._socket.sendall(header + transfer.written)
        status, length = REPLY.unpack(self._exactly(REPLY.size))
        return status, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self._socket.recv(length - len(data))
            if not part:
                raise ConnectionError("the emulated bus has gone")
            data += part
        return data


class PeripheryI2C:
    """python-periphery's I2C: messages with `data` and `read`; write and read next to each other share one transfer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def transfer(self, address: int, messages: Sequence[Any]) -> None:
        """Run messages one after the other, in place. Raises OSError (periphery's I2CError is one)."""
        written = b""
        for message, following in zip(messages, [*messages[1:], None], strict=True):
            if message.read:
                data = _run(self._bus, Transfer(address, written, len(message.data)))
                message.data = list(data) if isinstance(message.data, list) else data
                written = b""
            elif following is not None and following.read:
                written = bytes(message.data)
            else:
                _run(self._bus, Transfer(address, bytes(message.data), 0))


class MachineI2C:
    """MicroPython's machine.I2C; a write without STOP waits for the read that follows."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._pending = b""

    def scan(self) -> list[int]:
        """Addresses that acknowledge."""
        return [address for address in range(0x08, 0x78) if self._bus.transfer(Transfer(address, b"", 0))[0] == ACK]

    def writeto(self, address: int, buffer: bytes, stop: bool = True) -> int:
        """Write; returns how many bytes were acknowledged."""
        if stop:
            _run(self._bus, Transfer(address, bytes(buffer), 0))
        else:
            self._pending = bytes(buffer)
        return len(buffer)

    def readfrom_into(self, address: int, buffer: bytearray) -> None:
        """Fill `buffer`."""
        buffer[:] = self.readfrom(address, len(buffer))

    def readfrom(self, address: int, length: int) -> bytes:
        """Read."""
        written, self._pending = self._pending, b""
        return _run(self._bus, Transfer(address, written, length))

    def readfrom_mem(self, address: int, register: int, length: int) -> bytes:
        """Read registers from `register` on."""
        return _run(self._bus, Transfer(address, bytes([register]), length))

    def writeto_mem(self, address: int, register: int, buffer: bytes) -> None:
        """Write registers from `register` on."""
        _run(self._bus, Transfer(address, bytes([register]) + bytes(buffer), 0))


def _run(bus: Bus, transfer: Transfer) -> bytes:
    status, data = bus.transfer(transfer)
    if status != ACK:
        reason = "nobody answers" if status == ADDRESS_NACK else "data refused"
        raise OSError(ENODEV if status == ADDRESS_NACK else EIO, f"I2C 0x{transfer.address:02X}: {reason}")
    return data
