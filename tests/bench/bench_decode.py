"""Decoding: the article's windows against a loop over struct.iter_unpack, and our frames."""

import math
import struct
import timeit

from tests.frames import encode, motor, window

from judder import decode, decode_article

GOAL_US = 60
REPEATS = 7


def by_loop(body):
    """What a server written by hand does: one sample after the other, checked."""
    samples = []
    for x, y, z in struct.iter_unpack("<3f", body):
        if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z)):
            raise ValueError(len(samples))
        samples.append((x, y, z))
    return samples


def microseconds(call, body):
    """Best of several, each long enough to time: the least disturbed one."""
    number = max(1, round(0.1 / timeit.timeit(lambda: call(body), number=1)))
    return min(timeit.repeat(lambda: call(body), number=number, repeat=REPEATS)) / number * 1e6


def main():
    for samples in (761, 1024, 10833):
        body = struct.pack(f"<{3 * samples}f", *(value * 0.0392266 for value in motor(samples)))
        loop_us, ours_us = microseconds(by_loop, body), microseconds(decode_article, body)
        print(
            f"article, {samples:5} samples: loop {loop_us:7.1f} us, decode_article {ours_us:5.1f} us: "
            f"{loop_us / ours_us:.0f} times faster"
        )
    texts = ["dev:864475040000001", "judder 0.1.0", "", "5b1f00c2", "demo", "emulated"]
    article_us = microseconds(by_loop, struct.pack("<3072f", *(value * 0.0392266 for value in motor(1024))))
    for name, counts in (("motor", motor(1024)), ("at rest", motor(1024, amplitude=0.0))):
        frame = encode(window(counts, interval_ns=744048), texts)
        ours_us = microseconds(decode, frame)
        size = len(frame) / 1024
        print(
            f"frame of 1024 samples, {name}: {size:.2f} bytes a sample, decode {ours_us:.1f} us (goal {GOAL_US}), "
            f"{article_us / ours_us:.1f} times faster than the loop over the article's"
        )
