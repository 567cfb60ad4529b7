"""The Notecard's binary store: filled by card.binary.put and a COBS stream, emptied by delete.

COBS (Cheshire and Baker, 1999) with every byte XOR 0x0A, so that a newline ends the stream (note-c:n_cobs.c,
note-python:notecard/cobs.py). What is wrong with a stream shows at the next card.binary, not at once.
"""

import hashlib
from collections.abc import Callable

from judder.emulator.notecard.line import CardError, Fields

MAXIMUM = 130_554  # bytes; notecard-schema:card.binary.rsp and note-c PR 181

_XOR = bytes(value ^ 0x0A for value in range(256))


def cobs_length(data: bytes | bytearray) -> int:
    """Length of `data` encoded, without the newline."""
    if len(data) < 254:
        return len(data) + 1
    return len(data) + 1 + sum(len(run) // 254 for run in data.split(b"\0"))


def cobs_encode(data: bytes) -> bytes:
    """COBS with XOR 0x0A, without the newline; a full last block is followed by an empty one, as note-c does."""
    encoded = bytearray()
    for run in data.split(b"\0"):
        for start in range(0, len(run) - 253, 254):
            encoded += b"\xff" + run[start : start + 254]
        rest = run[len(run) // 254 * 254 :]
        encoded.append(len(rest) + 1)
        encoded += rest
    return bytes(encoded.translate(_XOR))


def cobs_decode(encoded: bytes) -> bytes:
    """Raises ValueError when the blocks do not add up."""
    stream = encoded.translate(_XOR)
    parts = []
    at = 0
    while at < len(stream):
        code = stream[at]
        end = at + code
        if code == 0 or end > len(stream):
            raise ValueError(f"block of {code} at byte {at} of {len(stream)}")
        parts.append(stream[at + 1 : end])
        if code < 0xFF and end < len(stream):
            parts.append(b"\0")
        at = end
    return b"".join(parts)


class BinaryStore:
    """Appended to in whole streams. `distort` is what happens to a stream's bytes on the way (faults)."""

    def __init__(self, maximum: int = MAXIMUM, distort: Callable[[bytes], bytes] = bytes) -> None:
        self.maximum = maximum
        self.data = b""
        self.error = ""
        self.streams = 0
        self.streams_refused = 0
        self._distort = distort
        self.receiving = False  # whether the next bytes belong to a stream
        self._stream = bytearray()
        self._announced = 0
        self._md5 = ""

    def clear(self) -> None:
        """Delete everything, also what was wrong."""
        self.data = b""
        self.error = ""
        self.receiving = False

    def fill(self, data: bytes) -> None:
        """Hold what the card itself puts here."""
        self.clear()
        self.data = data

    def expect(self, announced: int, offset: int, md5: str) -> None:
        """Get ready for a stream of `announced` encoded bytes. Raises CardError when it cannot be appended."""
        if offset not in (0, len(self.data)):
            raise CardError(f"offset: {offset} is not where the {len(self.data)} bytes held end")
        room = self.maximum - offset
        if not 1 <= announced <= room + room // 254 + 1:
            raise CardError(f"cobs: {announced} does not fit, room is for {room} bytes before encoding")
        if not offset:
            self.clear()
        self.error = ""
        self.receiving = True
        self._stream.clear()
        self._announced = announced
        self._md5 = md5.lower()

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the stream; what follows its newline comes back."""
        end = data.find(b"\n")
        if len(self._stream) <= self._announced:  # more is an error already and need not be kept
            self._stream += data if end < 0 else data[:end]
        if end < 0:
            return b""
        self.end()
        return data[end + 1 :]

    def end(self) -> None:
        """The stream is over, by its newline or by silence."""
        stream = self._distort(bytes(self._stream))
        self.receiving = False
        self.streams += 1
        try:
            self.data += self._decode(stream)
        except ValueError as error:
            self.streams_refused += 1
            self.error = f"{error} {{bad-bin}}{{io}}"

    def _decode(self, stream: bytes) -> bytes:
        missing = self._announced - len(stream)
        if missing > 0:
            raise ValueError(f"binary receive prematurely terminated ({missing} more bytes expected)")
        if missing < 0:
            raise ValueError(f"binary receive overrun ({self._announced} bytes expected)")
        decoded = cobs_decode(stream)
        if len(self.data) + len(decoded) > self.maximum:
            raise ValueError(f"binary receive exceeds {self.maximum} bytes")
        if self._md5 and md5(decoded) != self._md5:
            raise ValueError("binary receive does not match status")
        return decoded

    def checked(self) -> bytes:
        """What is held. Raises CardError when the last stream was bad."""
        if self.error:
            raise CardError(self.error)
        return self.data

    def status(self) -> Fields:
        """What card.binary tells about the data, when there is any."""
        if not self.data:
            return {}
        return {"status": md5(self.data), "length": len(self.data), "cobs": cobs_length(self.data)}


def md5(data: bytes) -> str:
    """The Notecard's checksum of binary data, in hex."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
