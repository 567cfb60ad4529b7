"""Reports as bytes, and when the next one is due."""

import json
import struct
from binascii import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import clock, frame, report
from node.report import FIRST_REPORT, HEADER, HEADER_LENGTH, LISTED, Reports

IDENTITY = frame.text_block("dev:1", "judder 0.1.0", "", "abcd", "", "")
KEY = (7, FIRST_REPORT)


@pytest.fixture
def now(monkeypatch):
    """Microseconds that pass only when told to, in a list of one."""
    passed = [0]
    monkeypatch.setattr(clock, "now_us", lambda: passed[0])
    return passed


def members(data):
    text_length = struct.unpack_from(HEADER, data)[-1]
    return json.loads(data[HEADER_LENGTH + text_length : -4])


MEMBERS = st.dictionaries(st.text(max_size=9), st.none() | st.integers(-(2**40), 2**40) | st.text(max_size=20))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**63), MEMBERS)
def test_a_report_is_as_the_wire_format_says(boot, number, written_at_us, given_members):
    data = report.encode((boot, FIRST_REPORT + number), IDENTITY, written_at_us, given_members)
    assert struct.unpack_from(HEADER, data) == (
        *(b"VR\xc1\x7f", 1, 30, 0, len(data), boot, 2**31 + number),
        *(written_at_us, len(IDENTITY)),
    )
    assert data[30 : 30 + len(IDENTITY)] == IDENTITY
    assert members(data) == {name: value for name, value in given_members.items() if value is not None}
    assert struct.unpack("<I", data[-4:]) == (crc32(data[:-4]),)


def test_the_first_report_is_due_at_once_and_then_at_its_rate(now):
    reports = Reports(7, 3600)
    assert reports.due_us() <= now[0]
    key, _ = reports.write(IDENTITY, 0, {})
    reports.written()
    assert key == (7, FIRST_REPORT)
    assert reports.due_us() == 3600 * 10**6
    now[0] = reports.due_us()
    key, data = reports.write(IDENTITY, 0, {"captured": 4})
    assert key == (7, FIRST_REPORT + 1)
    assert members(data) == {"captured": 4, "uptime_s": 3600, **reports.counts}


def test_a_report_that_found_no_room_is_written_again_later_with_what_it_told(now):
    reports = Reports(7, 3600)
    reports.lose((7, 3), "dropped")
    first, data = reports.write(IDENTITY, 0, {})
    assert reports.due_us() == 600 * 10**6
    now[0] = reports.due_us()
    second, again = reports.write(IDENTITY, 0, {})
    assert first == second  # nobody has seen it
    assert members(data)["lost"] == members(again)["lost"] == [[7, 3, 3, "dropped"]]


def test_a_loss_is_told_soon_and_once(now, capsys):
    reports = Reports(7, 3600)
    reports.write(IDENTITY, 0, {})
    reports.written()
    reports.lose((7, 0), "gone")
    assert reports.due_us() == 600 * 10**6
    now[0] = reports.due_us()
    _, data = reports.write(IDENTITY, 0, {})
    assert members(data)["lost"] == [[7, 0, 0, "gone"]]
    reports.written()
    _, data = reports.write(IDENTITY, 0, {})
    assert "lost" not in members(data)
    assert capsys.readouterr().out == "window 00000007:0 lost: gone\n"


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 60), st.sampled_from(["dropped", "gone"])), unique=True))
def test_losses_are_listed_as_ranges_and_none_is_forgotten(losses):
    reports = Reports(7, 3600)
    for boot, sequence, reason in losses:
        reports.lose((boot, sequence), reason)
    _, data = reports.write(IDENTITY, 0, {})
    listed = members(data).get("lost", [])
    told = [(boot, sequence, why) for boot, first, last, why in listed for sequence in range(first, last + 1)]
    assert len(listed) <= LISTED
    assert len(told) + members(data).get("lost_more", 0) == len(losses)
    assert set(told) <= set(losses)
    if len(listed) < LISTED:
        assert sorted(told) == sorted(losses)


def test_what_a_report_told_that_is_given_up_the_next_one_tells(now):
    reports = Reports(7, 3600)
    for sequence in range(0, 2 * LISTED + 6, 2):  # three more than it lists
        reports.lose((7, sequence), "dropped")
    key, data = reports.write(IDENTITY, 0, {})
    reports.written()
    reports.lose((7, 99), "gone")
    reports.lose((7, FIRST_REPORT + 5), "refused")  # of another time
    reports.lose(key, "refused")
    reports.lose(key, "refused")
    assert reports.due_us() == 600 * 10**6
    _, again = reports.write(IDENTITY, 0, {})
    assert members(again)["lost"] == [[7, 99, 99, "gone"], *members(data)["lost"][:-1]]
    assert members(again)["lost_more"] == members(data)["lost_more"] + 1 == 4


def test_a_lost_report_is_no_lost_window(capsys):
    reports = Reports(7, 3600)
    reports.lose((7, FIRST_REPORT), "dropped")
    _, data = reports.write(IDENTITY, 0, {})
    assert "lost" not in members(data)
    assert not capsys.readouterr().out
