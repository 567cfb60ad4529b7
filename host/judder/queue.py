"""The durable store of windows: one SQLite file, one writer thread, group commit.

`put` is answered only after COMMIT has returned with `synchronous=FULL`, so what was answered for survives a crash.
Whatever arrives while one commit is under way goes into the next: no timer and no delay, and the rate is that of
requests in flight per sync, not of syncs.

The key of a window is (device, boot, sequence). The same key with the same CRC is a repeat, and harmless. The same
key with another CRC is a conflict: two different windows claim to be one. It is kept apart, never overwritten or
called a repeat.
"""

import fcntl
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from judder.frame import decode, decode_article
from judder.window import Window

log = logging.getLogger(__name__)

FILE = "windows.sqlite"
SCHEMA_VERSION = 1
ARTICLE_DEVICE = "article"
_ROW_BYTES = 256  # what a row is reckoned at besides its body
_SCHEMA = """
CREATE TABLE windows (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    boot INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    label TEXT NOT NULL,
    article_interval_s REAL,
    body BLOB NOT NULL,
    UNIQUE (device, boot, sequence)
);
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,
    received_us INTEGER NOT NULL,
    reason TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL
);
"""


class Outcome(Enum):
    """What became of one entry."""

    STORED = "stored"
    REPEATED = "repeated"
    CONFLICT = "conflict"


@dataclass(frozen=True)
class Entry:
    """A window to keep, as bytes. `crc` tells a repeat from a conflict."""

    device: str
    boot: int
    sequence: int
    crc: int
    body: bytes
    label: str = ""
    article_interval_s: float | None = None


@dataclass(frozen=True)
class Refused:
    """A body, or a part of one, to keep apart for people to look at."""

    reason: str
    body: bytes


@dataclass(frozen=True)
class _Put:
    entries: Sequence[Entry]
    refused: Sequence[Refused]
    done: "Future[list[Outcome]]"


class QueueError(Exception):
    """The store cannot be used; one line says why. `full` when the disk is."""

    def __init__(self, reason: str, *, full: bool = False) -> None:
        super().__init__(reason)
        self.full = full


class Queue:
    """The store in folder `data`, made if missing; one process at a time. Raises QueueError.

    `quarantine_limit_bytes` bounds what is kept of refused bodies; the oldest go first.
    """

    def __init__(
        self,
        data: Path,
        *,
        quarantine_limit_bytes: int = 64 * 1024 * 1024,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.path = data / FILE
        self.commits = 0
        self._quarantine_limit_bytes = quarantine_limit_bytes
        self._now_us = now_us
        self._waiting: list[_Put] = []
        self._wake = threading.Condition()
        self._closing = False
        try:
            data.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise QueueError(f"cannot use folder {data}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise QueueError(f"folder {data} is in use by another judder: stop it or choose another --data") from None
        try:
            self._database = self._open()
            self._quarantined_bytes = self._count_quarantine()
        except (sqlite3.Error, QueueError) as error:
            os.close(self._lock)
            raise QueueError(f"{self.path}: {error}") from None
        self._thread = threading.Thread(target=self._write, name="queue", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def put(self, entries: Iterable[Entry], refused: Iterable[Refused] = ()) -> "Future[list[Outcome]]":
        """Keep all of it; the result, one outcome an entry, is there when it is on disk, or a QueueError."""
        done: Future[list[Outcome]] = Future()
        done.set_running_or_notify_cancel()  # what was handed over is written, even if nobody waits for it any more
        with self._wake:
            if self._closing:
                done.set_exception(QueueError("the store is closed"))
                return done
            self._waiting.append(_Put(tuple(entries), tuple(refused), done))
            self._wake.notify()
        return done

    def windows(self) -> Iterator[Window]:
        """Every stored window, in order of arrival. Reads on a connection of its own."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as database:
            for device, interval_s, body in database.execute(
                "SELECT device, article_interval_s, body FROM windows ORDER BY id"
            ):
                yield decode_article(body, interval_s) if device == ARTICLE_DEVICE else decode(body)[0]

    def quarantined(self) -> list[tuple[str, bytes]]:
        """Reason and body of what was refused, oldest first."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as database:
            return list(database.execute("SELECT reason, body FROM quarantine ORDER BY id"))

    def close(self) -> None:
        """Write what waits, then let go of the file."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._database.close()
        os.close(self._lock)

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            _prepare(database)
        except BaseException:
            database.close()
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)  # the file's name has to survive, too
        os.close(folder)
        return database

    # --- the writer thread --------------------------------------------------------------------------------------------

    def _write(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                batch, self._waiting = self._waiting, []
                if not batch:
                    return
            try:
                results = self._commit(batch)
            except Exception as error:
                log.exception("%s: commit failed", self.path)
                failure = _failure(error)
                for put in batch:
                    put.done.set_exception(failure)
            else:
                for put, result in zip(batch, results, strict=True):
                    put.done.set_result(result)

    def _commit(self, batch: Sequence[_Put]) -> list[list[Outcome]]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            results = [[self._keep(entry) for entry in put.entries] for put in batch]
            for put in batch:
                for refused in put.refused:
                    self._quarantine(refused)
            self._trim_quarantine()
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise
        self.commits += 1
        return results

    def _keep(self, entry: Entry) -> Outcome:
        key = entry.device, entry.boot, entry.sequence
        values = (*key, entry.crc, self._now_us(), entry.label, entry.article_interval_s, entry.body)
        inserted = self._database.execute(
            "INSERT INTO windows (device, boot, sequence, crc, received_us, label, article_interval_s, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            values,
        )
        if inserted.rowcount:
            return Outcome.STORED
        held = self._database.execute(
            "SELECT crc FROM windows WHERE device = ? AND boot = ? AND sequence = ?", key
        ).fetchone()
        if held == (entry.crc,):
            return Outcome.REPEATED
        reason = f"conflict: another window is stored as {entry.device} {entry.boot:08x}:{entry.sequence}"
        log.error("%s; the new one is in quarantine", reason)
        self._quarantine(Refused(reason, entry.body))
        return Outcome.CONFLICT

    def _quarantine(self, refused: Refused) -> None:
        """The same refusal again, as from a device that tries again, is kept once."""
        inserted = self._database.execute(
            "INSERT INTO quarantine (received_us, reason, digest, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (self._now_us(), refused.reason, hashlib.sha256(refused.body).digest(), refused.body),
        )
        self._quarantined_bytes += inserted.rowcount * (len(refused.body) + _ROW_BYTES)

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


def _prepare(database: sqlite3.Connection) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        raise QueueError(f"written by another version of judder (schema {version}, not {SCHEMA_VERSION})")
    if version == 0:
        database.execute("PRAGMA page_size = 32768")
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA wal_autocheckpoint = 500")
    if version == 0:
        database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def entry(window: Window, default_label: str = "") -> Entry:
    """The entry of a decoded frame."""
    label = window.label or default_label
    return Entry(window.device, window.boot, window.sequence, window.crc, window.frame, label)


def article_entry(window: Window, default_label: str = "") -> Entry:
    """The entry of an article's stream, which has no identity of its own: a hash of its bytes stands in."""
    digest = hashlib.sha256(window.frame).digest()
    boot, sequence, crc = (int.from_bytes(digest[at : at + 4], "big") for at in (0, 4, 8))
    return Entry(ARTICLE_DEVICE, boot, sequence, crc, window.frame, default_label, window.interval_s)


def _failure(error: Exception) -> QueueError:
    full = isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return QueueError(f"the store failed: {error}", full=full)
