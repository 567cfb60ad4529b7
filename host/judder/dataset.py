"""From stored windows to training data: which label, which part of the dataset, which project, and what is not fit.

A window that lacks something is held with the reason; nothing is made up for it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal

from judder.edge_impulse import Sample, document, file_name, metadata
from judder.records import LabelRule, Stored
from judder.resample import BAND, ERROR, resample
from judder.window import Window

Category = Literal["training", "testing"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NotFitError(ValueError):
    """The window cannot be delivered as it is; one line says what it lacks."""


@dataclass(frozen=True)
class Project:
    """An Edge Impulse project, and what it wants. `devices` is a pattern as in file names."""

    name: str
    url: str
    api_key: str
    hmac_key: str = ""
    devices: str = "*"
    rate_hz: float | None = None
    tolerance_ppm: float = 500.0
    resample: bool = False
    accept_flagged: bool = False
    testing_fraction: float = 0.2


def taken_at(stored: Stored, window: Window) -> datetime:
    """When it was captured; for one that does not know, when it was received, which does not change either."""
    return window.started_at or _EPOCH + timedelta(microseconds=stored.received_us)


def label_of(window: Window, taken: datetime, rules: Sequence[LabelRule], default: str) -> str:
    """From the window itself, else from the newest rule that fits, else the default, which may be empty."""
    if window.label:
        return window.label
    taken_us = (taken - _EPOCH) // timedelta(microseconds=1)
    for rule in reversed(rules):
        if (
            fnmatchcase(window.device, rule.device)
            and rule.session in ("", window.session)
            and (rule.from_us is None or rule.from_us <= taken_us)
            and (rule.until_us is None or taken_us < rule.until_us)
        ):
            return rule.label
    return default


def device_day(device: str, taken: datetime) -> str:
    """What is kept together when windows are held out."""
    return f"{device} {taken.astimezone(UTC):%Y-%m-%d}"


def category_of(device: str, taken: datetime, testing_fraction: float) -> Category:
    """The same for all windows of a device's day: neighbours in time would leak from training into testing."""
    drawn = int.from_bytes(hashlib.sha256(device_day(device, taken).encode()).digest()[:8], "big") / 2**64
    return "testing" if drawn < testing_fraction else "training"


def project_of(device: str, projects: Sequence[Project]) -> Project | None:
    """The first whose pattern fits."""
    return next((project for project in projects if fnmatchcase(device, project.devices)), None)


def sample_of(stored: Stored, project: Project, rules: Sequence[LabelRule], default_label: str) -> Sample:
    """What `project` is sent of the window: the same bytes at every attempt. Raises NotFitError."""
    window = stored.window()
    taken = taken_at(stored, window)
    label = label_of(window, taken, rules, default_label)
    if not label:
        raise NotFitError("no label: set LABEL on the board, add a rule with judder label, or --default-label")
    if window.interval_s is None:
        raise NotFitError("its interval is not known" + ("" if window.device else ": give --article-interval-ms"))
    if window.flags and not project.accept_flagged:
        raise NotFitError(f"flagged {window.flags.name}")
    known = metadata(window)
    acceleration, interval_s = window.acceleration, window.interval_s
    if project.rate_hz is not None:
        if project.resample:
            try:
                acceleration, interval_s = resample(acceleration, interval_s, project.rate_hz), 1 / project.rate_hz
            except ValueError as error:
                raise NotFitError(str(error)) from None
            known["resampled_to_hz"] = f"{project.rate_hz:g}"
            known["resampling_error"] = f"at most {ERROR:.1%} of amplitudes up to {BAND * project.rate_hz:.0f} Hz"
        elif (off_ppm := abs(1 / interval_s / project.rate_hz - 1) * 1e6) > project.tolerance_ppm:
            raise NotFitError(
                f"measured at {1 / interval_s:.2f} Hz, {off_ppm:.0f} ppm off the project's {project.rate_hz:g} Hz"
            )
    name = file_name(window) if window.device else f"article.{stored.boot:08x}{stored.sequence:08x}.json"
    body = document(acceleration, interval_s, window.device or stored.device, taken, project.hmac_key)
    return Sample(name, category_of(window.device, taken, project.testing_fraction), label, body, known)
