"""A frame: one window as bytes (docs/wire-format.md, version 1)."""

import struct
from binascii import crc32

from node import rice

MAGIC = b"VW\xc1\x7f"
VERSION = 1
HEADER = "<4sBBHIIIHHIIHQHhIBBBBBBH"
HEADER_LENGTH = 58
CODEC_INT16 = 0
CODEC_RICE = 1
_FEW = 4


def text_block(device, firmware, model, settings, label, session):
    block = b""
    for text in (device, firmware, model, settings, label, session):
        data = text.encode()
        if len(data) > 255:
            raise ValueError("text of %d bytes; at most 255" % len(data))
        block += bytes((len(data),)) + data
    return block


def max_length(samples, text_length):
    return HEADER_LENGTH + text_length + 4 * 255 + 6 * samples + 4


def encode(window, identity, out):
    samples = window.samples
    at = HEADER_LENGTH
    out[at : at + len(identity)] = identity
    at += len(identity)
    for index, lost in window.gaps:
        struct.pack_into("<HH", out, at, index, lost)
        at += 4
    codec, end = _payload(window.counts, samples, out, at)
    struct.pack_into(
        HEADER,
        out,
        0,
        MAGIC,
        VERSION,
        HEADER_LENGTH,
        window.flags,
        end + 4,
        window.boot,
        window.sequence,
        samples,
        window.samples_lost,
        window.interval_ns,
        window.interval_sigma_ns,
        window.odr_hz,
        window.started_at_us,
        window.started_at_uncertainty_ms,
        window.temperature,
        window.sensitivity_ug,
        window.full_scale_g,
        window.mode,
        codec,
        window.trigger,
        len(window.gaps),
        0,
        len(identity),
    )
    struct.pack_into("<I", out, end, crc32(memoryview(out)[:end]) & 0xFFFFFFFF)
    return end + 4


def _payload(counts, samples, out, at):
    raw = at + 6 * samples
    end = at
    if samples >= _FEW:
        for axis in range(3):
            end = rice.encode(counts, axis, out, end, raw)
            if end < 0:
                break
        if 0 < end < raw:
            return CODEC_RICE, end
    out[at:raw] = bytes(counts)
    return CODEC_INT16, raw
