"""Decode Rice coding of a window's three axes (docs/wire-format.md, codec 1) without a loop over its samples.

Quotients stand in a unary plane of their own and remainders in another, so both are found by whole-array operations.
"""

import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from judder.window import FrameError

Int64Array = NDArray[np.int64]
Seed = tuple[int, tuple[int, ...]]  # difference order, and the samples (or, of order 0, the offset) to start from

MAX_ORDER = 3
LONGEST_RESIDUAL = 1 << 20  # zigzag of a third difference of int16 stays below
_SEEDS = ("<h", "<h", "<hh", "<hhh")  # by order; order 0 has an offset instead


def decode(frame: bytes, at: int, end: int, samples: int) -> NDArray[np.int16]:
    """Counts, shape (samples, 3), of the blocks that fill `frame[at:end]`. Raises FrameError."""
    values = np.zeros((samples, 3), np.int64)
    seeds = []
    for axis in range(3):
        at, seed = _read_axis(frame, at, end, values[:, axis])
        seeds.append(seed)
    if at != end:
        raise FrameError("bytes are left over behind the samples")
    if values.max() > LONGEST_RESIDUAL:
        raise FrameError("a sample leaves the range of 16 bits")
    signs = values & 1
    values >>= 1
    values ^= np.negative(signs, out=signs)
    _integrate(values, seeds)
    if values.min() < -32768 or values.max() > 32767:
        raise FrameError("a sample leaves the range of 16 bits")
    return values.astype(np.int16)


def _read_axis(frame: bytes, at: int, end: int, values: Int64Array) -> tuple[int, Seed]:
    """Put the zigzag residuals into `values`, from index `order` on; returns where the axis ends, order and seeds."""
    if at + 3 > end:
        raise FrameError("the samples are cut off")
    order, k = frame[at] >> 4, frame[at] & 15
    unary_length = frame[at + 1] | frame[at + 2] << 8
    number = values.size - order
    if order > MAX_ORDER or number < 1:
        raise FrameError(f"difference order {order} is impossible for {values.size} samples")
    remainders_at = at + 3 + 2 * (order or 1)
    unary_at = remainders_at + (number * k + 7) // 8
    axis_end = unary_at + unary_length
    if axis_end > end:
        raise FrameError("the samples are cut off")
    residuals = _quotients(frame, unary_at, unary_length, number)
    if k:
        residuals <<= k
        residuals |= _remainders(frame, remainders_at, unary_at, number, k)
    values[order:] = residuals
    return axis_end, (order, struct.unpack_from(_SEEDS[order], frame, at + 3))


def _quotients(frame: bytes, at: int, length: int, number: int) -> Int64Array:
    ones = np.unpackbits(np.frombuffer(frame, np.uint8, length, at)).view(bool).nonzero()[0]
    if ones.size != number or int(ones[-1]) >> 3 != length - 1:
        raise FrameError("the unary plane does not hold one value a sample")
    quotients = np.empty_like(ones)
    quotients[0] = ones[0] + 1
    np.subtract(ones[1:], ones[:-1], out=quotients[1:])
    quotients -= 1
    return quotients


def _remainders(frame: bytes, at: int, end: int, number: int, k: int) -> NDArray[np.uint32]:
    padding = -number * k & 7
    if padding and frame[end - 1] & (1 << padding) - 1:
        raise FrameError("padding of the remainder plane is not zero")
    byte, shift = _places(number, k)
    # four bytes from each byte on; the frame's CRC stands behind the last plane, so that no read passes its end
    words: NDArray[np.uint32] = np.ndarray((end - at,), ">u4", frame, at, (1,))
    result = words.take(byte) >> shift
    result &= (1 << k) - 1
    return result


@lru_cache(maxsize=64)
def _places(number: int, k: int) -> tuple[Int64Array, NDArray[np.uint32]]:
    """Of each remainder, the byte it starts in and how far to shift the 32 bits from there to the right."""
    bit = np.arange(number) * k
    return bit >> 3, (32 - k - (bit & 7)).astype(np.uint32)


def _integrate(values: Int64Array, seeds: list[Seed]) -> None:
    """Undo each axis's differences in place; its first `order` values are places for the seeds."""
    for depth in range(max(order for order, _ in seeds) - 1, -1, -1):
        axes = [axis for axis, (order, _) in enumerate(seeds) if order > depth]
        for axis in axes:
            values[depth, axis] = _difference(seeds[axis][1], depth)
        if len(axes) == 3:  # together they take no longer than one
            np.add.accumulate(values[depth:], axis=0, out=values[depth:])
        else:
            for axis in axes:
                np.add.accumulate(values[depth:, axis], out=values[depth:, axis])
    for axis, (order, seed) in enumerate(seeds):
        if order == 0:
            values[:, axis] += seed[0]


def _difference(seed: tuple[int, ...], depth: int) -> int:
    """The difference of order `depth` that ends at seed number `depth`."""
    if depth == 2:
        return seed[2] - 2 * seed[1] + seed[0]
    return seed[1] - seed[0] if depth else seed[0]
