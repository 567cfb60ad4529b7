"""The durable store of windows and reports: one SQLite file, one writer thread, group commit.

Five verbs: `put` takes windows in; `claim` hands out those that are due, `done`, `retry` and `dead` say what became of
them; `hold` sets one aside that cannot be delivered as it is. Each is answered only after COMMIT has returned with
`synchronous=FULL`, so what was answered for survives a crash. Whatever arrives while one commit is under way goes into
the next: no timer and no delay, and the rate is that of requests in flight per sync, not of syncs.

What is claimed is known in memory only. A crash hands it out again: at least once, and the receiver tells repeats by
name and bytes.

The key of a window is (device, boot, sequence). The same key with the same CRC is a repeat, and harmless. The same
key with another CRC is a conflict: two different windows claim to be one. It is kept apart, never overwritten or
called a repeat. Reports have keys of the same kind, and a table of their own: only windows are handed out.
What is not here is known, too (account.py): the account is brought up to date in the transaction that stores.
"""

import fcntl
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from judder import schema
from judder.account import Account, Bookkeeper, Range, accounts, totals
from judder.frame import decode_frames
from judder.group_commit import GroupCommit, QueueError
from judder.records import ARTICLE_DEVICE, Entry, LabelRule, Outcome, Refused, State, Stored
from judder.report import Report
from judder.window import Window

log = logging.getLogger(__name__)

FILE = "windows.sqlite"
_PAGES_GIVEN_BACK = 4096  # of 32 kB, at most in one purge
_ROW_BYTES = 256  # what a row is reckoned at besides its body
_SELECT = "SELECT id, device, boot, sequence, received_us, article_interval_s, state, reason, body FROM windows"


def wall_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


class Queue:
    """The store in folder `data`, made if missing. Raises QueueError.

    One process at a time takes windows in and delivers them; another may look and steer with `beside`.
    `quarantine_limit_bytes` bounds what is kept of refused bodies; the oldest go first. `on_put` is called from the
    writer thread when something new has been stored.
    """

    def __init__(
        self,
        data: Path,
        *,
        quarantine_limit_bytes: int = 64 * 1024 * 1024,
        now_us: Callable[[], int] = wall_us,
        beside: bool = False,
    ) -> None:
        self.path = data / FILE
        self.on_put: Callable[[], None] = lambda: None
        self._quarantine_limit_bytes = quarantine_limit_bytes
        self._now_us = now_us
        self._claimed: set[int] = set()
        if beside and not self.path.is_file():
            raise QueueError(f"no store in {data}: give the folder of a judder serve with --data")
        self._lock = None if beside else _locked(data)
        try:
            self._database = self._open(data)
            self._quarantined_bytes = self._count_quarantine()
        except (sqlite3.Error, QueueError) as error:
            if self._lock is not None:
                os.close(self._lock)
            raise QueueError(f"{self.path}: {error}") from None
        self._account = Bookkeeper(self._database)
        self._writer = GroupCommit(self._database)

    @property
    def commits(self) -> int:
        return self._writer.commits

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the verbs; each future's result, or QueueError, is there when it is on disk ----------------------------------

    def put(self, entries: Iterable[Entry], refused: Iterable[Refused] = ()) -> "Future[list[Outcome]]":
        """Keep all of it; one outcome an entry."""
        entries, refused = tuple(entries), tuple(refused)
        future = self._writer.submit(lambda: self._put(entries, refused))
        future.add_done_callback(lambda ended: None if ended.exception() else self._tell(ended.result()))
        return future

    def put_and_ask(
        self, entries: Iterable[Entry], refused: Iterable[Refused] = ()
    ) -> "Future[tuple[list[Outcome], list[Range]]]":
        """As `put`; and what their sender should be asked for again (nothing if they are of several devices)."""
        entries, refused = tuple(entries), tuple(refused)

        def put() -> tuple[list[Outcome], list[Range]]:
            return self._put(entries, refused), self._ask(entries)

        future = self._writer.submit(put)
        future.add_done_callback(lambda ended: None if ended.exception() else self._tell(ended.result()[0]))
        return future

    def claim(self, limit: int) -> "Future[list[Stored]]":
        """At most `limit` windows that are due and not claimed yet, the longest due first; none while paused."""

        def claim() -> list[Stored]:
            if self._database.execute("SELECT 1 FROM switches WHERE name = 'paused' AND value = 'yes'").fetchone():
                return []
            rows = self._database.execute(
                _SELECT + " WHERE state = 'waiting' AND due_us <= ? ORDER BY due_us, id LIMIT ?",
                (self._now_us(), limit + len(self._claimed)),
            )
            found = [stored for row in rows if (stored := _stored(row)).number not in self._claimed][:limit]
            claimed.update(stored.number for stored in found)
            self._claimed |= claimed
            return found

        claimed: set[int] = set()
        future = self._writer.submit(claim)
        future.add_done_callback(lambda ended: self._claimed.difference_update(claimed) if ended.exception() else None)
        return future

    def done(self, number: int) -> "Future[None]":
        """It has been delivered."""
        return self._settle(number, State.DELIVERED, "")

    def dead(self, number: int, reason: str) -> "Future[None]":
        """It will never be delivered as it is; somebody has to look at it."""
        return self._settle(number, State.DEAD, reason)

    def hold(self, number: int, reason: str) -> "Future[None]":
        """It cannot be delivered yet: something about it is not known or not good enough."""
        return self._settle(number, State.HELD, reason)

    def retry(self, number: int, after_s: float = 0.0) -> "Future[None]":
        """Hand it out again, not before `after_s` from now."""

        def retry() -> None:
            due_us = self._now_us() + round(after_s * 1e6)
            self._database.execute("UPDATE windows SET due_us = ? WHERE id = ? AND state = 'waiting'", (due_us, number))
            self._claimed.discard(number)

        return self._writer.submit(retry)

    # --- steering -----------------------------------------------------------------------------------------------------

    def reopen(self, state: State, device: str = "*") -> "Future[int]":
        """Windows that are dead or held (of devices that match) wait again; returns how many."""

        def reopen() -> int:
            return self._database.execute(
                "UPDATE windows SET state = 'waiting', reason = '', due_us = 0, settled_us = NULL"
                " WHERE state = ? AND device GLOB ? AND body IS NOT NULL",
                (state, device),
            ).rowcount

        return self._writer.submit(reopen)

    def purge(self, state: State, settled_before_us: int) -> "Future[int]":
        """Forget the samples of windows that were settled before; their keys stay, so that a repeat stays one."""

        def purge() -> int:
            purged = self._database.execute(
                "UPDATE windows SET body = NULL WHERE state = ? AND settled_us < ? AND body IS NOT NULL",
                (state, settled_before_us),
            ).rowcount
            self._give_back()
            return purged

        return self._writer.submit(purge)

    def purge_reports(self, received_before_us: int) -> "Future[int]":
        """Forget what reports said that were received before, but for the last of each boot; their keys stay."""

        def purge() -> int:
            return self._database.execute(
                "UPDATE reports SET body = NULL WHERE received_us < ? AND body IS NOT NULL AND EXISTS (SELECT 1"
                " FROM reports AS later WHERE later.device = reports.device AND later.boot = reports.boot"
                " AND later.sequence > reports.sequence)",
                (received_before_us,),
            ).rowcount

        return self._writer.submit(purge)

    def add_label(self, rule: LabelRule) -> "Future[int]":
        """Add a rule; held windows are looked at again. Returns how many those are."""

        def add() -> int:
            self._database.execute(
                "INSERT INTO labels (label, device, session, from_us, until_us) VALUES (?, ?, ?, ?, ?)",
                (rule.label, rule.device, rule.session, rule.from_us, rule.until_us),
            )
            return self._database.execute(
                "UPDATE windows SET state = 'waiting', reason = '', settled_us = NULL WHERE state = 'held'"
            ).rowcount

        return self._writer.submit(add)

    def switch(self, name: str, value: str) -> "Future[None]":
        """Set a switch that processes beside this one see, such as `paused`."""

        def switch() -> None:
            self._database.execute("INSERT OR REPLACE INTO switches VALUES (?, ?)", (name, value))

        return self._writer.submit(switch)

    def backup(self, target: Path) -> None:
        """Copy the store as it is at this moment, while it is in use."""
        with closing(self._reader()) as database, closing(sqlite3.connect(target)) as copy:
            database.backup(copy)

    # --- looking ------------------------------------------------------------------------------------------------------

    def stored(self, state: State | None = None) -> Iterator[Stored]:
        """Every window whose samples are still here, in order of arrival. Reads on a connection of its own."""
        with closing(self._reader()) as database:
            for row in database.execute(
                _SELECT + " WHERE body IS NOT NULL AND (?1 IS NULL OR state = ?1) ORDER BY id",
                (state,),
            ):
                yield _stored(row)

    def windows(self) -> Iterator[Window]:
        """As `stored`, decoded."""
        for stored in self.stored():
            yield stored.window()

    def counts(self) -> dict[State, int]:
        """How many windows are in each state."""
        with closing(self._reader()) as database:
            found = dict(database.execute("SELECT state, count(*) FROM windows GROUP BY state"))
        return {state: found.get(state, 0) for state in State}

    def oldest_us(self, state: State) -> int | None:
        """When the oldest window in a state was received."""
        with closing(self._reader()) as database:
            query = "SELECT min(received_us) FROM windows WHERE state = ?"
            oldest: int | None = database.execute(query, (state,)).fetchone()[0]
            return oldest

    def count_settled(self, state: State, settled_before_us: int) -> int:
        """How many windows `purge` would forget."""
        with closing(self._reader()) as database:
            query = "SELECT count(*) FROM windows WHERE state = ? AND settled_us < ? AND body IS NOT NULL"
            return int(database.execute(query, (state, settled_before_us)).fetchone()[0])

    def labels(self) -> list[LabelRule]:
        """The rules, oldest first."""
        with closing(self._reader()) as database:
            rows = database.execute("SELECT label, device, session, from_us, until_us FROM labels ORDER BY id")
            return [LabelRule(*row) for row in rows]

    def switches(self) -> dict[str, str]:
        """All that have been set."""
        with closing(self._reader()) as database:
            return dict(database.execute("SELECT name, value FROM switches"))

    def quarantined(self) -> list[tuple[str, bytes]]:
        """Reason and body of what was refused, oldest first."""
        with closing(self._reader()) as database:
            return list(database.execute("SELECT reason, body FROM quarantine ORDER BY id"))

    def reports(self, device: str = "*") -> Iterator[Report]:
        """Every report of devices that match, in order of arrival."""
        query = "SELECT body FROM reports WHERE device GLOB ? AND body IS NOT NULL ORDER BY id"
        with closing(self._reader()) as database:
            for (body,) in database.execute(query, (device,)):
                yield _report(body)

    def newest_reports(self) -> Iterator[Report]:
        """One a device: the last of the boot that last sent one."""
        with closing(self._reader()) as database:
            for body, _ in database.execute(  # with max(), SQLite takes the other columns from that row
                "SELECT body, max(sequence) FROM (SELECT device, boot, max(id) FROM reports GROUP BY device)"
                " JOIN reports USING (device, boot) GROUP BY device ORDER BY device"
            ):
                yield _report(body)

    def accounts(self, device: str = "*") -> list[Account]:
        """What is here and what is not, of every boot of devices that match."""
        with closing(self._reader()) as database:
            database.execute("BEGIN")  # one moment for all
            return list(accounts(database, device))

    def absent(self) -> dict[str, int]:
        """Windows that are not here: lost, by reason; `missing`; `on the way`."""
        with closing(self._reader()) as database:
            database.execute("BEGIN")
            return totals(database)

    def close(self) -> None:
        """Write what waits, then let go of the file."""
        self._writer.close()
        self._database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _reader(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=30)

    def _open(self, data: Path) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            schema.settle(database)
            if self._lock is not None:
                schema.upgrade(database)
            elif schema.version(database) < schema.VERSION:
                _upgrade_beside(database, data)
        except BaseException:
            database.close()
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)  # the file's name has to survive, too
        os.close(folder)
        return database

    def _tell(self, outcomes: list[Outcome]) -> None:
        if Outcome.STORED in outcomes:
            self.on_put()

    # --- inside a transaction -----------------------------------------------------------------------------------------

    def _put(self, entries: Sequence[Entry], refused: Iterable[Refused]) -> list[Outcome]:
        outcomes = [self._keep(entry) for entry in entries]
        for one in refused:
            self._quarantine(one)
        self._trim_quarantine()
        return outcomes

    def _ask(self, entries: Sequence[Entry]) -> list[Range]:
        sent: dict[int, int] = {}
        for entry in entries:
            if entry.device != entries[0].device:
                return []
            if entry.report is None:
                sent[entry.boot] = max(entry.sequence, sent.get(entry.boot, 0))
        return self._account.ask(entries[0].device, sent, self._now_us()) if entries else []

    def _keep(self, entry: Entry) -> Outcome:
        key = entry.device, entry.boot, entry.sequence
        now_us = self._now_us()
        if self._insert(entry, now_us):
            if entry.report is not None:
                self._account.reported(entry.report, now_us)
            elif entry.device != ARTICLE_DEVICE:  # which counts nothing
                self._account.stored(*key, now_us)
            return Outcome.STORED
        kind = "windows" if entry.report is None else "reports"
        held = self._database.execute(
            f"SELECT crc FROM {kind} WHERE device = ? AND boot = ? AND sequence = ?",  # noqa: S608  # ours
            key,
        ).fetchone()
        if held == (entry.crc,):
            return Outcome.REPEATED
        reason = f"conflict: another {kind[:-1]} is stored as {entry.device} {entry.boot:08x}:{entry.sequence}"
        log.error("%s; the new one is in quarantine", reason)
        self._quarantine(Refused(reason, entry.body))
        return Outcome.CONFLICT

    def _insert(self, entry: Entry, now_us: int) -> bool:
        """Whether the key was free."""
        key = entry.device, entry.boot, entry.sequence
        if entry.report is not None:
            return bool(
                self._database.execute(
                    "INSERT INTO reports (device, boot, sequence, crc, received_us, body) VALUES (?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    (*key, entry.crc, now_us, entry.body),
                ).rowcount
            )
        return bool(
            self._database.execute(
                "INSERT INTO windows (device, boot, sequence, crc, received_us, due_us, article_interval_s, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (*key, entry.crc, now_us, now_us, entry.article_interval_s, entry.body),
            ).rowcount
        )

    def _settle(self, number: int, state: State, reason: str) -> "Future[None]":
        def settle() -> None:
            self._database.execute(
                "UPDATE windows SET state = ?, reason = ?, settled_us = ? WHERE id = ? AND state = 'waiting'",
                (state, reason, self._now_us(), number),
            )
            self._claimed.discard(number)

        return self._writer.submit(settle)

    def _quarantine(self, refused: Refused) -> None:
        """The same refusal again, as from a device that tries again, is kept once."""
        inserted = self._database.execute(
            "INSERT INTO quarantine (received_us, reason, digest, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (self._now_us(), refused.reason, hashlib.sha256(refused.body).digest(), refused.body),
        )
        self._quarantined_bytes += inserted.rowcount * (len(refused.body) + _ROW_BYTES)

    def _give_back(self) -> None:
        """Return free pages to the disk, some at a time so that nobody waits long."""
        free = self._database.execute("PRAGMA freelist_count").fetchone()[0]
        for _ in range(min(free, _PAGES_GIVEN_BACK)):
            self._database.execute("PRAGMA incremental_vacuum(1)")

    def _trim_quarantine(self) -> None:
        """Drop the oldest, a tenth of the room at a time."""
        if self._quarantined_bytes <= self._quarantine_limit_bytes:
            return
        self._database.execute(
            "DELETE FROM quarantine WHERE id IN (SELECT id FROM (SELECT id, sum(length(body) + ?) OVER"
            " (ORDER BY id DESC) AS total FROM quarantine) WHERE total > ?)",
            (_ROW_BYTES, self._quarantine_limit_bytes * 9 // 10),
        )
        self._quarantined_bytes = self._count_quarantine()

    def _count_quarantine(self) -> int:
        count = "SELECT coalesce(sum(length(body) + ?), 0) FROM quarantine"
        return int(self._database.execute(count, (_ROW_BYTES,)).fetchone()[0])


def _locked(data: Path) -> int:
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise QueueError(f"cannot use folder {data}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise QueueError(f"folder {data} is in use by another judder: stop it or choose another --data") from None
    return lock


def _upgrade_beside(database: sqlite3.Connection, data: Path) -> None:
    """Only while no server of an earlier version is at work: it would keep no account."""
    try:
        lock = _locked(data)
    except QueueError:
        raise QueueError("its server is of an earlier version of judder: restart that first") from None
    try:
        schema.upgrade(database)
    finally:
        os.close(lock)


def _report(body: bytes) -> Report:
    (report,) = decode_frames(body)
    if not isinstance(report, Report):
        raise TypeError(f"the store holds {report!r} as a report")
    return report


def _stored(row: tuple[Any, ...]) -> Stored:
    number, device, boot, sequence, received_us, article_interval_s, state, reason, body = row
    return Stored(number, device, boot, sequence, received_us, article_interval_s, State(state), reason, body)
