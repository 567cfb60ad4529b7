"""Rice coding of one axis of a window (docs/wire-format.md): the best of difference orders 0 to 3, one parameter."""

import struct
from array import array

from node import loops

_sums = array("i", bytes(4 * 4))
_values = array("i")  # room for the differences of one axis; grows to the longest window, then stays


def reserve(samples):
    """Make room for windows of so many samples."""
    global _values
    if len(_values) < samples:
        _values = array("i", bytes(4 * samples))


def encode(counts, axis, out, offset, limit):
    """Write axis 0, 1 or 2 of `counts` at `offset`; returns the new offset, or -1 if it would pass `limit`."""
    samples = len(counts) // 3
    reserve(samples)
    seed = loops.axis_sum(counts, axis, samples) // samples
    loops.difference_sums(counts, axis, samples, seed, _sums)
    order = _least(_sums)
    number = samples - order
    loops.zigzag(counts, axis, samples, order, seed, _values)
    k, unary_bits = _parameter(_values, number, _sums[order])
    seeds = order or 1
    remainders_at = offset + 3 + 2 * seeds
    unary_at = remainders_at + (number * k + 7) // 8
    unary_length = (unary_bits + 7) // 8
    if unary_at + unary_length > limit or unary_length > 0xFFFF:
        return -1
    struct.pack_into("<BH", out, offset, order << 4 | k, unary_length)
    for i in range(seeds):
        struct.pack_into("<h", out, offset + 3 + 2 * i, counts[3 * i + axis] if order else seed)
    if k:
        loops.pack_remainders(_values, number, k, out, remainders_at)
    loops.pack_unary(_values, number, k, out, unary_at, unary_length)
    return unary_at + unary_length


def _least(sums):
    """The lowest order whose sum is the least."""
    order = 0
    for i in range(1, 4):
        if sums[i] < sums[order]:
            order = i
    return order


def _parameter(values, number, total):
    """The k of least size and the bits of its unary plane. The mean is near the best; neighbours are tried."""
    k = 0
    while k < 14 and number << k + 1 <= total:
        k += 1
    k = max(0, k - 1)
    bits = number + loops.shifted_sum(values, number, k)
    while k < 15:
        more = number + loops.shifted_sum(values, number, k + 1)
        if more + number >= bits:
            break
        k += 1
        bits = more
    return k, bits
