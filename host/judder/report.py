"""A report as the host sees it: what a board says about itself (docs/wire-format.md).

The content of a report is JSON that anybody who has the token can send. `parse` takes what the page allows and refuses
the rest with a reason; members that it does not know are kept as they are and mean nothing.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from judder.window import FrameError, unsigned_crc

FIRST_SEQUENCE = 1 << 31
"""Reports count from here, windows from 0: the numbers of windows have no holes."""
LOSSES_LIMIT = 32  # ranges in one report; a board lists 24
EARLIER_BOOTS_LIMIT = 16
BINS_LIMIT = 64
FEATURES_LIMIT = 256
NESTING_LIMIT = 16  # fixed, so that what is JSON here is JSON at any depth of the stack
_COUNT_LIMIT = 1 << 63


@dataclass(frozen=True)
class Loss:
    """Windows `first` to `last` of `boot` will never arrive. For `reason` see docs/wire-format.md."""

    boot: int
    first: int
    last: int
    reason: str


@dataclass(frozen=True, repr=False)
class Report:
    """What a board said of itself at one moment; counts are since its boot. None means that it does not say."""

    device: str
    """DeviceUID of its Notecard."""
    boot: int
    sequence: int
    """2^31 and how many reports of this boot came before."""
    firmware: str
    model: str
    settings: str
    """Hash of the settings that the firmware runs with."""
    label: str
    session: str
    written_at: datetime | None
    """UTC."""
    members: Mapping[str, Any]
    """The whole JSON object, unknown members included."""
    frame: bytes
    """The bytes that it was decoded from."""
    uptime_s: float | None = None
    captured: int | None = None
    """Windows of this boot: their sequences are 0 to captured - 1."""
    waiting: int | None = None
    """Frames that the board still holds, of this and earlier boots."""
    lost: tuple[Loss, ...] = ()
    lost_more: int | None = None
    """Losses for which there was no room in `lost`."""
    skipped: int | None = None
    """Captures that were left out."""
    previous_boot: int | None = None
    previous_captured: int | None = None
    """Windows of the boot before, if it was stopped in an orderly way."""
    earlier_boots: tuple[tuple[int, int | None], ...] | None = None
    """Before `previous_boot`: ended, too, and before a report of theirs had arrived. Each with how many windows it had
    captured, if it was stopped in an orderly way."""
    earlier_boots_more: int | None = None
    """How many such boots there were before those."""
    persisted: tuple[tuple[int, int], ...] | None = None
    """Boot and sequence of the newest window of earlier boots that has been found in flash."""
    reset: str | None = None
    """Why the board started."""
    bus_errors: int | None = None
    retries: int | None = None
    overruns: int | None = None
    samples_lost: int | None = None
    link_failures: int | None = None
    transactions: int | None = None
    posted_bytes: int | None = None
    voltage_v: float | None = None
    temperature_degc: float | None = None
    """Of the Notecard, as are voltage_v, bars, rssi_dbm and card (its firmware)."""
    bars: int | None = None
    rssi_dbm: float | None = None
    card: str | None = None
    heap_free: int | None = None
    """Bytes."""
    scored: int | None = None
    """Windows that the board's model (`model`) has scored, as are all of the following."""
    events: int | None = None
    """Windows with a score, level or kurtosis above its threshold."""
    unsent: int | None = None
    """Windows that were measured, and that the settings did not want sent."""
    unfit: int | None = None
    """Windows that the model could not score, the last one for the reason `unfit_because`."""
    unfit_because: str | None = None
    model_refused: str | None = None
    """Why there is a model on the board that is not used."""
    score_low: float | None = None
    score_step: float | None = None
    scores: tuple[int, ...] | None = None
    """Histogram of all scores: bins of `score_step` from `score_low` on, the outermost ones open."""
    feature_windows: int | None = None
    """How many windows `feature_mean` and `feature_variance` are of: those since the report before."""
    feature_mean: tuple[float, ...] | None = None
    feature_variance: tuple[float, ...] | None = None

    def __repr__(self) -> str:
        return f"<Report {self.boot:08x}:{self.sequence} of {self.device or '?'}>"

    @property
    def crc(self) -> int:
        """CRC-32 of the frame without its signature: tells a repeat from a conflict."""
        return unsigned_crc(self.frame)


def parse(text: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """All members of a report's JSON, and those of `Report` in their types. Raises FrameError."""
    try:
        members = json.loads(text.decode(), parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):  # ValueError: not UTF-8, not JSON, or a number of thousands of digits
        raise FrameError("its content is not JSON in UTF-8") from None
    if not isinstance(members, dict):
        raise FrameError("its content is no JSON object")
    _check_nesting(members)
    typed = {}
    for name, read in _MEMBERS.items():
        if members.get(name) is not None:
            try:
                typed[name] = read(members[name])
            except ValueError as error:
                raise FrameError(f"{name} {error}") from None
    return members, typed


def _finite(digits: str) -> float:
    """Python also reads NaN, and makes infinity of 1e999."""
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{digits} is no number")
    return number


def _check_nesting(members: dict[str, Any]) -> None:
    level: list[Any] = [members]
    for _ in range(NESTING_LIMIT):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise FrameError(f"its content is nested more than {NESTING_LIMIT} deep")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _integer(first: int, last: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not first <= value <= last:  # not isinstance: True is no number here
            raise ValueError(f"is no whole number from {first} to {last}")
        return value

    return read


def _number(value: Any) -> float:
    """Any finite one; whole numbers stay whole."""
    if type(value) not in (int, float) or not -_COUNT_LIMIT < value < _COUNT_LIMIT:
        raise ValueError("is no number, or beyond all bounds")
    number: float = value
    return number


def _real(value: Any) -> float:
    """Any finite one, however large: features have no bounds."""
    if type(value) not in (int, float):
        raise ValueError("is no number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("is beyond all bounds") from None


def _duration(value: Any) -> float:
    if (number := _number(value)) < 0:
        raise ValueError("is negative")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("is no text")
    return value


def _list(limit: int, what: str, read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """At most `limit` of what `read` reads."""

    def read_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > limit:
            raise ValueError(f"is no list of at most {limit} {what}")
        return tuple(map(read, value))

    return read_all


def _key(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("holds something that is no [boot, sequence]")
    return _boot(value[0]), _sequence(value[1])


def _ended_boot(value: Any) -> tuple[int, int | None]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("holds something that is no [boot, captured]")
    return _boot(value[0]), None if value[1] is None else _captured(value[1])


def _loss(value: Any) -> Loss:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("holds something that is no [boot, first, last, reason]")
    loss = Loss(_boot(value[0]), _sequence(value[1]), _sequence(value[2]), _text(value[3]))
    if loss.first > loss.last:
        raise ValueError(f"holds a range that ends before it starts: {loss.first} to {loss.last}")
    return loss


_boot = _integer(0, (1 << 32) - 1)
_sequence = _integer(0, FIRST_SEQUENCE - 1)
_captured = _integer(0, FIRST_SEQUENCE)
_count = _integer(0, _COUNT_LIMIT - 1)

_MEMBERS: dict[str, Callable[[Any], Any]] = {
    "uptime_s": _duration,
    "captured": _captured,
    "waiting": _count,
    "lost": _list(LOSSES_LIMIT, "ranges", _loss),
    "lost_more": _count,
    "skipped": _count,
    "previous_boot": _boot,
    "previous_captured": _captured,
    "earlier_boots": _list(EARLIER_BOOTS_LIMIT, "boots", _ended_boot),
    "earlier_boots_more": _count,
    "persisted": _list(EARLIER_BOOTS_LIMIT, "windows", _key),
    "reset": _text,
    "bus_errors": _count,
    "retries": _count,
    "overruns": _count,
    "samples_lost": _count,
    "link_failures": _count,
    "transactions": _count,
    "posted_bytes": _count,
    "voltage_v": _number,
    "temperature_degc": _number,
    "bars": _integer(-1, 127),
    "rssi_dbm": _number,
    "card": _text,
    "heap_free": _count,
    "scored": _count,
    "events": _count,
    "unsent": _count,
    "unfit": _count,
    "unfit_because": _text,
    "model_refused": _text,
    "score_low": _real,
    "score_step": _real,
    "scores": _list(BINS_LIMIT, "counts", _count),
    "feature_windows": _count,
    "feature_mean": _list(FEATURES_LIMIT, "numbers", _real),
    "feature_variance": _list(FEATURES_LIMIT, "numbers", _real),
}
