"""A file on the emulated flash without a file system: a run of blocks, changed in place and in whole sectors.

`blocks` is what MicroPython's own file systems ask of a device: readblocks, writeblocks. Where there is one, a real
FAT does this instead. What else FAT would do for a file is not modelled, so the rest is refused.
"""

SECTOR_BYTES = 512


class FlashFile:
    """`size` bytes from `first_block` on, opened with "r+b"."""

    def __init__(self, blocks, first_block, size):
        self._blocks = blocks
        self._first_block = first_block
        self._size = size
        self._sector = bytearray(SECTOR_BYTES)
        self._at = 0

    def seek(self, offset, whence=0):
        self._at = offset + (self._size if whence == 2 else 0)
        return self._at

    def readinto(self, buffer):
        view = memoryview(buffer)
        length = max(0, min(len(view), self._size - self._at))
        done = 0
        while done < length:
            block, skip = divmod(self._at, SECTOR_BYTES)
            part = min(SECTOR_BYTES - skip, length - done)
            self._blocks.readblocks(self._first_block + block, self._sector)
            view[done : done + part] = memoryview(self._sector)[skip : skip + part]
            self._at += part
            done += part
        return length

    def write(self, data):
        if self._at % SECTOR_BYTES or len(data) % SECTOR_BYTES:
            raise ValueError("part of a sector goes through the file system's own buffer")
        if self._at + len(data) > self._size:
            raise ValueError("the file would grow, which changes directory and table")
        view = memoryview(data)
        for start in range(0, len(data), SECTOR_BYTES):
            self._sector[:] = view[start : start + SECTOR_BYTES]
            self._blocks.writeblocks(self._first_block + self._at // SECTOR_BYTES, self._sector)
            self._at += SECTOR_BYTES
        return len(data)

    def flush(self):
        raise ValueError("to flush or close the file changes the directory; os.sync writes what is cached")

    close = flush
