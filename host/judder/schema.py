"""The tables of the store, and how those of earlier versions become these.

`windows`, `reports` and `quarantine` hold what was sent. `boots`, `missing` and `devices` are the account of it
(account.py): derived, but kept, so that nobody has to go through all windows to know what is not there.
"""

import sqlite3

from judder.group_commit import QueueError

VERSION = 2
MISSING_PER_DEVICE = 10_000
"""Ranges of missing windows that are told apart; docs/operations.md says what happens beyond."""

_WINDOWS = """
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
"""
_ACCOUNT = """
CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    boot INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    received_us INTEGER NOT NULL,
    body BLOB,
    UNIQUE (device, boot, sequence)
);
CREATE INDEX reports_kept ON reports (received_us) WHERE body IS NOT NULL;
CREATE TABLE boots (
    device TEXT NOT NULL,
    boot INTEGER NOT NULL,
    captured INTEGER NOT NULL DEFAULT 0, -- as far as is known: sequences 0 to captured - 1
    highest INTEGER NOT NULL DEFAULT -1, -- sequence that is stored
    stored INTEGER NOT NULL DEFAULT 0,
    ending INTEGER NOT NULL DEFAULT 0, -- 0 not known to have ended, 1 ended somehow, 2 in an orderly way
    seen_us INTEGER NOT NULL DEFAULT 0, -- when something of this boot last arrived
    PRIMARY KEY (device, boot)
) WITHOUT ROWID;
CREATE TABLE missing ( -- sequences below captured that are not stored, as ranges
    device TEXT NOT NULL,
    boot INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT NOT NULL DEFAULT '', -- '' unexplained
    asked INTEGER NOT NULL DEFAULT 0, -- times that the sender was asked for it
    asked_us INTEGER NOT NULL, -- when last, or when it was found missing
    PRIMARY KEY (device, boot, first)
) WITHOUT ROWID;
CREATE INDEX missing_unexplained ON missing (device, asked_us) WHERE reason = '' AND asked < 6;
CREATE TABLE devices (
    device TEXT PRIMARY KEY,
    missing INTEGER NOT NULL DEFAULT 0, -- rows in missing
    asked_us INTEGER NOT NULL DEFAULT 0 -- when it was last asked for any
) WITHOUT ROWID;
"""
# What windows alone tell: how far each boot got, and the holes below that. The article's streams count nothing.
_DERIVE = f"""
INSERT INTO boots (device, boot, captured, highest, stored, seen_us)
    SELECT device, boot, max(sequence) + 1, max(sequence), count(*), max(received_us)
    FROM windows WHERE device != 'article' GROUP BY device, boot;
INSERT INTO missing (device, boot, first, last, asked_us)
    SELECT device, boot, first, last, 0 FROM (
        SELECT *, row_number() OVER (PARTITION BY device ORDER BY boot, first) AS number FROM (
            SELECT device, boot, sequence - 1 AS last,
                1 + lag(sequence, 1, -1) OVER (PARTITION BY device, boot ORDER BY sequence) AS first
            FROM windows WHERE device != 'article'
        ) WHERE first <= last
    ) WHERE number <= {MISSING_PER_DEVICE};
INSERT INTO devices (device, missing) SELECT device, count(*) FROM missing GROUP BY device;
"""  # noqa: S608  # nothing in it comes from outside


def version(database: sqlite3.Connection) -> int:
    """Of the tables in the file; 0 when there are none. Raises QueueError when they are of a later judder."""
    found = int(database.execute("PRAGMA user_version").fetchone()[0])
    if found > VERSION:
        raise QueueError(f"written by a later version of judder (schema {found}, not {VERSION})")
    return found


def settle(database: sqlite3.Connection) -> None:
    """Settings of a connection that writes; in an empty file also those that are for ever."""
    if version(database) == 0:
        database.execute("PRAGMA page_size = 32768")
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA wal_autocheckpoint = 500")


def upgrade(database: sqlite3.Connection) -> None:
    """Bring the tables to this version, all or nothing. Nobody else may be writing windows meanwhile."""
    steps = {0: _WINDOWS + _ACCOUNT, 1: _ACCOUNT + _DERIVE, VERSION: ""}
    if step := steps[version(database)]:
        database.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {VERSION}; COMMIT;")
