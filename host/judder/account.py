"""The account of windows: which a device has captured, which are here, which will never come and why.

A boot's windows are numbered from 0 without holes, so what is missing is known without anybody saying so. Of each boot
is kept how many windows it is known to have captured, and which of those are not stored, as ranges. A window that
arrives takes its number out of its range, whatever the range was thought to be; so arrival in any order, twice, or
after a report of its loss ends in the same account. What is "on its way", "missing" or lost with a reset is not
written down but follows, when somebody asks, from how far the boot got and whether it has ended.

Everything here is a few rows per window or report, however far apart the numbers in it are: they are a stranger's.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from judder.report import Loss, Report
from judder.schema import MISSING_PER_DEVICE

REASONS = ("dropped", "damaged", "refused", "gone")
OTHER = "other"  # a reason that this version does not know
RESET = "reset"  # the boot is over, and nobody has said what became of it
ASK_AFTER_US = 600_000_000  # since it was found missing; then four times as long as the time before
ASK_DEVICE_AFTER_US = 360_000_000  # between answers that ask: a board heeds one in 300 s
ASK_RANGES = 8  # in one answer
ASK_WINDOWS = 64
_ORDERLY, _SOMEHOW = 2, 1


class Range(NamedTuple):
    """Windows `first` to `last` of a boot."""

    boot: int
    first: int
    last: int


@dataclass(frozen=True)
class Account:
    """Of one boot: captured = stored + on_the_way + missing + all that is lost."""

    device: str
    boot: int
    captured: int
    """As far as is known."""
    stored: int
    on_the_way: int
    """Captured after the newest that is stored, so most likely still to come."""
    missing: int
    """Overtaken by later ones, and nobody has said why."""
    missing_ranges: tuple[tuple[int, int], ...]
    lost: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    ended: bool = False
    tail_unknown: bool = False
    """It ended without saying how many windows it had captured."""
    seen_us: int = 0
    """When something of this boot last arrived; 0: nothing did, others speak of it."""


class Bookkeeper:
    """Keeps the account in `database`, inside a transaction of the caller's."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._execute = database.execute

    def stored(self, device: str, boot: int, sequence: int, now_us: int) -> None:
        """A window has been stored that was not there before."""
        following = self._execute(  # nearly all are: one small write
            "UPDATE boots SET captured = captured + 1, highest = ?3, stored = stored + 1, seen_us = ?4"
            " WHERE device = ?1 AND boot = ?2 AND captured = ?3",
            (device, boot, sequence, now_us),
        )
        if following.rowcount:
            return
        captured = self._captured(device, boot)
        if sequence < captured:
            self._take_out(device, boot, sequence)
        else:
            self._know(device, boot, sequence, now_us)
        self._execute(
            "UPDATE boots SET captured = max(captured, ?3 + 1), highest = max(highest, ?3), stored = stored + 1,"
            " seen_us = ?4 WHERE device = ?1 AND boot = ?2",
            (device, boot, sequence, now_us),
        )

    def reported(self, report: Report, now_us: int) -> None:
        """A report has been stored that was not there before."""
        device = report.device
        self._know(device, report.boot, report.captured or 0, now_us)
        self._execute(
            "UPDATE boots SET seen_us = ?3 WHERE device = ?1 AND boot = ?2",
            (device, report.boot, now_us),
        )
        for boot, sequence in report.persisted or ():
            self._know(device, boot, sequence + 1, now_us)
        if report.previous_boot is not None:
            self._ended(report, report.previous_boot, report.previous_captured, now_us)
        for boot, captured in report.earlier_boots or ():
            self._ended(report, boot, captured, now_us)
        if report.earlier_boots_more:  # which is not known; but all that are heard of are over
            self._execute(
                "UPDATE boots SET ending = max(ending, ?3) WHERE device = ?1 AND boot != ?2",
                (device, report.boot, _SOMEHOW),
            )
        for loss in report.lost:
            self._know(device, loss.boot, loss.last + 1, now_us)
            self._explain(device, loss)

    def ask(self, device: str, sent: Mapping[int, int], now_us: int) -> list[Range]:
        """What to ask the device for again. `sent`: the highest sequence of each boot that it has just sent.

        Only what later windows have overtaken and nobody has explained; what is above `sent` may be the next to come.
        """
        due = self._execute(
            "SELECT boot, first, last FROM missing JOIN boots USING (device, boot)"
            " WHERE device = ? AND reason = '' AND asked < 6"
            " AND asked_us + (? << 2 * asked) <= ? AND last < highest"
            " ORDER BY asked_us, boot, first LIMIT ?",
            (device, ASK_AFTER_US, now_us, 2 * ASK_RANGES),
        ).fetchall()
        if not due or not self._may_ask(device, now_us):
            return []
        asked: list[Range] = []
        room = ASK_WINDOWS
        for boot, first, last in due:
            if first > sent.get(boot, first) or not room or len(asked) == ASK_RANGES:
                continue
            if last - first >= room:
                self._split(device, boot, first + room)  # what is left has its own turn
                last = first + room - 1
            self._execute(
                "UPDATE missing SET asked = asked + 1, asked_us = ? WHERE device = ? AND boot = ? AND first = ?",
                (now_us, device, boot, first),
            )
            asked.append(Range(boot, first, last))
            room -= last - first + 1
        if asked:
            self._execute("UPDATE devices SET asked_us = ? WHERE device = ?", (now_us, device))
        return asked

    def _may_ask(self, device: str, now_us: int) -> bool:
        ((asked_us,),) = self._execute("SELECT asked_us FROM devices WHERE device = ?", (device,))
        return bool(asked_us + ASK_DEVICE_AFTER_US <= now_us)

    def _ended(self, report: Report, boot: int, captured: int | None, now_us: int) -> None:
        """A boot before the report's own is over; it had captured so many windows, or nobody knows how many."""
        if boot == report.boot:
            return
        self._know(report.device, boot, captured or 0, now_us)
        self._execute(
            "UPDATE boots SET ending = max(ending, ?3) WHERE device = ?1 AND boot = ?2",
            (report.device, boot, _SOMEHOW if captured is None else _ORDERLY),
        )

    def _captured(self, device: str, boot: int) -> int:
        """How many windows of a boot are known to have been captured."""
        query = "SELECT captured FROM boots WHERE device = ? AND boot = ?"
        if not (row := self._execute(query, (device, boot)).fetchone()):
            self._execute("INSERT INTO boots (device, boot) VALUES (?, ?)", (device, boot))
            return 0
        return int(row[0])

    def _know(self, device: str, boot: int, captured: int, now_us: int) -> None:
        """At least so many windows have been captured: those that are new here are missing until they arrive."""
        known = self._captured(device, boot)
        if captured <= known:
            return
        newest = self._execute(
            "SELECT first, last, reason FROM missing WHERE device = ? AND boot = ? ORDER BY first DESC LIMIT 1",
            (device, boot),
        ).fetchone()
        if newest and newest[1:] == (known - 1, ""):  # the same range has become longer
            self._end(device, boot, newest[0], captured - 1)
        else:
            self._add(device, boot, known, captured - 1, "", 0, now_us)
        self._execute("UPDATE boots SET captured = ? WHERE device = ? AND boot = ?", (captured, device, boot))

    def _take_out(self, device: str, boot: int, sequence: int) -> None:
        """One that was missing has arrived. It is in no range if there was no room to tell them apart."""
        if not (row := self._containing(device, boot, sequence)):
            return
        first, last, *rest = row
        if first < sequence:
            self._end(device, boot, first, sequence - 1)
            if sequence < last:
                self._add(device, boot, sequence + 1, last, *rest)
        elif sequence < last:
            self._execute(
                "UPDATE missing SET first = first + 1 WHERE device = ? AND boot = ? AND first = ?",
                (device, boot, first),
            )
        else:
            self._execute("DELETE FROM missing WHERE device = ? AND boot = ? AND first = ?", (device, boot, first))
            self._execute("UPDATE devices SET missing = missing - 1 WHERE device = ?", (device,))

    def _explain(self, device: str, loss: Loss) -> None:
        """Give a reason to what is missing in a range. "Gone" only says that it is not there any more."""
        self._split(device, loss.boot, loss.first)
        self._split(device, loss.boot, loss.last + 1)
        reason = loss.reason if loss.reason in REASONS else OTHER
        self._execute(
            "UPDATE missing SET reason = ?1 WHERE device = ?2 AND boot = ?3 AND first BETWEEN ?4 AND ?5"
            " AND last <= ?5 AND (reason = '' OR reason = 'gone' AND ?1 != 'gone')",
            (reason, device, loss.boot, loss.first, loss.last),
        )

    def _split(self, device: str, boot: int, at: int) -> None:
        """Have a range start at `at` if one goes across, and there is room."""
        row = self._containing(device, boot, at)
        if row and row[0] < at:
            first, last, *rest = row
            if self._add(device, boot, at, last, *rest):
                self._end(device, boot, first, at - 1)

    def _containing(self, device: str, boot: int, sequence: int) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._execute(
            "SELECT first, last, reason, asked, asked_us FROM missing"
            " WHERE device = ? AND boot = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (device, boot, sequence),
        ).fetchone()
        return row if row and sequence <= row[1] else None

    def _end(self, device: str, boot: int, first: int, last: int) -> None:
        self._execute(
            "UPDATE missing SET last = ? WHERE device = ? AND boot = ? AND first = ?", (last, device, boot, first)
        )

    def _add(self, device: str, boot: int, first: int, last: int, reason: str, asked: int, asked_us: int) -> bool:
        """Unless the device has too many already: then these windows still count, but without a place of their own."""
        counted = self._execute(
            "INSERT INTO devices (device, missing) VALUES (?1, 1)"
            " ON CONFLICT DO UPDATE SET missing = missing + 1 WHERE missing < ?2",
            (device, MISSING_PER_DEVICE),
        )
        if counted.rowcount:
            self._execute(
                "INSERT INTO missing VALUES (?, ?, ?, ?, ?, ?, ?)", (device, boot, first, last, reason, asked, asked_us)
            )
        return bool(counted.rowcount)


# What a range of missing windows is: a reason, or what follows from how its boot stands.
_STANDING = """CASE WHEN reason != '' THEN reason WHEN ending THEN 'reset' WHEN first > highest THEN 'on the way'
    ELSE 'missing' END"""


def accounts(database: sqlite3.Connection, device: str = "*") -> Iterator[Account]:
    """Of every boot of devices that match, those last heard of last."""
    boots = database.execute(
        "SELECT device, boot, captured, stored, ending, seen_us FROM boots WHERE device GLOB ?"
        " ORDER BY device, seen_us, boot",
        (device,),
    )
    query = (
        f"SELECT first, last, {_STANDING} FROM missing JOIN boots USING (device, boot)"  # noqa: S608  # ours
        " WHERE device = ? AND boot = ? ORDER BY first"
    )
    for name, boot, captured, stored, ending, seen_us in boots.fetchall():
        found = database.execute(query, (name, boot)).fetchall()
        numbers: Counter[str] = Counter()
        for first, last, standing in found:
            numbers[standing] += last - first + 1
        if unplaced := captured - stored - numbers.total():
            numbers[RESET if ending else "missing"] += unplaced
        yield Account(
            device=name,
            boot=boot,
            captured=captured,
            stored=stored,
            on_the_way=numbers.pop("on the way", 0),
            missing=numbers.pop("missing", 0),
            missing_ranges=tuple((first, last) for first, last, standing in found if standing == "missing"),
            lost=dict(numbers),
            ended=bool(ending),
            tail_unknown=ending == _SOMEHOW,
            seen_us=seen_us,
        )


def totals(database: sqlite3.Connection) -> dict[str, int]:
    """Windows of all devices that are not here: by reason, and `missing` and `on the way`."""
    query = f"SELECT {_STANDING}, sum(last - first + 1) FROM missing JOIN boots USING (device, boot) GROUP BY 1"  # noqa: S608
    found: dict[str, int] = dict(database.execute(query))
    absent = database.execute("SELECT ending > 0, sum(captured - stored) FROM boots GROUP BY 1").fetchall()
    placed = dict(
        database.execute(
            "SELECT ending > 0, sum(last - first + 1) FROM missing JOIN boots USING (device, boot) GROUP BY 1"
        )
    )
    for ended, number in absent:
        reason = RESET if ended else "missing"
        found[reason] = found.get(reason, 0) + number - placed.get(ended, 0)
    return found
