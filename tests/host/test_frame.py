"""The decoder: golden frames, a reader of the byte table that shares no code with it, and every way to spoil a body."""

import math
import operator
import random
import re
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.frames import TEXTS, encode, golden, motor, window

from judder import Flags, FrameError, Window, decode, decode_article, decode_each
from judder.frame import HEADER, HEADER_LENGTH, MAGIC, REPORT_HEADER, REPORT_HEADER_LENGTH

GOLDEN = golden()
NEIGHBOUR = encode(window(motor(8), boot=9, sequence=1))


def frames(body):
    """Decode, and insist that what comes back is windows or FrameErrors with a one-line reason and a 4xx."""
    items = list(decode_each(body))
    for item in items:
        assert isinstance(item, Window | FrameError)
        if isinstance(item, FrameError):
            assert 400 <= item.status < 500
            assert item.reason
            assert "\n" not in item.reason
    return items


def keys(body):
    return [(item.boot, item.sequence) for item in frames(body) if isinstance(item, Window)]


def resealed(frame):
    return frame[:-4] + struct.pack("<I", crc32(frame[:-4]))


HEADER_FIELDS = [
    *("magic", "version", "header_length", "flags", "frame_length", "boot", "sequence", "samples", "samples_lost"),
    *("interval_ns", "interval_sigma_ns", "odr_hz", "started_at_us", "uncertainty_ms", "temperature"),
    *("sensitivity_ug", "full_scale_g", "mode", "codec", "trigger", "gaps", "reserved", "text_length"),
]


def altered(frame, **fields):
    """`frame` with header fields changed and a right CRC."""
    values = dict(zip(HEADER_FIELDS, HEADER.unpack_from(frame), strict=True))
    assert fields.keys() <= values.keys()
    return resealed(HEADER.pack(*(values | fields).values()) + frame[HEADER_LENGTH:])


# --- what a frame says ------------------------------------------------------------------------------------------------


def bits(data):
    return [byte >> 7 - i & 1 for byte in data for i in range(8)]


PREDICTORS = {1: [1], 2: [2, -1], 3: [3, -3, 1]}  # of the newest samples, newest first


def read_by_the_table(frame):
    """Codec and counts, read bit by bit from docs/wire-format.md."""
    (samples,) = struct.unpack_from("<H", frame, 20)
    codec, gaps, (text_length,) = frame[52], frame[54], struct.unpack_from("<H", frame, 56)
    at = frame[5] + text_length + 4 * gaps
    if codec == 0:
        return codec, list(struct.unpack_from(f"<{3 * samples}h", frame, at))
    axes = []
    for _ in range(3):
        order, k = divmod(frame[at], 16)
        (unary_length,) = struct.unpack_from("<H", frame, at + 1)
        seeds = list(struct.unpack_from(f"<{max(order, 1)}h", frame, at + 3))
        at += 3 + 2 * len(seeds)
        number = samples - order
        plane = bits(frame[at : at + math.ceil(number * k / 8)])
        at += math.ceil(number * k / 8)
        unary = iter(bits(frame[at : at + unary_length]))
        at += unary_length
        values = seeds[:order]
        for i in range(number):
            quotient = 0
            while next(unary) == 0:
                quotient += 1
            zigzag = quotient << k | int("0" + "".join(map(str, plane[i * k : i * k + k])), 2)
            residual = zigzag // 2 if zigzag % 2 == 0 else -(zigzag + 1) // 2
            prediction = seeds[0] if order == 0 else sum(map(operator.mul, PREDICTORS[order], values[::-1]))
            values.append(prediction + residual)
        axes.append(values)
    assert at == len(frame) - 4
    return codec, [value for sample in zip(*axes, strict=True) for value in sample]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_frames_hold_what_the_table_says(name):
    case = GOLDEN[name]
    _, counts = read_by_the_table(bytes.fromhex(case["frame"]))
    assert counts == case["counts"]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_frames_decode(name):
    case = GOLDEN[name]
    frame = bytes.fromhex(case["frame"])
    (found,) = decode(frame)
    assert found.counts.ravel().tolist() == case["counts"]
    assert found.counts.dtype == np.int16
    assert (found.boot, found.sequence) == (case.get("boot", 0), case.get("sequence", 0))
    assert {name: getattr(found, name) for name in TEXTS} == dict.fromkeys(TEXTS, "") | case.get("texts", {})
    assert found.flags == case.get("flags", 0)
    assert found.gaps == tuple((index, None if lost >= 0xFFFE else lost) for index, lost in case.get("gaps", []))
    scores = case.get("scores", {"anomaly": None, "class_name": "", "probability": None})
    assert (found.anomaly, found.class_name, found.class_probability) == tuple(scores.values())
    assert found.trigger == case.get("trigger", 0)
    assert found.frame == frame
    assert found.crc == crc32(frame[:-4])


def test_the_documented_example_is_the_smallest_golden_frame():
    text = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()
    block = text.split("## Example")[1].split("```")[1]
    example = bytes.fromhex("".join(line.split("#")[0] for line in block.splitlines()))
    assert example.hex() == GOLDEN["smallest"]["frame"]


@pytest.mark.parametrize(
    ("section", "layout", "length", "fields"),
    [("Header", HEADER, HEADER_LENGTH, HEADER_FIELDS), ("Report", REPORT_HEADER, REPORT_HEADER_LENGTH, None)],
)
def test_the_documented_header_is_the_one_in_use(section, layout, length, fields):
    text = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()
    text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (4 bytes|[ui]\d+) \| (\w+) \|", text, re.MULTILINE)
    codes = {"4 bytes": "4s", "u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i16": "h"}
    assert "<" + "".join(codes[kind] for _, kind, _ in rows) == layout.format
    at = 0
    for offset, kind, _ in rows:
        assert int(offset) == at
        at += struct.calcsize(codes[kind])
    assert at == length
    names = [name.replace("started_at_uncertainty_ms", "uncertainty_ms") for _, _, name in rows]
    assert fields is None or names == fields


def test_every_field_comes_out_in_its_unit():
    (found,) = decode(bytes.fromhex(GOLDEN["everything said"]["frame"]))
    assert found.interval_s == pytest.approx(744048e-9, rel=1e-12)
    assert found.interval_sigma_s == pytest.approx(127e-9)
    assert found.odr_hz == 1344
    assert found.started_at == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1790000000123456)
    assert found.started_at_uncertainty_s == 1.004
    assert found.temperature_degc == -2.5
    assert found.full_scale_g == 16
    assert found.sensitivity_mg == 12
    assert (found.mode, found.trigger) == (2, 1)
    assert found.flags == Flags.SATURATED | Flags.SLOW_BUS
    assert found.samples_lost == 0
    assert found.acceleration.dtype == np.float32
    assert found.acceleration.shape == (64, 3)
    assert np.allclose(found.acceleration, found.counts * 12e-3 * 9.80665, rtol=1e-6)
    assert repr(found) == "<Window ffffffff:4294967295 of dev:864475040000001: 64 samples at 1344.00 Hz>"


def test_what_is_not_known_is_none():
    (found,) = decode(bytes.fromhex(GOLDEN["a gap of unknown length"]["frame"]))
    assert found.interval_s is None
    assert found.interval_sigma_s is None
    assert found.started_at is None
    assert found.started_at_uncertainty_s is None
    assert found.temperature_degc is None
    assert found.samples_lost is None
    assert found.gaps == ((9, None),)
    assert "unknown rate" in repr(found)


def test_a_gap_counted_in_the_next_leaves_the_sum_known():
    (found,) = decode(bytes.fromhex(GOLDEN["a gap counted in the next"]["frame"]))
    assert found.gaps == ((9, None), (18, 61))
    assert found.samples_lost == 61


# --- spoilt bodies ----------------------------------------------------------------------------------------------------

SPOILABLE = [name for name in GOLDEN if len(GOLDEN[name]["frame"]) < 1000]


@pytest.mark.parametrize("name", SPOILABLE)
def test_a_frame_cut_anywhere_is_an_error_and_its_neighbours_decode(name):
    frame = bytes.fromhex(GOLDEN[name]["frame"])
    for cut in range(1, len(frame)):
        assert keys(frame[:cut]) == []
        assert keys(NEIGHBOUR + frame[:cut] + NEIGHBOUR) == [(9, 1), (9, 1)]
        with pytest.raises(FrameError):
            decode(frame[:cut])


@pytest.mark.parametrize("name", SPOILABLE)
def test_any_flipped_bit_is_an_error_and_its_neighbours_decode(name):
    frame = bytes.fromhex(GOLDEN[name]["frame"])
    for bit in range(8 * len(frame)):
        spoilt = bytearray(frame)
        spoilt[bit >> 3] ^= 1 << (bit & 7)
        items = frames(NEIGHBOUR + bytes(spoilt) + NEIGHBOUR)
        assert [(item.boot, item.sequence) for item in items if isinstance(item, Window)] == [(9, 1), (9, 1)]
        assert isinstance(items[1], FrameError)


def test_any_flipped_bit_of_a_long_frame_is_an_error():
    frame = bytes.fromhex(GOLDEN["a window of the demo's kind"]["frame"])
    for bit in range(0, 8 * len(frame), 5):
        spoilt = bytearray(frame)
        spoilt[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(FrameError):
            decode(bytes(spoilt))


@given(st.binary(max_size=200), st.sampled_from(sorted(GOLDEN)))
@example(MAGIC, "smallest")
@example(MAGIC * 30, "smallest")
@example(MAGIC + struct.pack("<BBHI", 1, 56, 0, 0xFFFFFFFF), "smallest")
@example(MAGIC + struct.pack("<BBHI", 1, 56, 0, 5), "smallest")
def test_garbage_around_frames_costs_no_frame(garbage, name):
    frame = bytes.fromhex(GOLDEN[name]["frame"])
    key = (GOLDEN[name].get("boot", 0), GOLDEN[name].get("sequence", 0))
    items = frames(garbage + frame + garbage + frame + garbage)
    assert [(item.boot, item.sequence) for item in items if isinstance(item, Window)] == [key, key]
    assert sum(isinstance(item, FrameError) for item in items) == (3 if garbage else 0)


@given(st.binary(max_size=2000))
def test_nothing_but_frame_errors_comes_out_of_noise(noise):
    assert keys(noise) == []


@settings(max_examples=500)
@given(st.data())
def test_a_sealed_frame_with_anything_inside_is_a_window_or_a_frame_error(data):
    """What a broken encoder may send: the CRC is right, the rest is not."""
    frame = bytearray.fromhex(GOLDEN[data.draw(st.sampled_from(SPOILABLE))]["frame"])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(4, len(frame) - 5))] = data.draw(st.integers(0, 255))
    items = frames(NEIGHBOUR + resealed(bytes(frame)) + NEIGHBOUR)
    assert (items[0].boot, items[-1].boot) == (9, 9)
    for item in items:
        if isinstance(item, Window):
            assert len(item) == len(item.acceleration) > 0


FRAME = bytes.fromhex(GOLDEN["everything said"]["frame"])
RAW = bytes.fromhex(GOLDEN["three samples are raw"]["frame"])


@pytest.mark.parametrize(
    ("frame", "status", "reason"),
    [
        (altered(FRAME, samples=0), 400, "impossible value"),
        (altered(FRAME, full_scale_g=3), 400, "impossible value"),
        (altered(FRAME, started_at_us=2**63), 400, "impossible value"),
        (altered(FRAME, mode=3), 400, "impossible value"),
        (altered(FRAME, sensitivity_ug=0), 400, "impossible value"),
        (altered(FRAME, flags=1), 400, "contradict"),
        (altered(FRAME, samples_lost=1), 400, "contradict"),
        (altered(FRAME, text_length=9999), 400, "do not fit"),
        (altered(FRAME, text_length=3), 400, "text block is cut off"),
        (altered(FRAME, codec=9), 422, "codec 9 is unknown"),
        (altered(RAW, samples=4), 400, "4 samples take 24 bytes, not 18"),
        (altered(FRAME, version=2), 422, "version 2"),
        (resealed(FRAME[:-4] + b"\0" + FRAME[-4:]), 400, "CRC"),
        (altered(FRAME[:-4] + b"\0" + FRAME[-4:], frame_length=len(FRAME) + 1), 400, "left over"),
    ],
)
def test_a_sealed_frame_that_makes_no_sense_says_why(frame, status, reason):
    item = frames(frame)[0]
    assert isinstance(item, FrameError)
    assert item.status == status
    assert reason in item.reason


def test_a_refused_frame_is_named_so_that_its_sender_can_give_it_up():
    (item,) = frames(altered(FRAME, codec=9, boot=77, sequence=5))
    assert (item.boot, item.sequence) == (77, 5)
    assert "0000004d:5" in item.reason


def test_a_newer_version_is_refused_whole_and_its_neighbours_decode():
    newer = struct.pack("<4sBBHI", MAGIC, 2, 12, 0, 40) + bytes(24)
    newer = resealed(newer + b"\0\0\0\0")
    items = frames(NEIGHBOUR + newer + NEIGHBOUR)
    assert [type(item) for item in items] == [Window, FrameError, Window]
    assert items[1].status == 422


def test_fields_that_a_later_minor_change_appends_to_the_header_are_skipped():
    longer = FRAME[:HEADER_LENGTH] + b"later" + FRAME[HEADER_LENGTH:]
    longer = altered(longer, header_length=HEADER_LENGTH + 5, frame_length=len(longer))
    (item,) = frames(longer)
    assert item.counts.ravel().tolist() == GOLDEN["everything said"]["counts"]


@pytest.mark.parametrize("at", [5, 2])
def test_a_remainder_or_unary_plane_that_breaks_the_rules_is_refused(at):
    frame = bytearray.fromhex(GOLDEN["at rest, order 0"]["frame"])
    payload = HEADER_LENGTH + 6
    frame[payload + at] ^= 0xFF
    (item,) = frames(resealed(bytes(frame)))
    assert isinstance(item, FrameError)


def test_an_empty_body_is_an_error():
    (item,) = frames(b"")
    assert "empty" in item.reason
    with pytest.raises(FrameError):
        decode(b"")


def test_a_body_made_to_keep_the_decoder_busy_does_not(monkeypatch):
    """A magic with a plausible length every 16 bytes: each would cost a checksum over the rest, 2 GB in all."""
    body = b"".join(MAGIC + struct.pack("<BBHII", 1, 56, 0, 262144 - 16 * i, 0) for i in range(16384))
    checked = 0

    def counted(data):
        nonlocal checked
        checked += len(data)
        return crc32(data)

    monkeypatch.setattr("judder.frame.crc32", counted)
    (item,) = frames(body)
    assert isinstance(item, FrameError)
    assert checked < 70 * len(body)


# --- the article's stream -------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-999, 999, width=32), min_size=3, max_size=300).map(lambda v: v[: len(v) // 3 * 3]))
def test_the_article_s_stream_comes_back_exactly(values):
    found = decode_article(struct.pack(f"<{len(values)}f", *values))
    assert found.acceleration.ravel().tolist() == values
    assert found.acceleration.shape == (len(values) // 3, 3)
    assert found.interval_s is None
    assert found.counts is None


def test_its_interval_is_what_the_caller_knows():
    assert decode_article(bytes(12), 0.0025).interval_s == 0.0025
    for impossible in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="above 0"):
            decode_article(bytes(12), impossible)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "empty"),
        (bytes(13), 400, "13 bytes"),
        (bytes(9131), 400, "9131 bytes"),
        (struct.pack("<3f", 1, math.nan, 3), 422, "sample 0 has y = nan"),
        (struct.pack("<6f", 1, 2, 3, 4, 5, math.inf), 422, "sample 1 has z = inf"),
        (struct.pack("<3f", -1000.5, 2, 3), 422, "sample 0 has x = -1000.5"),
        (RAW, 400, "frame"),
    ],
)
def test_what_is_no_article_stream_is_refused(body, status, reason):
    with pytest.raises(FrameError, match=reason) as caught:
        decode_article(body)
    assert caught.value.status == status


def test_our_magic_is_no_number_to_the_article_s_reader():
    assert math.isnan(struct.unpack("<f", MAGIC)[0])


def test_windows_of_many_devices_keep_their_own_texts():
    rng = random.Random(1)
    bodies = [encode(window(motor(4, seed=i)), [f"dev:{i}", "", "", "", "", str(rng.random())]) for i in range(50)]
    assert [found.device for found in decode(b"".join(bodies))] == [f"dev:{i}" for i in range(50)]
