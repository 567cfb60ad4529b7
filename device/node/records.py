"""Records in a file on flash that outlive a power cut: a header, a frame, and what fills the last sector.

Header, little-endian: magic (kept, or released), generation, boot, sequence, length of the frame, CRC-32 of all but
magic and itself. The file is as large as it will ever be and stays open. With that, and in whole sectors, the file
system changes the file's own sectors only, and neither directory nor table; flushing or closing the file would.

The flash is erased and programmed in pages of 4 KB, and a power cut may spoil all of the page that is being written
(circuitpython:ports/stm/supervisor/internal_flash.c). Where in a page the file begins we cannot know. So the guard, a
page less a sector, has to lie between what is written and what must not be hurt.
"""

import struct
from binascii import crc32

SECTOR_BYTES = 512
GUARD_BYTES = 4096 - SECTOR_BYTES

_HEADER = "<4s5I"
_HEADER_BYTES = 24
_CRC_AT = 20
_KEPT = b"JdR1"
_RELEASED = b"JdR0"
_FIRST_BYTES = SECTOR_BYTES - _HEADER_BYTES  # of the frame, in the header's sector


def record_bytes(length):
    return (_HEADER_BYTES + length + SECTOR_BYTES - 1) // SECTOR_BYTES * SECTOR_BYTES


class NoFile:
    """Has room for nothing."""

    def seek(self, offset, whence=0):
        return 0

    def readinto(self, buffer):
        return 0

    def write(self, data):
        return 0


class Records:
    """Records lie between the offsets `start` and `end`, on sectors."""

    start = GUARD_BYTES

    def __init__(self, file):
        self.end = file.seek(0, 2) // SECTOR_BYTES * SECTOR_BYTES - GUARD_BYTES
        self._file = file
        self._sector = bytearray(SECTOR_BYTES)
        self._generation = 0

    def write(self, offset, key, frame):
        sector = self._sector
        data = memoryview(frame)
        length = len(data)
        struct.pack_into(_HEADER, sector, 0, _KEPT, self._generation, key[0], key[1], length, 0)
        struct.pack_into("<I", sector, _CRC_AT, crc32(data, self._header_crc()))
        self._generation = self._generation + 1 & 0xFFFFFFFF
        first = min(length, _FIRST_BYTES)
        sector[_HEADER_BYTES : _HEADER_BYTES + first] = data[:first]
        self._file.seek(offset)
        self._file.write(sector)
        last = first + (length - first) // SECTOR_BYTES * SECTOR_BYTES
        if last > first:
            self._file.write(data[first:last])
        if length > last:
            sector[: length - last] = data[last:]
            self._file.write(sector)

    def read(self, offset, frame):
        """Fill `frame` from the record there, which is of that length; False if it is spoilt."""
        header = self._load(offset)
        if header is None or header[4] != len(frame):
            return False
        crc = self._header_crc()
        self._file.seek(offset + _HEADER_BYTES)
        self._file.readinto(frame)
        return crc32(frame, crc) == header[5]

    def mark_released(self, offset):
        if self._load(offset) is not None:
            self._sector[:4] = _RELEASED
            self._file.seek(offset)
            self._file.write(self._sector)

    def scan(self):
        """What is whole, in the order it was written: (generation, whether kept, offset, key, length) of each record.

        Records written from now on are younger than these.
        """
        found = []
        offset = 0
        while offset < self.end:
            header = self._load(offset)
            if header is None or offset + record_bytes(header[4]) > self.end or not self._is_whole(header):
                offset += SECTOR_BYTES
                continue
            found.append((header[1], header[0] == _KEPT, offset, (header[2], header[3]), header[4]))
            offset += record_bytes(header[4])
        found.sort()
        if found:
            self._generation = found[-1][0] + 1 & 0xFFFFFFFF
        return found

    def _load(self, offset):
        """The header of the record there, or None. Leaves its sector in the buffer."""
        self._file.seek(offset)
        if self._file.readinto(self._sector) != SECTOR_BYTES:
            return None
        header = struct.unpack_from(_HEADER, self._sector, 0)
        return header if header[0] in (_KEPT, _RELEASED) else None

    def _is_whole(self, header):
        """Right after `_load`."""
        view = memoryview(self._sector)
        part = min(header[4], _FIRST_BYTES)
        crc = crc32(view[_HEADER_BYTES : _HEADER_BYTES + part], self._header_crc())
        left = header[4] - part
        while left:
            self._file.readinto(self._sector)
            part = min(left, SECTOR_BYTES)
            crc = crc32(view[:part], crc)
            left -= part
        return crc == header[5]

    def _header_crc(self):
        return crc32(memoryview(self._sector)[4:_CRC_AT])
