"""A frame: one window as bytes (docs/wire-format.md, version 1)."""

import struct
from binascii import crc32

from node import rice

MAGIC = b"VW\xc1\x7f"
VERSION = 1
HEADER = "<4sBBHIIIHHIIHQHhIBBBBBBH"
HEADER_LENGTH = 58
SCORES = "<ff"  # behind the header of a window that a model has scored
SCORES_LENGTH = 8
CLASS_BYTES = 33  # of the text block, at most: a length and the name
REQUEST_BYTES = 33  # as many for the id of a request
NUMBERED_AT = 16  # where the sequence stands
CODEC_INT16 = 0
CODEC_RICE = 1
_FEW = 4


def text_block(device, firmware, model, settings, label, session):
    block = b""
    for text in (device, firmware, model, settings, label, session):
        block += _text(text)
    return block


def _text(text):
    data = text.encode()
    if len(data) > 255:
        raise ValueError("text of %d bytes; at most 255" % len(data))
    return bytes((len(data),)) + data


def max_length(samples, text_length):
    return HEADER_LENGTH + SCORES_LENGTH + text_length + REQUEST_BYTES + 4 * 255 + 6 * samples + 4


def encode(window, identity, out):
    """Write the frame into `out`; returns its length. `identity` is a text_block."""
    samples = window.samples
    scores = window.scores
    header_length = HEADER_LENGTH
    if scores is not None:
        struct.pack_into(SCORES, out, header_length, _known(scores.anomaly), _known(scores.probability))
        header_length += SCORES_LENGTH
    at = header_length
    more = b"" if scores is None else _text(scores.class_name)
    if window.request:
        more = (more or _text("")) + _text(window.request)
    for text in (identity, more):
        out[at : at + len(text)] = text
        at += len(text)
    text_length = at - header_length
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
        header_length,
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
        text_length,
    )
    _close(out, end)
    return end + 4


def number(frame, sequence):
    """Give a frame that was kept for later its place among those that are sent."""
    struct.pack_into("<I", frame, NUMBERED_AT, sequence)
    _close(frame, len(frame) - 4)


def _close(out, end):
    struct.pack_into("<I", out, end, crc32(memoryview(out)[:end]) & 0xFFFFFFFF)


def _known(value):
    return float("nan") if value is None else value


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
