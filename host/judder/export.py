"""Stored windows as files to train from: npz for programs, CSV for everybody."""

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from judder.dataset import category_of, label_of, taken_at
from judder.queue import Queue
from judder.resample import resample
from judder.window import Window


@dataclass(frozen=True)
class Example:
    """A labelled window."""

    window: Window
    label: str
    category: str
    taken: datetime
    acceleration: NDArray[np.float32]
    interval_s: float | None


@dataclass(frozen=True)
class Selection:
    """Which windows, and at which rate. Patterns are as in file names; empty texts and None leave nothing out."""

    device: str = "*"
    label: str = ""
    since: datetime | None = None
    until: datetime | None = None
    flagged: bool = False
    rate_hz: float | None = None
    testing_fraction: float = 0.2
    default_label: str = ""


def examples(
    queue: Queue, selection: Selection, skip: Callable[[str], None] = lambda reason: None
) -> Iterator[Example]:
    """The selected windows, oldest first; `skip` hears why one that fits the selection is left out."""
    rules = queue.labels()
    for stored in queue.stored():
        window = stored.window()
        taken = taken_at(stored, window)
        label = label_of(window, taken, rules, selection.default_label)
        outside = (selection.since and taken < selection.since) or (selection.until and taken >= selection.until)
        if not fnmatchcase(stored.device, selection.device) or outside or selection.label not in ("", label):
            continue
        name = f"{stored.device} {stored.boot:08x}:{stored.sequence}"
        if window.flags and not selection.flagged:
            skip(f"{name} is flagged {window.flags.name}")
            continue
        try:
            acceleration, interval_s = _at_rate(window, selection.rate_hz)
        except ValueError as error:
            skip(f"{name}: {error}")
            continue
        category = category_of(window.device, taken, selection.testing_fraction)
        yield Example(window, label, category, taken, acceleration, interval_s)


def _at_rate(window: Window, rate_hz: float | None) -> tuple[NDArray[np.float32], float | None]:
    if rate_hz is None:
        return window.acceleration, window.interval_s
    if window.interval_s is None:
        raise ValueError("its interval is not known")
    return resample(window.acceleration, window.interval_s, rate_hz), 1 / rate_hz


def write_npz(found: Iterable[Example], path: Path) -> int:
    """Arrays of one length: acceleration (windows, n, 3) in m/s2, and what is known of each window; returns how many.

    After resampling the shortest length is common to all. Raises ValueError when lengths differ otherwise.
    """
    chosen = list(found)
    if not chosen:
        raise ValueError("no window fits the selection: see judder queue status")
    lengths = {len(example.acceleration) for example in chosen}
    if max(lengths) - min(lengths) > 0.2 * max(lengths):
        raise ValueError(f"windows of {min(lengths)} to {max(lengths)} samples do not fit one array: use --csv")
    samples = min(lengths)
    with path.open("wb") as file:  # given a name, numpy would add to it
        np.savez_compressed(
            file,
            acceleration=np.stack([example.acceleration[:samples] for example in chosen]),
            unit="m/s2",
            interval_s=np.array([np.nan if one.interval_s is None else one.interval_s for one in chosen]),
            label=np.array([example.label for example in chosen]),
            category=np.array([example.category for example in chosen]),
            device=np.array([example.window.device for example in chosen]),
            session=np.array([example.window.session for example in chosen]),
            boot=np.array([example.window.boot for example in chosen], np.uint32),
            sequence=np.array([example.window.sequence for example in chosen], np.uint32),
            taken_at=np.array([example.taken.isoformat() for example in chosen]),
            samples_lost=np.array(
                [-1 if one.window.samples_lost is None else one.window.samples_lost for one in chosen]
            ),
            flags=np.array([int(example.window.flags) for example in chosen]),
            full_scale_g=np.array([example.window.full_scale_g or 0 for example in chosen]),  # 0: not known
        )
    return len(chosen)


def write_csv(found: Iterable[Example], path: Path) -> int:
    """One line a sample; returns how many windows that were."""
    number = 0
    with ExitStack() as files:
        out = files.enter_context(path.open("w", newline=""))
        writer = csv.writer(out, lineterminator="\n")
        names = "device boot sequence label category session taken_at time_s x_m_s2 y_m_s2 z_m_s2"
        writer.writerow(names.split())
        for example in found:
            number += 1
            window, interval_s = example.window, example.interval_s
            head = [window.device, f"{window.boot:08x}", window.sequence, example.label, example.category]
            head += [window.session, example.taken.isoformat()]
            for i, row in enumerate(example.acceleration):
                writer.writerow([*head, "" if interval_s is None else f"{i * interval_s:.9f}", *row])
    return number
