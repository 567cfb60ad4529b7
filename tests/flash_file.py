"""A file on the flash model without a file system: a run of sectors, from any sector of a page on."""

from judder.emulator.flash import BLOCK_BYTES, Flash


class FlashFile:
    """What the ring needs of an open file."""

    def __init__(self, flash: Flash, first_block: int, size: int):
        self._flash = flash
        self._first_block = first_block
        self._size = size
        self._at = 0

    def seek(self, offset, whence=0):
        self._at = offset + (self._size if whence == 2 else 0)
        return self._at

    def readinto(self, buffer):
        length = min(len(buffer), self._size - self._at)
        first = self._at // BLOCK_BYTES
        for block in range(first, -(-(self._at + length) // BLOCK_BYTES)):
            data = self._flash.read(self._first_block + block)
            start = block * BLOCK_BYTES - self._at
            part = data[max(0, -start) : length - start]
            buffer[max(0, start) : max(0, start) + len(part)] = part
        self._at += length
        return length

    def write(self, data):
        block, rest = divmod(self._at, BLOCK_BYTES)
        assert not rest, "part of a sector goes through the file system's own buffer"
        assert not len(data) % BLOCK_BYTES
        assert self._at + len(data) <= self._size, "the file would grow"
        for start in range(0, len(data), BLOCK_BYTES):
            self._flash.write(
                self._first_block + block + start // BLOCK_BYTES, bytes(data[start : start + BLOCK_BYTES])
            )
        self._at += len(data)
        return len(data)
