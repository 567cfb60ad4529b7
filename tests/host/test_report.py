"""Reports: golden frames, and every way to spoil one that still has a right checksum."""

import dataclasses
import json
import struct
from datetime import UTC, datetime, timedelta
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.frames import REPORT_CASES, TEXTS, encode, encode_report, golden_reports, motor, report_of, window

from judder import FrameError, Loss, Report, Window, decode, decode_each, decode_frames
from judder.report import LOSSES_LIMIT

GOLDEN = golden_reports()
NEIGHBOUR = encode(window(motor(8), boot=9, sequence=1))


def only(body):
    (item,) = decode_frames(body)
    return item


def resealed(frame):
    return frame[:-4] + struct.pack("<I", crc32(frame[:-4]))


def refusal(**members):
    item = only(encode_report(members, boot=7, sequence=0x80000003))
    assert isinstance(item, FrameError)
    return item.reason


def test_the_golden_table_has_every_case():
    assert GOLDEN.keys() == REPORT_CASES.keys()
    assert all(report_of(case).hex() == case["frame"] for case in GOLDEN.values())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_reports_decode(name):
    case = GOLDEN[name]
    frame = bytes.fromhex(case["frame"])
    found = only(frame)
    assert isinstance(found, Report)
    assert {name: getattr(found, name) for name in TEXTS} == dict.fromkeys(TEXTS, "") | case.get("texts", {})
    assert (found.boot, found.sequence) == (case.get("boot", 0), case.get("sequence", 1 << 31))
    assert found.members == case["members"]
    assert (found.frame, found.crc) == (frame, crc32(frame[:-4]))
    said = {
        name: getattr(found, name) for name in (field.name for field in dataclasses.fields(found)) if name in _MEMBERS
    }
    expected = dict.fromkeys(_MEMBERS) | {"lost": ()} | {k: v for k, v in case["members"].items() if k in _MEMBERS}
    expected["lost"] = tuple(Loss(*loss) for loss in expected["lost"])
    for name in ("persisted", "earlier_boots"):
        expected[name] = expected[name] and tuple(map(tuple, expected[name]))
    assert said == expected


_MEMBERS = set(GOLDEN["everything said"]["members"]) | {"previous_captured", "earlier_boots", "earlier_boots_more"}


def test_the_time_of_writing():
    assert only(bytes.fromhex(GOLDEN["says nothing"]["frame"])).written_at is None
    written_at = only(bytes.fromhex(GOLDEN["everything said"]["frame"])).written_at
    assert written_at == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1790000000123456)


def test_reports_stand_among_windows_and_those_who_want_windows_see_none():
    body = encode_report({}) + NEIGHBOUR + encode_report({"captured": 2}) + NEIGHBOUR
    assert [type(item) for item in decode_frames(body)] == [Report, Window, Report, Window]
    assert [type(item) for item in decode_each(body)] == [Window, Window]
    assert len(decode(body)) == 2
    assert decode(encode_report({})) == []


def test_what_is_spoilt_hides_no_report():
    report = encode_report({"captured": 5})
    for body in (b"VR\xc1\x7f" + report, NEIGHBOUR[:-1] + report, report[:-1] + report, b"VW\xc1\x7f" * 9 + report):
        assert [type(item) for item in decode_frames(body + NEIGHBOUR)] == [FrameError, Report, Window]
    for bit in range(8 * len(report)):
        spoilt = bytearray(report)
        spoilt[bit >> 3] ^= 1 << (bit & 7)
        assert [type(item) for item in decode_frames(bytes(spoilt) + NEIGHBOUR)] == [FrameError, Window]


def test_a_longer_header_and_texts_of_later_versions_are_skipped():
    report = encode_report({"captured": 5}, ["dev:1", "", "", "", "", ""])
    longer = report[:30] + b"later" + report[30:]
    longer = resealed(longer[:5] + bytes([35]) + longer[6:8] + struct.pack("<I", len(longer)) + longer[12:])
    assert (only(longer).device, only(longer).captured) == ("dev:1", 5)


@pytest.mark.parametrize(
    ("frame", "status", "reason"),
    [
        (encode_report({}, sequence=5), 400, "impossible value"),
        (encode_report({}, written_at_us=1 << 63), 400, "impossible value"),
        (resealed(encode_report({})[:28] + b"\xff\xff" + encode_report({})[30:]), 400, "do not fit"),
        (resealed(encode_report({})[:5] + b"\x05" + encode_report({})[6:]), 400, "do not fit"),
        (resealed(encode_report({})[:28] + b"\x01\x00" + encode_report({})[30:]), 400, "text block is cut off"),
        (resealed(encode_report({})[:4] + b"\x02" + encode_report({})[5:]), 422, "version 2"),
    ],
)
def test_a_header_that_makes_no_sense_says_why(frame, status, reason):
    item = only(frame)
    assert item.status == status
    assert reason in item.reason


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[1]",
        b"null",
        b"7",
        b'"captured"',
        b'{"captured": NaN}',
        b'{"captured": Infinity}',
        b'{"x": -Infinity}',
        b'{"x": -1e999}',
        b'{"x": ' + b"[" * 16 + b"]" * 16 + b"}",
        b'{"x": ' + b'{"a":' * 800 + b"0" + b"}" * 801,
        b'{"captured": 1e999}',
        b'{"captured": 0.5}',
        b'{"voltage_v": 1e999}',
        b'{"voltage_v": ' + b"9" * 5000 + b"}",
        b'{"x": ' + b"[" * 100_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"captured": 1} {"captured": 2}',
        b'{"reset": "\\ud800"}',
        b'{"lost": {}}',
        b'{"lost": [[1, 2, 3, "\\udfff"]]}',
        b"\x00{}",
    ],
)
def test_nonsense_is_refused_by_name(content):
    item = only(encode_report({}, boot=0xBEEF, sequence=0x80000003, content=content))
    assert isinstance(item, FrameError)
    assert (item.status, item.boot, item.sequence) == (400, 0xBEEF, 0x80000003)
    assert item.reason.startswith("report 0000beef:2147483651: ")
    assert "\n" not in item.reason
    assert len(item.reason) < 200


@pytest.mark.parametrize(
    "members",
    [
        *({name: value} for name in sorted(_MEMBERS) for value in (True, [0], {}, [[]], 1 << 64, -(1 << 64))),
        *({name: value} for name in ("captured", "previous_captured") for value in (-1, (1 << 31) + 1, "5", 5.0)),
        *({"lost": [loss]} for loss in ([1, 2, 3], [1, 3, 2, "dropped"], [1, 2, 1 << 31, "dropped"], 5, "lost")),
        *({"lost": [loss]} for loss in ([1 << 32, 2, 3, "x"], [-1, 2, 3, "x"], [1, True, 3, "x"], [1, 2, 3, 4])),
        {"lost": [[1, 2, 3, "dropped"]] * (LOSSES_LIMIT + 1)},
        *({"persisted": value} for value in ([1, 2], [[1]], [[1, 2, 3]], [[1, 1 << 31]], {"0": 1}, "12")),
        {"persisted": [[1, 2]] * 17},
        *({"earlier_boots": value} for value in (5, [7], [[1 << 32, 1]], [[True, 1]], [[7, -1]], [[7, 1]] * 17)),
        {"uptime_s": -1},
        {"bars": 1000},
    ],
)
def test_a_member_of_another_type_or_beyond_its_bounds_is_refused(members):
    (name,) = members
    assert refusal(**members).startswith(f"report 00000007:2147483651: {name} ")


def test_what_does_not_matter_is_ignored():
    assert isinstance(only(encode_report({}, content=b'{"x": ' + b"[" * 14 + b"0" + b"]" * 14 + b"}")), Report)
    found = only(encode_report({"captured": None, "lost": [[7, 1, 2, "eaten"]], "later": [{"deep": [None, -1]}]}))
    assert found.captured is None
    assert found.lost == (Loss(7, 1, 2, "eaten"),)
    assert found.members["later"] == [{"deep": [None, -1]}]


NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 1 << 31, 1 << 32, 1 << 63])
JSON = st.none() | st.booleans() | NUMBERS | st.text(max_size=3) | st.lists(st.lists(NUMBERS, max_size=4), max_size=2)


@given(st.dictionaries(st.sampled_from(sorted(_MEMBERS)), JSON, max_size=3))
def test_any_json_is_a_report_or_a_refusal(members):
    item = only(encode_report({}, content=json.dumps(members).encode()))
    assert isinstance(item, Report | FrameError)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_report_or_a_refusal(content):
    assert isinstance(only(encode_report({}, content=content)), Report | FrameError)
