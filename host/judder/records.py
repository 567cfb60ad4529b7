"""What goes into the queue and comes out of it."""

import hashlib
from dataclasses import dataclass
from enum import Enum, StrEnum

from judder.frame import decode, decode_article
from judder.report import Report
from judder.window import Window

ARTICLE_DEVICE = "article"


class Outcome(Enum):
    """What became of one entry."""

    STORED = "stored"
    REPEATED = "repeated"
    CONFLICT = "conflict"


class State(StrEnum):
    """Where a stored window is on its way."""

    WAITING = "waiting"
    HELD = "held"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True)
class Entry:
    """A window to keep, as bytes, or a report. `crc` tells a repeat from a conflict."""

    device: str
    boot: int
    sequence: int
    crc: int
    body: bytes
    article_interval_s: float | None = None
    report: Report | None = None


@dataclass(frozen=True)
class Refused:
    """A body, or a part of one, to keep apart for people to look at."""

    reason: str
    body: bytes


@dataclass(frozen=True)
class Stored:
    """A window in the store; `number` is what the verbs call it by."""

    number: int
    device: str
    boot: int
    sequence: int
    received_us: int
    article_interval_s: float | None
    state: State
    reason: str
    body: bytes

    def window(self) -> Window:
        """Decode it."""
        if self.device == ARTICLE_DEVICE:
            return decode_article(self.body, self.article_interval_s)
        return decode(self.body)[0]


@dataclass(frozen=True)
class LabelRule:
    """Windows of `device` (a pattern as in file names) and `session` (any if empty) taken in a time are `label`."""

    label: str
    device: str = "*"
    session: str = ""
    from_us: int | None = None
    until_us: int | None = None


def entry(found: Window | Report) -> Entry:
    """The entry of a decoded frame."""
    report = found if isinstance(found, Report) else None
    return Entry(found.device, found.boot, found.sequence, found.crc, found.frame, report=report)


def article_entry(window: Window) -> Entry:
    """The entry of an article's stream, which has no identity of its own: a hash of its bytes stands in."""
    digest = hashlib.sha256(window.frame).digest()
    boot, sequence, crc = (int.from_bytes(digest[at : at + 4], "big") for at in (0, 4, 8))
    return Entry(ARTICLE_DEVICE, boot, sequence, crc, window.frame, window.interval_s)
