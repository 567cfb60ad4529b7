"""Rice coding of one axis of a window (docs/wire-format.md): the best of difference orders 0 to 3, one parameter."""

import struct
from array import array


def encode(counts, axis, out, offset, limit):
    """Write axis 0, 1 or 2 of `counts` at `offset`; returns the new offset, or -1 if it would pass `limit`."""
    number = len(counts) // 3
    seed, sums = _sums(counts, axis, number)
    order = sums.index(min(sums))
    values = _zigzag(counts, axis, order, seed)
    k, unary_bits = _parameter(values, sums[order])
    seeds = order or 1
    remainders_at = offset + 3 + 2 * seeds
    unary_at = remainders_at + (len(values) * k + 7) // 8
    unary_length = (unary_bits + 7) // 8
    if unary_at + unary_length > limit or unary_length > 0xFFFF:
        return -1
    struct.pack_into("<BH", out, offset, order << 4 | k, unary_length)
    for i in range(seeds):
        struct.pack_into("<h", out, offset + 3 + 2 * i, counts[3 * i + axis] if order else seed)
    _write_remainders(values, k, out, remainders_at)
    _write_unary(values, k, out, unary_at, unary_length)
    return unary_at + unary_length


def _sums(counts, axis, n):
    total = 0
    for i in range(axis, 3 * n, 3):
        total += counts[i]
    seed = total // n
    s0 = s1 = s2 = s3 = 0
    p0 = p1 = p2 = 0
    i = 0
    for at in range(axis, 3 * n, 3):
        c = counts[at]
        d1 = c - p0
        d2 = d1 - p1
        d3 = d2 - p2
        p0 = c
        p1 = d1
        p2 = d2
        z = c - seed
        s0 += z + z if z >= 0 else -z - z - 1
        if i > 2:
            s3 += d3 + d3 if d3 >= 0 else -d3 - d3 - 1
            s2 += d2 + d2 if d2 >= 0 else -d2 - d2 - 1
            s1 += d1 + d1 if d1 >= 0 else -d1 - d1 - 1
        elif i == 2:
            s2 += d2 + d2 if d2 >= 0 else -d2 - d2 - 1
            s1 += d1 + d1 if d1 >= 0 else -d1 - d1 - 1
        elif i == 1:
            s1 += d1 + d1 if d1 >= 0 else -d1 - d1 - 1
        i += 1
    return seed, [s0, s1, s2, s3]


def _zigzag(counts, axis, order, seed):
    number = len(counts) // 3
    values = array("i", bytes(4 * (number - order)))
    p0 = p1 = p2 = 0
    i = -order
    for at in range(axis, 3 * number, 3):
        c = counts[at]
        if order == 0:
            d = c - seed
        else:
            d = c - p0
            p0 = c
            if order > 1:
                d, p1 = d - p1, d
                if order > 2:
                    d, p2 = d - p2, d
        if i >= 0:
            values[i] = d + d if d >= 0 else -d - d - 1
        i += 1
    return values


def _parameter(values, total):
    """The k of least size and the bits of its unary plane. The mean is near the best; neighbours are tried."""
    number = len(values)
    k = 0
    while k < 14 and number << k + 1 <= total:
        k += 1
    k = max(0, k - 1)
    bits = _unary_bits(values, k)
    while k < 15:
        more = _unary_bits(values, k + 1)
        if more + number >= bits:
            break
        k += 1
        bits = more
    return k, bits


def _unary_bits(values, k):
    bits = len(values)
    for value in values:
        bits += value >> k
    return bits


def _write_remainders(values, k, out, at):
    if not k:
        return
    mask = (1 << k) - 1
    held = pending = 0
    for value in values:
        pending = pending << k | value & mask
        held += k
        while held >= 8:
            held -= 8
            out[at] = pending >> held & 0xFF
            pending &= (1 << held) - 1
            at += 1
    if held:
        out[at] = pending << 8 - held & 0xFF


def _write_unary(values, k, out, at, length):
    for i in range(at, at + length):
        out[i] = 0
    bit = at << 3
    for value in values:
        bit += value >> k
        out[bit >> 3] |= 0x80 >> (bit & 7)
        bit += 1
