"""The byte stream between the bench and whoever plays the Swan.

Little-endian, one request in flight: `u8 op, u8 address, u16 written_length, u16 read_length, bytes written`; reply
`u8 status, u16 length, bytes`. Every client knows `T` (transfer: both lengths > 0 is a repeated start, both 0 a
probe) and `X` (bus reset); status 0 ACK, 1 address NACK, 2 data NACK. Further ops belong to the emulated Swan.
"""

import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from judder.emulator.i2c import ACK, I2CBus, Transfer

REQUEST = struct.Struct("<BBHH")
REPLY = struct.Struct("<BH")
INTERRUPTED = 3  # an op of the emulated Swan was carried out, and Ctrl-C has come in on its console
UNKNOWN_OP = 255

Handler = Callable[["Request"], bytes]


@dataclass(frozen=True)
class Request:
    """One request off the stream."""

    op: int
    address: int
    read_length: int
    written: bytes


class Stream:
    """The bench's end, over two file descriptors (a socket's one twice)."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._buffer = b""

    def request(self) -> Request | None:
        """Wait for the next request; None when the other end has gone."""
        if not self._fill(REQUEST.size):
            return None
        op, address, written_length, read_length = REQUEST.unpack_from(self._buffer)
        if not self._fill(REQUEST.size + written_length):
            return None
        written = self._buffer[REQUEST.size : REQUEST.size + written_length]
        self._buffer = self._buffer[REQUEST.size + written_length :]
        return Request(op, address, read_length, written)

    def reply(self, status: int, data: bytes = b"") -> None:
        """Answer the request in flight; a client that has gone is no error here."""
        with suppress(BrokenPipeError):
            os.write(self._write_fd, REPLY.pack(status, len(data)) + data)

    def _fill(self, length: int) -> bool:
        while len(self._buffer) < length:
            data = os.read(self._read_fd, 65536)
            if not data:
                return False
            self._buffer += data
        return True


def carry_out(request: Request, bus: I2CBus, own_ops: Mapping[int, Handler]) -> tuple[int, bytes]:
    """One request on the bus, or by one of the ops of the emulated Swan: the status and bytes to reply."""
    if request.op == ord("T"):
        return bus.transfer(Transfer(request.address, request.written, request.read_length))
    if request.op == ord("X"):
        bus.reset()
        return ACK, b""
    if request.op in own_ops:
        return ACK, own_ops[request.op](request)
    return UNKNOWN_OP, b""
