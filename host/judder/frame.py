"""Bytes to windows and reports: every frame version ever shipped, and the article's stream (docs/wire-format.md).

A body is frames one after the other. A frame says its own length and ends in a CRC-32 over all of it, so a reader
needs three rules: what starts with the magic, has room and a right CRC is a frame; what is not is one FrameError up
to the next place where a whole frame checks out; and a frame that checks out but says something impossible is a
FrameError of its own. Nothing else is ever raised.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from judder import report, rice
from judder.report import Report
from judder.window import SIGNATURE_BYTES, SIGNED, Flags, FrameError, Window, acceleration_m_s2

MAGIC = b"VW\xc1\x7f"
VERSION = 1
HEADER = struct.Struct("<4sBBHIIIHHIIHQHhIBBBBBBH")
HEADER_LENGTH = 58
SCORES = struct.Struct("<ff")
"""Behind the header of a window that a model has scored: anomaly and probability; NaN: none."""
TEXTS = 6
ASKED = 4  # trigger of a window that carries the id of a request
REPORT_MAGIC = b"VR\xc1\x7f"
REPORT_HEADER = struct.Struct("<4sBBHIIIQH")
REPORT_HEADER_LENGTH = 30
ANY_MAGIC = re.compile(b"%b|%b" % (re.escape(MAGIC), re.escape(REPORT_MAGIC)))
CODEC_INT16 = 0
CODEC_RICE = 1
UNKNOWN_LOSS = 0xFFFF
UNKNOWN_SIGMA = 0xFFFFFFFF
IN_NEXT = 0xFFFE  # the loss is part of the next gap's count
NO_TEMPERATURE = -32768
FULL_SCALES_G = (2, 4, 8, 16)
ARTICLE_LIMIT_M_S2 = 1000.0

_T = TypeVar("_T", Window, Report)

_PREFIX = struct.Struct("<4sBBHI")
_CRC = struct.Struct("<I")
_GAP = int(Flags.GAP)
_SHORTEST = 16  # a frame of any version: prefix and CRC
_RESYNC_BYTES = 64  # times the body's length that a search for the next frame may checksum
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def decode(body: bytes) -> list[Window]:
    """All windows of `body`. Raises FrameError at the first frame that is refused."""
    windows = []
    for item in decode_each(body):
        if isinstance(item, FrameError):
            raise item
        windows.append(item)
    return windows


def decode_each(body: bytes) -> Iterator[Window | FrameError]:
    """Windows and refusals in the body's order; a bad frame does not hide its neighbours. Reports are left out."""
    return (item for item in decode_frames(body) if not isinstance(item, Report))


def decode_frames(body: bytes) -> Iterator[Window | Report | FrameError]:
    """As `decode_each`, with the reports."""
    body = bytes(body)
    if not body:
        yield FrameError("empty body: expected frames, see docs/wire-format.md")
        return
    at = 0
    budget = _RESYNC_BYTES * len(body)
    while at < len(body):
        reason = _damage(body, at)
        if reason is None:
            (length,) = struct.unpack_from("<I", body, at + 8)
            try:
                yield _content(body[at : at + length])
            except FrameError as error:
                yield error
            at += length
        else:
            yield FrameError(f"at byte {at}: {reason}")
            at, budget = _next_frame(body, at + 1, budget)


def _damage(body: bytes, at: int) -> str | None:
    """Why no whole frame starts at `at`; None when one does."""
    if not ANY_MAGIC.match(body, at):
        return "no frame starts here (magic is missing)"
    if len(body) - at < _SHORTEST:
        return "the frame is cut off"
    length = _PREFIX.unpack_from(body, at)[4]
    if length < _SHORTEST:
        return f"a frame of {length} bytes is impossible"
    if length > len(body) - at:
        return f"the frame is cut off: {length} bytes announced, {len(body) - at} there"
    if crc32(memoryview(body)[at : at + length - 4]) != _CRC.unpack_from(body, at + length - 4)[0]:
        return "the frame's CRC does not match"
    return None


def _next_frame(body: bytes, at: int, budget: int) -> tuple[int, int]:
    """Where the next whole frame starts (or the body ends), and what is left of the bytes to spend on looking."""
    while budget > 0 and (found := ANY_MAGIC.search(body, at)):
        at = found.start()
        if _damage(body, at) is None:
            return at, budget
        if len(body) - at >= _SHORTEST:
            length = _PREFIX.unpack_from(body, at)[4]
            budget -= length if length <= len(body) - at else 1
        at += 1
    return len(body), budget


def _content(frame: bytes) -> Window | Report:
    """What a whole frame says."""
    if frame[4] != VERSION:
        raise FrameError(f"frame version {frame[4]} is newer than this decoder: update judder", 422)
    if frame.startswith(MAGIC):
        return _named("window", HEADER, frame, _window)
    return _named("report", REPORT_HEADER, frame, _report)


def _named(kind: str, layout: struct.Struct, frame: bytes, read: Callable[[bytes, tuple[int, ...]], _T]) -> _T:
    """Have `frame` read; a refusal says which it is."""
    if len(frame) < layout.size + 4:
        raise FrameError(f"a version 1 {kind} has at least {layout.size + 4} bytes, this one {len(frame)}")
    header = layout.unpack_from(frame)
    boot, sequence = header[5:7]
    try:
        return read(frame, header)
    except FrameError as error:
        reason = f"{kind} {boot:08x}:{sequence}: {error.reason}"
        raise FrameError(reason, error.status, boot, sequence) from None


def _window(frame: bytes, header: tuple[int, ...]) -> Window:
    (_, _, header_length, flags, length, boot, sequence, samples, lost, interval_ns, sigma_ns, odr_hz) = header[:12]
    started_us, uncertainty_ms, temperature, sensitivity_ug, full_scale_g, mode, codec = header[12:19]
    trigger, gap_count, _, text_length = header[19:]
    text_end = header_length + text_length
    gaps_end = text_end + 4 * gap_count
    end = length - 4 - (SIGNATURE_BYTES if flags & SIGNED else 0)
    if header_length < HEADER_LENGTH or gaps_end > end:
        raise FrameError("header, text and gaps do not fit the frame")
    if not (samples and sensitivity_ug and mode <= 2 and full_scale_g in FULL_SCALES_G and started_us <= _LAST_US):
        raise FrameError("a header field has an impossible value")
    scored = header_length >= HEADER_LENGTH + SCORES.size
    texts = _texts(frame[header_length:text_end], TEXTS + (2 if trigger == ASKED else scored))
    device, firmware, model, settings, label, session = texts[:TEXTS]
    scores = SCORES.unpack_from(frame, HEADER_LENGTH) if scored else (math.nan, math.nan)
    anomaly, probability = (one if math.isfinite(one) else None for one in scores)
    gaps = _gaps(frame[text_end:gaps_end], samples)
    if bool(flags & _GAP) != bool(gaps) or _total(gaps) != lost:
        raise FrameError("flags, gaps and samples lost contradict each other")
    counts = _counts(frame, gaps_end, end, samples, codec)
    return Window(
        device=device,
        boot=boot,
        sequence=sequence,
        firmware=firmware,
        model=model,
        settings=settings,
        label=label,
        session=session,
        acceleration=acceleration_m_s2(counts, sensitivity_ug / 1000),
        counts=counts,
        interval_s=interval_ns / 1e9 if interval_ns else None,
        interval_sigma_s=sigma_ns / 1e9 if sigma_ns != UNKNOWN_SIGMA else None,
        odr_hz=odr_hz,
        started_at=_EPOCH + timedelta(microseconds=started_us) if started_us else None,
        started_at_uncertainty_s=uncertainty_ms / 1000 if started_us else None,
        temperature_degc=temperature / 256 if temperature != NO_TEMPERATURE else None,
        full_scale_g=full_scale_g,
        sensitivity_mg=sensitivity_ug / 1000,
        mode=mode,
        samples_lost=lost if lost != UNKNOWN_LOSS else None,
        gaps=tuple((index, one if one < IN_NEXT else None) for index, one in gaps),
        flags=Flags(flags & ~SIGNED),
        trigger=trigger,
        frame=frame,
        anomaly=anomaly,
        class_name=texts[TEXTS] if scored else "",
        request=texts[TEXTS + 1] if trigger == ASKED else "",
        class_probability=probability,
    )


def _report(frame: bytes, header: tuple[int, ...]) -> Report:
    _, _, header_length, flags, length, boot, sequence, written_us, text_length = header
    text_end = header_length + text_length
    end = length - 4 - (SIGNATURE_BYTES if flags & SIGNED else 0)
    if header_length < REPORT_HEADER_LENGTH or text_end > end:
        raise FrameError("header and text do not fit the frame")
    if sequence < report.FIRST_SEQUENCE or written_us > _LAST_US:
        raise FrameError("a header field has an impossible value")
    device, firmware, model, settings, label, session = _texts(frame[header_length:text_end], TEXTS)
    members, typed = report.parse(frame[text_end:end])
    return Report(
        device=device,
        boot=boot,
        sequence=sequence,
        firmware=firmware,
        model=model,
        settings=settings,
        label=label,
        session=session,
        written_at=_EPOCH + timedelta(microseconds=written_us) if written_us else None,
        members=members,
        frame=frame,
        **typed,
    )


@lru_cache(maxsize=1024)  # windows of one device repeat theirs
def _texts(block: bytes, number: int) -> tuple[str, ...]:
    texts: list[str] = []
    at = 0
    while len(texts) < number:
        end = at + 1 + block[at] if at < len(block) else len(block) + 1
        if end > len(block):
            raise FrameError("the text block is cut off")
        try:
            texts.append(block[at + 1 : end].decode())
        except UnicodeDecodeError:
            raise FrameError("the text block is not UTF-8") from None
        at = end
    return tuple(texts)


def _gaps(block: bytes, samples: int) -> list[tuple[int, int]]:
    if not block:
        return []
    gaps = list(struct.iter_unpack("<HH", block))
    indices = [index for index, _ in gaps]
    if indices != sorted(set(indices)) or (indices and not 1 <= indices[0] <= indices[-1] < samples):
        raise FrameError("gaps lie outside the window or out of order")
    return gaps


def _total(gaps: list[tuple[int, int]]) -> int:
    if any(lost == UNKNOWN_LOSS for _, lost in gaps):
        return UNKNOWN_LOSS
    return min(sum(lost for _, lost in gaps if lost != IN_NEXT), IN_NEXT - 1)


def _counts(frame: bytes, at: int, end: int, samples: int, codec: int) -> NDArray[np.int16]:
    if codec == CODEC_INT16:
        if end - at != 6 * samples:
            raise FrameError(f"{samples} samples take {6 * samples} bytes, not {end - at}")
        return np.frombuffer(frame, "<i2", 3 * samples, at).reshape(-1, 3)
    if codec != CODEC_RICE:
        raise FrameError(f"codec {codec} is unknown: update judder", 422)
    return rice.decode(frame, at, end, samples)


def decode_article(body: bytes, interval_s: float | None = None) -> Window:
    """The article's stream: float32 x, y, z in m/s2, little-endian, nothing else.

    It says neither who sent it nor how fast it was sampled; `interval_s` is what you know about the latter. Raises
    FrameError.
    """
    if not body:
        raise FrameError("empty body: expected float32 samples")
    if ANY_MAGIC.match(body):
        raise FrameError("this is a frame, not the article's stream")
    if len(body) % 12:
        raise FrameError(f"{len(body)} bytes are no whole number of samples of 12 bytes (float32 x, y, z)")
    if interval_s is not None and not 0 < interval_s < math.inf:
        raise ValueError(f"interval_s is {interval_s}; it must be above 0")
    acceleration = np.frombuffer(body, "<f4").reshape(-1, 3)
    good = np.abs(acceleration) < ARTICLE_LIMIT_M_S2  # false for NaN
    if not good.all():
        sample, axis = np.argwhere(~good)[0]
        value = acceleration[sample, axis]
        raise FrameError(f"sample {sample} has {'xyz'[axis]} = {value}: no acceleration in m/s2", 422)
    return Window(
        device="",
        boot=0,
        sequence=0,
        firmware="",
        model="",
        settings="",
        label="",
        session="",
        acceleration=acceleration,
        counts=None,
        interval_s=interval_s,
        interval_sigma_s=None,
        odr_hz=None,
        started_at=None,
        started_at_uncertainty_s=None,
        temperature_degc=None,
        full_scale_g=None,
        sensitivity_mg=None,
        mode=None,
        samples_lost=None,
        gaps=(),
        flags=Flags(0),
        trigger=None,
        frame=bytes(body),
    )
