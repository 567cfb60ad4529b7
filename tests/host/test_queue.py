"""The store: what a key means, what survives, and what happens when the disk does not take it."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.frames import encode, motor, window

from judder import decode, decode_article
from judder.group_commit import QueueError
from judder.queue import FILE, Queue
from judder.records import ARTICLE_DEVICE, Entry, Outcome, Refused, article_entry, entry

STORED, REPEATED, CONFLICT = Outcome.STORED, Outcome.REPEATED, Outcome.CONFLICT


def a_frame(sequence=1, boot=7, seed=1):
    return encode(window(motor(8, seed=seed), boot=boot, sequence=sequence), ["dev:1", "", "", "", "", ""])


def an_entry(sequence=1, **kwargs):
    return entry(decode(a_frame(sequence, **kwargs))[0])


def put(queue, *entries, refused=()):
    return queue.put(entries, refused).result(10)


def test_a_window_is_stored_once_and_comes_back(tmp_path):
    with Queue(tmp_path) as queue:
        assert put(queue, an_entry(1), an_entry(2)) == [STORED, STORED]
        assert put(queue, an_entry(1), an_entry(3)) == [REPEATED, STORED]
        assert [found.sequence for found in queue.windows()] == [1, 2, 3]
        assert next(queue.windows()).frame == a_frame(1)


def test_the_same_key_twice_in_one_body(tmp_path):
    with Queue(tmp_path) as queue:
        assert put(queue, an_entry(1), an_entry(1), an_entry(1, seed=2)) == [STORED, REPEATED, CONFLICT]


def test_a_conflict_is_kept_apart_and_the_first_window_stays(tmp_path):
    with Queue(tmp_path) as queue:
        put(queue, an_entry(1, seed=1))
        assert put(queue, an_entry(1, seed=2)) == [CONFLICT]
        assert put(queue, an_entry(1, seed=2)) == [CONFLICT]
        assert [found.frame for found in queue.windows()] == [a_frame(1, seed=1)]
        assert queue.quarantined() == [
            ("conflict: another window is stored as dev:1 00000007:1", a_frame(1, seed=2)),
        ]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)), max_size=40))
def test_any_order_of_arrival_keeps_one_window_a_key(tmp_path_factory, arrivals):
    first = {}
    with Queue(tmp_path_factory.mktemp("queue")) as queue:
        futures = []
        for boot, sequence, crc in arrivals:
            futures.append(queue.put([Entry("d", boot, sequence, crc, b"")]))
            first.setdefault((boot, sequence), crc)
        seen = set()
        for (boot, sequence, crc), future in zip(arrivals, futures, strict=True):
            key = boot, sequence
            expected = STORED if key not in seen else REPEATED if crc == first[key] else CONFLICT
            assert future.result(10) == [expected]
            seen.add(key)
        with sqlite3.connect(queue.path) as database:
            rows = database.execute("SELECT boot, sequence, crc FROM windows").fetchall()
        database.close()
    assert {(boot, sequence): crc for boot, sequence, crc in rows} == first
    assert len(rows) == len(first)


def test_windows_survive_a_restart(tmp_path):
    with Queue(tmp_path) as queue:
        put(queue, an_entry(1))
    with Queue(tmp_path) as queue:
        assert put(queue, an_entry(1), an_entry(2)) == [REPEATED, STORED]
        assert [found.sequence for found in queue.windows()] == [1, 2]


def test_many_puts_share_commits(tmp_path):
    with Queue(tmp_path) as queue:
        futures = [queue.put([an_entry(sequence)]) for sequence in range(300)]
        wait(futures, 30)
        assert queue.commits < 300
        assert len(list(queue.windows())) == 300


def test_closing_writes_what_waits_and_refuses_more(tmp_path):
    queue = Queue(tmp_path)
    futures = [queue.put([an_entry(sequence)]) for sequence in range(50)]
    queue.close()
    queue.close()
    assert all(future.result(0) == [STORED] for future in futures)
    with pytest.raises(QueueError, match="closed"):
        queue.put([an_entry(99)]).result(0)


def test_kill_9_loses_nothing_that_was_answered(tmp_path):
    """A process that prints each window once it is answered, killed at an unforeseeable moment."""
    code = """
        import sys
        from pathlib import Path
        from judder.queue import Queue
        from judder.records import Entry
        queue = Queue(Path(sys.argv[1]))
        for start in range(0, 10**6, 5):
            futures = [queue.put([Entry("d", 1, i, i, bytes(2000))]) for i in range(start, start + 5)]
            for i, future in enumerate(futures, start):
                future.result()
                print(i, flush=True)
    """
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(folder)], stdout=subprocess.PIPE, text=True
        )
        stop_at = random.Random(attempt).randrange(50, 400)
        answered = []
        for line in child.stdout:
            answered.append(int(line))
            if len(answered) == stop_at:
                os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        database = sqlite3.connect(folder / FILE)
        held = {sequence for (sequence,) in database.execute("SELECT sequence FROM windows")}
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
        assert set(answered) <= held
        Queue(folder).close()


def test_one_process_at_a_time(tmp_path):
    with Queue(tmp_path), pytest.raises(QueueError, match="in use by another judder"):
        Queue(tmp_path)
    Queue(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueError, match="cannot use folder"):
        Queue(tmp_path / "file" / "below")


def test_a_file_that_is_no_database_is_one_line_and_can_be_put_right(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(QueueError, match="not a database"):
        Queue(tmp_path)
    (tmp_path / FILE).unlink()
    Queue(tmp_path).close()


def test_a_store_of_another_version_is_left_alone(tmp_path):
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(QueueError, match="schema 99"):
        Queue(tmp_path)


def test_a_full_disk_fails_the_put_and_nothing_else(tmp_path):
    with Queue(tmp_path) as queue:
        put(queue, an_entry(1))
        pages = queue._database.execute("PRAGMA page_count").fetchone()[0]
        queue._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(QueueError) as caught:
            put(queue, Entry("d", 1, 2, 3, bytes(10**6)))
        assert caught.value.full
        queue._database.execute("PRAGMA max_page_count = 1000000")
        assert put(queue, Entry("d", 1, 2, 3, bytes(10**6))) == [STORED]
        assert put(queue, an_entry(1)) == [REPEATED]


def test_quarantine_is_bounded_and_forgets_the_oldest(tmp_path):
    with Queue(tmp_path, quarantine_limit_bytes=20_000) as queue:
        for i in range(100):
            put(queue, refused=[Refused(f"bad {i}", bytes([i]) * 1000)])
        kept = queue.quarantined()
        assert kept[-1] == ("bad 99", bytes([99]) * 1000)
        assert 10 <= len(kept) <= 16
        numbers = [body[0] for _, body in kept]
        assert numbers == sorted(numbers)
    with Queue(tmp_path, quarantine_limit_bytes=5_000) as queue:
        put(queue, refused=[Refused("x", b"x")])
        assert len(queue.quarantined()) <= 5


def test_the_same_refusal_again_is_kept_once(tmp_path):
    with Queue(tmp_path) as queue:
        for _ in range(5):
            put(queue, refused=[Refused("bad", b"body")])
        assert queue.quarantined() == [("bad", b"body")]


def test_an_article_s_stream_has_its_content_for_a_key(tmp_path):
    with Queue(tmp_path) as queue:
        streams = [
            article_entry(decode_article(bytes([i, 0, 0, 0] * 3), interval_s))
            for i, interval_s in ((1, 0.01), (2, None))
        ]
        assert put(queue, *streams) == [STORED, STORED]
        assert put(queue, streams[0]) == [REPEATED]
        one, two = queue.windows()
        assert (one.interval_s, two.interval_s) == (0.01, None)
        assert streams[0].device == ARTICLE_DEVICE
