"""The account of windows: whatever arrives in whatever order, what is here, lost, missing and to come is told right."""

import fcntl
import sqlite3
import time
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.frames import encode_report

from judder import decode_frames, schema
from judder.account import ASK_AFTER_US, ASK_DEVICE_AFTER_US, ASK_RANGES, ASK_WINDOWS
from judder.group_commit import QueueError
from judder.queue import FILE, Queue
from judder.records import Entry, Outcome, State, entry

DEVICE = "dev:1"
FIRST_REPORT = 1 << 31


def a_window(sequence, boot=7, device=DEVICE):
    return Entry(device, boot, sequence, sequence, b"")


def a_report(boot=7, number=0, device=DEVICE, **members):
    (found,) = decode_frames(encode_report(members, [device, "", "", "", "", ""], boot, FIRST_REPORT + number))
    return entry(found)


class Clock:
    us = 1_000_000_000_000

    def __call__(self):
        return self.us


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(tmp_path, clock):
    with Queue(tmp_path, now_us=clock) as found:
        yield found


def put(queue, *entries):
    return queue.put(entries).result(10)


def ask(queue, *entries):
    return [tuple(one) for one in queue.put_and_ask(entries).result(10)[1]]


def account(queue, boot=7):
    (found,) = (one for one in queue.accounts() if one.boot == boot)
    absent = found.on_the_way + found.missing + sum(found.lost.values())
    assert found.captured == found.stored + absent
    return found


def rows(queue):
    with sqlite3.connect(queue.path) as database:
        found = database.execute("SELECT boot, first, last, reason FROM missing ORDER BY boot, first").fetchall()
        ((counted,),) = database.execute("SELECT coalesce(sum(missing), 0) FROM devices").fetchall()
    database.close()
    assert counted == len(found)
    return found


# --- single cases -----------------------------------------------------------------------------------------------------


def test_windows_without_holes_leave_nothing_missing(queue):
    put(queue, *map(a_window, range(5)))
    found = account(queue)
    assert (found.captured, found.stored, found.on_the_way, found.missing, found.lost) == (5, 5, 0, 0, {})
    assert (found.ended, found.tail_unknown) == (False, False)
    assert rows(queue) == []


def test_a_hole_is_missing_until_it_is_filled_from_any_side(queue):
    put(queue, a_window(0), a_window(9))
    assert account(queue).missing_ranges == ((1, 8),)
    for sequence, left in ((4, [(1, 3), (5, 8)]), (1, [(2, 3), (5, 8)]), (8, [(2, 3), (5, 7)]), (3, [(2, 2), (5, 7)])):
        put(queue, a_window(sequence))
        assert account(queue).missing_ranges == tuple(left)
    put(queue, *map(a_window, (6, 7, 5, 2)))
    assert rows(queue) == []
    assert account(queue).stored == account(queue).captured == 10


def test_what_has_been_captured_and_not_arrived_is_on_its_way(queue):
    put(queue, a_window(0), a_window(1), a_report(captured=6))
    assert (account(queue).captured, account(queue).on_the_way, account(queue).missing) == (6, 4, 0)
    put(queue, a_window(3))
    assert (account(queue).on_the_way, account(queue).missing_ranges) == (2, ((2, 2),))
    put(queue, a_report(number=1, captured=9), a_window(4), a_window(5))
    assert (account(queue).on_the_way, account(queue).missing) == (3, 1)


def test_a_report_before_its_windows(queue):
    put(queue, a_report(captured=3))
    assert (account(queue).captured, account(queue).stored, account(queue).on_the_way) == (3, 0, 3)
    put(queue, *map(a_window, range(3)))
    assert (account(queue).stored, account(queue).on_the_way) == (3, 0)


def test_losses_have_their_reasons_and_one_that_arrives_is_none(queue):
    put(queue, a_window(0), a_window(20), a_report(lost=[[7, 3, 5, "dropped"], [7, 10, 10, "damaged"]]))
    assert account(queue).lost == {"dropped": 3, "damaged": 1}
    assert account(queue).missing == 15
    put(queue, a_window(4), a_window(10))
    assert account(queue).lost == {"dropped": 2}
    assert account(queue).stored == 4


def test_a_loss_reported_after_the_window_has_arrived_is_none(queue):
    put(queue, *map(a_window, range(5)), a_report(lost=[[7, 0, 4, "dropped"]], captured=5))
    assert account(queue).lost == {}
    assert account(queue).stored == 5


@pytest.mark.parametrize("turn", [1, -1])
def test_gone_only_says_what_nobody_knows_better(queue, turn):
    put(
        queue,
        a_window(5),
        *[a_report(number=i, lost=[[7, 0, 2, r]]) for i, r in enumerate(("gone", "dropped"))][::turn],
    )
    put(queue, a_report(number=9, lost=[[7, 3, 4, "gone"]]))
    assert account(queue).lost == {"dropped": 3, "gone": 2}


def test_a_reason_that_this_version_does_not_know_is_other(queue):
    put(queue, a_window(5), a_report(lost=[[7, 0, 2, "eaten by \x00 mice"]]))
    assert account(queue).lost == {"other": 3}


def test_a_boot_that_ended_has_lost_what_is_not_here_until_it_is(queue):
    put(queue, a_window(0), a_window(3), a_report(boot=8, previous_boot=7, previous_captured=6))
    found = account(queue)
    assert (found.ended, found.tail_unknown, found.captured, found.lost) == (True, False, 6, {"reset": 4})
    put(queue, *map(a_window, (1, 2, 4, 5)))
    assert (account(queue).lost, account(queue).stored) == ({}, 6)
    assert account(queue, 8).ended is False


def test_after_a_power_cut_the_tail_is_unknown_beyond_what_was_in_flash(queue):
    put(queue, a_window(0), a_report(boot=8, previous_boot=7, persisted=[[7, 4]]))
    found = account(queue)
    assert (found.ended, found.tail_unknown, found.captured, found.lost) == (True, True, 5, {"reset": 4})
    put(queue, a_report(boot=8, number=1, previous_boot=7, previous_captured=5))
    assert account(queue).tail_unknown is False
    put(queue, a_report(boot=8, number=2, previous_boot=7))
    assert account(queue).tail_unknown is False


def test_a_boot_is_not_its_own_predecessor(queue):
    put(queue, a_report(boot=7, captured=2, previous_boot=7, previous_captured=9))
    assert (account(queue).ended, account(queue).captured) == (False, 2)


def test_repeats_and_conflicts_change_nothing(queue):
    put(queue, a_window(0), a_window(2), a_report(captured=5))
    before = account(queue), rows(queue)
    assert put(queue, a_window(2), a_report(captured=5)) == [Outcome.REPEATED] * 2
    assert put(queue, Entry(DEVICE, 7, 2, 99, b"x"), a_report(captured=50)) == [Outcome.CONFLICT] * 2
    assert (account(queue), rows(queue)) == before
    assert [reason for reason, _ in queue.quarantined()] == [
        "conflict: another window is stored as dev:1 00000007:2",
        "conflict: another report is stored as dev:1 00000007:2147483648",
    ]


def test_a_conflicting_window_below_a_loss_stays_lost(queue):
    put(queue, a_window(0))
    put(queue, a_report(lost=[[7, 1, 1, "refused"]], captured=2), Entry(DEVICE, 7, 0, 99, b"x"))
    assert account(queue).lost == {"refused": 1}


def test_devices_have_accounts_of_their_own(queue):
    put(queue, a_window(3), a_window(4, device="dev:2"))
    assert [(one.device, one.missing) for one in queue.accounts()] == [("dev:1", 3), ("dev:2", 4)]
    assert [one.device for one in queue.accounts("*:2")] == ["dev:2"]
    assert queue.absent() == {"missing": 7}


def test_the_article_s_streams_count_nothing(queue):
    put(queue, Entry("article", 5, 12345, 1, b""))
    assert queue.accounts() == []


def test_the_totals_are_the_sum_of_the_accounts(queue):
    put(queue, a_window(9), a_report(captured=12, lost=[[7, 2, 3, "dropped"], [6, 0, 4, "gone"]], previous_boot=5))
    put(queue, a_report(boot=7, number=1, persisted=[[5, 9]]), a_window(8, device="dev:2"))
    expected = {"dropped": 2, "gone": 5, "reset": 10, "missing": 7 + 8, "on the way": 2}
    assert queue.absent() == expected


def test_windows_of_the_last_sequence_of_all(queue):
    put(queue, a_window((1 << 32) - 1), a_window(1 << 31), a_window(0))
    found = account(queue)
    assert (found.captured, found.stored, found.missing) == (1 << 32, 3, (1 << 32) - 3)


def test_reports_are_kept_and_never_handed_out(queue):
    put(
        queue,
        a_report(captured=1),
        a_window(0),
        a_report(boot=8),
        a_report(boot=8, number=2),
        a_report(boot=8, number=1),
    )
    assert len(queue.claim(10).result(10)) == 1
    assert sum(queue.counts().values()) == 1
    assert len(list(queue.reports())) == 4
    assert [(one.boot, one.sequence - FIRST_REPORT) for one in queue.newest_reports()] == [(8, 2)]
    assert list(queue.reports("dev:2")) == []


def test_old_reports_are_forgotten_but_for_the_last_of_each_boot(queue, clock):
    put(queue, a_report(), a_report(number=1), a_report(number=2), a_report(boot=8, number=4))
    clock.us += 1000
    put(queue, a_report(boot=8, number=5))
    assert queue.purge_reports(clock.us).result(10) == 3
    assert [(one.boot, one.sequence - FIRST_REPORT) for one in queue.reports()] == [(7, 2), (8, 5)]
    assert put(queue, a_report()) == [Outcome.REPEATED]
    assert [one.boot for one in queue.newest_reports()] == [8]


# --- what strangers may send ------------------------------------------------------------------------------------------


def test_numbers_far_apart_cost_a_row_and_no_time(queue):
    started_s = time.monotonic()
    for i in range(200):
        put(queue, a_window((1 << 30) + 7 * i, boot=i), a_report(boot=i, captured=1 << 31))
        put(queue, a_report(boot=i, number=1, lost=[[i, 0, (1 << 31) - 1, "dropped"]] * 32))
    assert time.monotonic() - started_s < 20
    assert len(rows(queue)) == 400
    assert account(queue, 5).lost == {"dropped": (1 << 31) - 1}


def test_beyond_the_limit_windows_count_but_have_no_place_of_their_own(queue, monkeypatch):
    monkeypatch.setattr("judder.account.MISSING_PER_DEVICE", 10)
    put(queue, *(a_window(2 * i) for i in range(100)))
    assert len(rows(queue)) == 10
    assert (account(queue).missing, account(queue).stored) == (99, 100)
    put(queue, *(a_window(2 * i + 1) for i in range(50, 99)))
    assert (account(queue).missing, account(queue).stored) == (50, 149)
    put(queue, a_window(201, boot=8), a_report(lost=[[7, 3, 3, "dropped"], [7, 60, 60, "gone"]], captured=300))
    put(queue, a_window(1))
    put(queue, a_window(500, boot=8))
    assert len(rows(queue)) == 10
    found = account(queue)
    assert (found.stored, found.lost, found.captured) == (150, {"dropped": 1}, 300)
    put(queue, a_window(300, boot=8))
    assert account(queue, 8).missing == 501 - 3
    put(queue, a_report(boot=9, previous_boot=7))
    assert account(queue).lost == {"dropped": 1, "reset": 300 - 150 - 1}
    put(queue, *map(a_window, range(300)))
    assert (account(queue).stored, account(queue).lost) == (300, {})


def test_boots_that_ended_before_a_report_of_theirs_had_arrived_have_an_unknown_tail(queue):
    earlier = [[6, None], [5, 4], [7, None], [9, None]]
    put(queue, a_window(0, boot=6), a_report(boot=9, previous_boot=8, previous_captured=2, earlier_boots=earlier))
    assert (account(queue, 6).ended, account(queue, 6).tail_unknown, account(queue, 6).stored) == (True, True, 1)
    assert (account(queue, 7).captured, account(queue, 7).tail_unknown) == (0, True)
    assert (account(queue, 5).lost, account(queue, 5).tail_unknown) == ({"reset": 4}, False)
    assert (account(queue, 8).lost, account(queue, 8).tail_unknown) == ({"reset": 2}, False)
    assert not account(queue, 9).ended


def test_when_there_were_too_many_boots_to_name_all_that_are_known_have_ended(queue):
    put(queue, a_window(2, boot=6), a_window(0, device="dev:2"), a_report(boot=9, earlier_boots_more=3))
    assert (account(queue, 6).lost, account(queue, 6).tail_unknown) == ({"reset": 2}, True)
    assert not account(queue, 9).ended
    assert not account(queue, 7).ended


# --- any order --------------------------------------------------------------------------------------------------------


class Truth:
    """What really happened to some boots of one DeviceUID, and the messages that tell of it."""

    def __init__(self, rng):
        self.messages = []
        self.arrived, self.reason, self.captured, self.ending = set(), {}, {}, {}
        boots = rng.sample(range(1, 1000), rng.randint(1, 4))
        for number, boot in enumerate(boots):
            captured = self.captured[boot] = rng.randint(0, 12)
            for sequence in range(captured):
                fate = rng.choice(["arrives", "arrives", "arrives", "dropped", "damaged", "late", "nobody knows"])
                if fate in ("arrives", "late"):
                    self.messages.append(a_window(sequence, boot))
                    self.arrived.add((boot, sequence))
                if fate in ("dropped", "damaged", "late"):
                    self.reason[boot, sequence] = "dropped" if fate == "late" else fate
            self.ending[boot] = None
            if number and rng.random() < 0.8:  # else: another board of the same name
                before = boots[number - 1]
                self.ending[before] = rng.choice(["orderly", "power cut"])
        self._report(rng, boots)

    def _report(self, rng, boots):
        losses = [[boot, sequence, sequence, reason] for (boot, sequence), reason in self.reason.items()]
        for number, boot in enumerate(boots):
            count = rng.randint(1, 3)
            for report in range(count):
                # the last one says it all, earlier ones a part
                said = self.captured[boot] if report == count - 1 else rng.randint(0, self.captured[boot])
                members = {"captured": said}
                if number and self.ending[boots[number - 1]]:
                    members["previous_boot"] = boots[number - 1]
                    if self.ending[boots[number - 1]] == "orderly":
                        members["previous_captured"] = self.captured[boots[number - 1]]
                if rng.random() < 0.5:
                    members["lost"] = rng.sample(losses, rng.randint(0, len(losses)))
                if number == len(boots) - 1 and report == count - 1:
                    members["lost"] = losses
                self.messages.append(a_report(boot, report, **members))

    def check(self, queue):
        for boot, captured in self.captured.items():
            found = account(queue, boot)
            here = {sequence for of, sequence in self.arrived if of == boot}
            lost, unexplained = {}, []
            for sequence in sorted(set(range(captured)) - here):
                reason = self.reason.get((boot, sequence)) or ("reset" if self.ending[boot] else None)
                if reason:
                    lost[reason] = lost.get(reason, 0) + 1
                else:
                    unexplained.append(sequence)
            highest = max(here, default=-1)
            assert (found.captured, found.stored, found.lost) == (captured, len(here), lost)
            assert found.ended == bool(self.ending[boot])
            assert found.tail_unknown == (self.ending[boot] == "power cut")
            assert found.on_the_way == sum(sequence > highest for sequence in unexplained)
            listed = [s for first, last in found.missing_ranges for s in range(first, last + 1)]
            assert listed == [sequence for sequence in unexplained if sequence < highest]


def tell(queue, truth, rng):
    """All messages in some order, some of them twice."""
    messages = truth.messages + rng.choices(truth.messages, k=10)
    rng.shuffle(messages)
    futures = []
    while messages:
        futures.append(queue.put([messages.pop() for _ in range(min(len(messages), rng.randint(1, 5)))]))
    for future in futures:
        future.result(10)


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_history_in_any_order_ends_in_the_truth(tmp_path_factory, rng):
    truth = Truth(rng)
    with Queue(tmp_path_factory.mktemp("account")) as queue:
        tell(queue, truth, rng)
        truth.check(queue)
        ranges = rows(queue)
        for one, following in pairwise(ranges):
            assert one[0] < following[0] or one[2] < following[1]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_beyond_the_limit_the_sums_are_still_the_truth(tmp_path_factory, monkeypatch, rng):
    monkeypatch.setattr("judder.account.MISSING_PER_DEVICE", 2)
    truth = Truth(rng)
    with Queue(tmp_path_factory.mktemp("account")) as queue:
        tell(queue, truth, rng)
        assert len(rows(queue)) <= 2
        for boot, captured in truth.captured.items():
            found = account(queue, boot)
            assert (found.captured, found.stored) == (captured, sum(of == boot for of, _ in truth.arrived))
            assert found.missing >= 0


# --- asking again -----------------------------------------------------------------------------------------------------


def test_what_was_overtaken_is_asked_for_six_times_with_growing_pauses(queue, clock):
    assert ask(queue, a_window(0), a_window(4), a_window(6)) == []
    asked = []
    for i in range(2000):
        clock.us += ASK_AFTER_US
        asked.append(ask(queue, a_window(7 + i)))
    assert [found for found in asked if found] == [[(7, 1, 3), (7, 5, 5)]] * 6
    assert [i for i, found in enumerate(asked) if found] == [0, 4, 20, 84, 340, 1364]


def test_what_is_explained_or_arrives_is_not_asked_for(queue, clock):
    ask(queue, a_window(0), a_window(9), a_report(lost=[[7, 1, 2, "dropped"]]))
    clock.us += ASK_AFTER_US
    assert ask(queue, a_window(5), a_window(10)) == [(7, 3, 4), (7, 6, 8)]
    clock.us += 4 * ASK_AFTER_US
    put(queue, a_report(number=1, lost=[[7, 3, 4, "gone"], [7, 8, 8, "gone"]]))
    assert ask(queue, a_window(11)) == [(7, 6, 7)]


def test_what_may_be_the_next_to_come_is_not_asked_for(queue, clock):
    put(queue, a_window(0), a_window(9), a_window(20, boot=8), a_report(boot=7, captured=30))
    clock.us += ASK_AFTER_US
    assert ask(queue, a_window(1)) == [(8, 0, 19)]
    assert ask(queue, a_window(9)) == []  # the board heeds one request in 300 s
    clock.us += ASK_DEVICE_AFTER_US
    assert ask(queue, a_window(9)) == [(7, 2, 8)]


def test_a_device_is_asked_for_its_own(queue, clock):
    put(queue, a_window(3))
    clock.us += ASK_AFTER_US
    assert ask(queue, a_window(0, device="dev:2")) == []
    assert ask(queue, a_window(1, device="dev:2"), a_window(4)) == []
    assert ask(queue, a_report(captured=4)) == [(7, 0, 2)]


def test_boots_that_ended_are_asked_for_too(queue, clock):
    put(queue, a_window(3), a_report(boot=8, previous_boot=7))
    clock.us += ASK_AFTER_US
    assert ask(queue, a_window(0, boot=8)) == [(7, 0, 2)]


def test_long_ranges_and_many_are_asked_for_bit_by_bit(queue, clock):
    put(queue, a_window(1000), *(a_window(2 * i + 1, boot=8) for i in range(40)))
    clock.us += ASK_AFTER_US
    asked = set()
    for turn in range(16 + 5):
        found = ask(queue, a_window(1000 + turn, boot=9))
        clock.us += ASK_DEVICE_AFTER_US
        assert 0 < len(found) <= ASK_RANGES
        assert sum(last - first + 1 for _, first, last in found) <= ASK_WINDOWS
        asked.update((boot, sequence) for boot, first, last in found for sequence in range(first, last + 1))
    assert asked == {(7, sequence) for sequence in range(1000)} | {(8, 2 * i) for i in range(40)}


# --- a store of version 1 ---------------------------------------------------------------------------------------------


def version_1(folder, keys):
    """A file as judder made it before there was an account."""
    database = sqlite3.connect(folder / FILE)
    database.executescript(
        "PRAGMA page_size = 32768; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;" + V1_SCHEMA
    )
    database.executemany(
        "INSERT INTO windows (device, boot, sequence, crc, received_us, body) VALUES (?, ?, ?, 5, 1000, x'00')", keys
    )
    database.execute("UPDATE windows SET state = 'delivered', body = NULL WHERE sequence = 0")
    database.commit()
    database.close()


V1_SCHEMA = """
CREATE TABLE windows (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    boot INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    article_interval_s REAL,
    state TEXT NOT NULL DEFAULT 'waiting',
    reason TEXT NOT NULL DEFAULT '',
    due_us INTEGER NOT NULL DEFAULT 0,
    settled_us INTEGER,
    body BLOB,
    UNIQUE (device, boot, sequence)
);
CREATE INDEX windows_due ON windows (state, due_us, id);
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    received_us INTEGER NOT NULL,
    reason TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL
);
CREATE TABLE labels (
    id INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    device TEXT NOT NULL,
    session TEXT NOT NULL,
    from_us INTEGER,
    until_us INTEGER
);
CREATE TABLE switches (name TEXT PRIMARY KEY, value TEXT NOT NULL);
PRAGMA user_version = 1;
"""
OLD = [
    *((DEVICE, 7, sequence) for sequence in (0, 1, 5, 6, 9)),
    *((DEVICE, 8, sequence) for sequence in (3, 0)),
    ("dev:2", 7, 0),
    ("article", 99, 123456),
]


def test_a_store_of_version_1_keeps_its_windows_and_gets_an_account(tmp_path):
    version_1(tmp_path, OLD)
    with Queue(tmp_path) as queue:
        assert queue.counts()[State.DELIVERED] == 3
        assert queue.counts()[State.WAITING] == 6
        assert rows(queue) == [(7, 2, 4, ""), (7, 7, 8, ""), (8, 1, 2, "")]
        assert [(one.device, one.boot, one.captured, one.stored, one.missing) for one in queue.accounts()] == [
            (DEVICE, 7, 10, 5, 5),
            (DEVICE, 8, 4, 2, 2),
            ("dev:2", 7, 1, 1, 0),
        ]
        assert put(queue, Entry(DEVICE, 7, 0, 5, b"")) == [Outcome.REPEATED]
        assert ask(queue, a_window(3), a_window(10), a_report(boot=8)) == [(7, 2, 2), (7, 4, 4), (7, 7, 8), (8, 1, 2)]
    with Queue(tmp_path) as queue:
        assert [one.stored for one in queue.accounts()] == [7, 2, 1]


def test_the_account_of_an_old_store_is_the_one_of_a_new_one(tmp_path):
    (tmp_path / "old").mkdir()
    version_1(tmp_path / "old", OLD)
    with Queue(tmp_path / "old") as old, Queue(tmp_path / "new", now_us=lambda: 1000) as new:
        put(new, *(Entry(*key, 5, b"") for key in OLD))
        assert old.accounts() == new.accounts()
        assert rows(old) == rows(new)


def test_many_holes_of_an_old_store_are_bounded_too(tmp_path):
    version_1(tmp_path, [(DEVICE, 7, 2 * i + 1) for i in range(schema.MISSING_PER_DEVICE + 5)])
    with Queue(tmp_path) as queue:
        assert len(rows(queue)) == schema.MISSING_PER_DEVICE
        assert account(queue).missing == schema.MISSING_PER_DEVICE + 5


def test_an_old_store_is_brought_up_to_date_beside_only_while_no_old_server_runs(tmp_path):
    version_1(tmp_path, OLD)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(QueueError, match="restart that first"):
            Queue(tmp_path, beside=True)
    with Queue(tmp_path, beside=True) as queue:
        assert queue.absent() == {"missing": 7}
