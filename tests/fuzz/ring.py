"""Any content of the ring's file: laid out as records with right checksums, as spoilt ones, or as it comes."""

import io
import struct
from binascii import crc32
from collections import Counter

from node.records import SECTOR_BYTES, record_bytes
from node.ring import Ring

RAM_BYTES = 16384
EVERYTHING = 1 << 30
KEPT, RELEASED, SPOILT, SECTOR_OF_ONES = range(4)
AS_IT_COMES = 1
DROPS_OLDEST = 2

_LAYOUT = struct.Struct("<BBBBBBH")  # sector, kind, generation, boot, sequence, filled with, length
_SIZE_STEP = 256


def laid(size, options, *records):
    return bytes((size, options)) + b"".join(_LAYOUT.pack(*record) for record in records)


SEEDS = [
    laid(200, 0, (7, KEPT, 0, 1, 1, 65, 2458), (12, RELEASED, 1, 1, 2, 66, 2458), (20, SPOILT, 2, 1, 3, 67, 900)),
    laid(80, DROPS_OLDEST, (8, KEPT, 5, 1, 1, 65, 4000), (16, KEPT, 4, 2, 1, 65, 4000), (0, KEPT, 0, 0, 0, 0, 0)),
    laid(80, 0, *((sector, KEPT, sector, 1, sector, 65, 100) for sector in range(7, 33))),
    laid(255, 0, (7, KEPT, 255, 1, 1, 65, 488), (8, KEPT, 254, 1, 2, 65, 489)),
    bytes((40, AS_IT_COMES)) + b"JdR1" + bytes(20) + bytes(488),
]
WORDS = [b"JdR1", b"JdR0"]


class File(io.BytesIO):
    """Of a size that stays, written in whole sectors."""

    def write(self, data):
        assert not self.tell() % SECTOR_BYTES
        assert not len(data) % SECTOR_BYTES
        assert self.tell() + len(data) <= len(self.getvalue())
        return super().write(data)


def run(data):
    size, options = data[:2].ljust(2, b"\0")
    image = image_of(data[2:], size * _SIZE_STEP, options)
    file, drops_oldest = File(image), bool(options & DROPS_OLDEST)

    ring = booted(file, drops_oldest)
    assert file.getvalue() == image, "nothing is written before it is asked for"
    model = contents(ring)
    assert len(model) == len(ring)

    boot = max((key[0] for key, _ in model), default=0) & 0xFFFF
    for number in range(3):
        key, frame = (boot + 0x10000, number), bytes([number]) * (40 + 40 * len(data) * number % 7000)
        if ring.has_room(len(frame)):
            ring.put(key, frame)
            model.append((key, frame))
    ring.spill()
    check(ring, model)
    survives(ring, file)

    for number, (key, _) in enumerate(list(model)):
        at = next(at for at, one in enumerate(model) if one[0] == key)
        if number % 3 == 0:
            assert ring.release(key)
            del model[at]
        elif number % 3 == 1:
            assert ring.refuse(key)
            model.append(model.pop(at))
    assert not ring.release((1 << 40, 0))
    check(ring, model)
    ring.spill()
    survives(ring, file)


def booted(file, drops_oldest=False):
    told = []
    ring = Ring(RAM_BYTES, file, None, drops_oldest, lambda key, reason: told.append(reason))
    ring.told = told
    ring.recover()
    disjoint(ring, file)
    return ring


def contents(ring):
    waiting = [(key, bytes(frame)) for key, frame in ring.oldest(EVERYTHING)]
    assert "damaged" not in ring.told
    return waiting


def check(ring, model):
    """All that waits is there, unhurt and in order; all that is not was told."""
    waiting = contents(ring)
    if ring.told:
        assert len(model) == len(waiting) + len(ring.told)
        assert Counter(waiting) <= Counter(model)
        model[:] = waiting
        ring.told.clear()
    assert waiting == model


def survives(ring, file):
    """What waits in the file does so after a reset."""
    disjoint(ring, file)
    in_file = Counter(one.key for one in ring._waiting if one.data is None)
    held = [one for one in contents(ring) if one[0] in in_file]
    assert Counter(held) - Counter(contents(booted(file))) == Counter(), "in RAM only"


def disjoint(ring, file):
    end = 0
    for one in sorted((one for one in ring._waiting if one.data is None), key=lambda one: one.offset):
        assert end <= one.offset
        end = one.end()
    assert end <= len(file.getvalue())


def image_of(data, size, options):
    if options & AS_IT_COMES:
        return data[:size].ljust(size, b"\xff")
    image = bytearray(b"\xff" * size)
    for at in range(0, len(data) - _LAYOUT.size + 1, _LAYOUT.size):
        sector, kind, generation, boot, sequence, filling, length = _LAYOUT.unpack_from(data, at)
        start = sector * SECTOR_BYTES
        if kind % 4 == SECTOR_OF_ONES:
            record = b"\xff" * SECTOR_BYTES
        else:
            generation += (2**32 - 256) * (generation > 127)
            record = record_of(kind % 4, generation, boot, sequence, bytes([filling]) * length)
        if start + len(record) <= size:
            image[start : start + len(record)] = record
    return bytes(image)


def record_of(kind, generation, boot, sequence, frame):
    """As node/records.py says, written once more."""
    header = struct.pack("<4I", generation, boot, sequence, len(frame))
    crc = crc32(header + frame) ^ (kind == SPOILT)
    magic = b"JdR0" if kind == RELEASED else b"JdR1"
    return (magic + header + struct.pack("<I", crc) + frame).ljust(record_bytes(len(frame)), b"\0")
