"""The device's code at work, the same on every interpreter: what it makes of drawn input, as plain data.

CPython's results are right, as the other tests here show; a MicroPython has to come to the same. So this file keeps to
what both know.
"""

import struct
from array import array
from binascii import crc32, hexlify

from node import clock, cobs, frame, meanings, rice, ring, settings, window


class Draw:
    """Numbers that are the same everywhere."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 8) % limit


def hexed(data):
    return hexlify(bytes(data)).decode()


def cobs_cases():
    draw = Draw(1)
    results = []
    for length in (0, 1, 253, 254, 255, 508, 509, 1000):
        for zeros in (0, 1, 40):
            data = bytearray(length)
            for i in range(length):
                data[i] = 0 if zeros and draw.below(zeros) == 0 else draw.below(256)
            out = bytearray(cobs.max_length(length))
            end = cobs.encode(memoryview(data), out)
            results.append((end, crc32(bytes(out)[:end])))
    return results


def counts(draw, samples, kind):
    values = array("h", bytes(6 * samples))
    level = 0
    for i in range(3 * samples):
        if kind == "noise":
            values[i] = draw.below(1024) - 512
        elif kind == "walk":
            level = max(-512, min(511, level + draw.below(9) - 4))
            values[i] = level
        elif kind == "extremes":
            values[i] = (-32768, 32767)[draw.below(2)]
        else:
            values[i] = 7
    return values


def rice_cases():
    draw = Draw(2)
    results = []
    for kind in ("constant", "walk", "noise", "extremes"):
        for samples in (4, 5, 64, 300):
            held = counts(draw, samples, kind)
            for axis in range(3):
                out = bytearray(6 * samples)
                end = rice.encode(held, axis, out, 0, len(out))
                results.append((end, hexed(out[: max(end, 0)])[:200]))
    return results


def frame_cases():
    draw = Draw(3)
    results = []
    for number, kind in enumerate(("constant", "walk", "noise", "extremes")):
        filled = window.Window(200)
        filled.counts = counts(draw, 200, kind)
        filled.boot, filled.sequence = 0xFFFFFFF0 + number, number
        filled.interval_ns, filled.odr_hz, filled.sensitivity_ug = 744047, 1344, 4000
        filled.started_at_us, filled.started_at_uncertainty_ms = 1767225600000000 + number, 500
        filled.gaps = [(17, 3), (90, 0xFFFF)][:number]
        identity = frame.text_block("dev:86447504" + "0" * 7, "judder", "", "12345678", "läuft", "s")
        out = bytearray(frame.max_length(200, len(identity)))
        end = frame.encode(filled, identity, out)
        results.append((end, crc32(bytes(out)[:end])))
    return results


def window_cases():
    """Intervals and losses from looks, of which some are late and some samples are missing."""
    draw = Draw(4)
    results = []
    for lost in (0, 0, 5, 40):
        filled = window.Window(1024)
        filled.clear(123456)
        existed = shift = 0
        for i in range(128):
            existed += 8
            if i == 64 and lost:
                filled.gap(existed - 8, True)
                shift = lost
            at_us = 123456 + (existed + shift) * 744 + draw.below(300)
            took_us = 400 + (9000 if draw.below(40) == 0 else draw.below(30))
            filled.look(existed, at_us, at_us + took_us)
        filled.measure()
        results.append(
            (filled.interval_ns, filled.interval_sigma_ns, filled.first_sample_us, filled.gaps, filled.flags)
        )
    return results


def settings_cases():
    text = 'LABEL = "idle" # x\nSAMPLES = 7\nNONSENSE = 1\nODR_HZ = 400\nhello\nRING_BYTES = 16384\nSAMPLES=4096\n'
    values = settings.read(text)
    return [values.complaints, values.hash, values.samples, values.odr_hz, values.ring_bytes, meanings.example()]


def ring_cases():
    held = ring.Ring(1000)
    for number in range(5):
        held.put((1, number), bytes(150 + number))
    results = [held.has_room(249), held.has_room(240), [key for key, _ in held.oldest(400)]]
    results += [held.release((1, 1)), held.release((1, 1)), held.refuse((1, 0)), held.refuse((9, 9)), held.used_bytes]
    results.append([key for key, _ in held.oldest(10000)])
    return results


def calendar_cases():
    calendar = clock.Calendar()
    results = [calendar.utc_us(5)]
    for utc_s, before_us, after_us in ((1767225600, 1000000, 1200000), (1767225601, 1700000, 1800000), (9, 3, 4)):
        calendar.learn(utc_s, before_us, after_us)
        results.append(calendar.utc_us(2000000))
    return results


def numbers():
    """What the wire format needs of an interpreter's own modules."""
    return [crc32(b"123456789"), hexed(struct.pack("<QhIH", 1 << 60, -2, 0xFFFFFFFF, 65535))]


CASES = (cobs_cases, rice_cases, frame_cases, window_cases, settings_cases, ring_cases, calendar_cases, numbers)
