"""Recorded windows to train on or to score, from whatever they are kept in: an export, files of frames, the store."""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judder.export import Example, Selection
from judder.frame import decode_frames
from judder.window import FrameError, Window


class RecordedError(ValueError):
    """A file that holds no windows, in a line."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """A window and what is known of it; None and empty texts mean not known."""

    name: str
    """Which it is, for people."""
    device: str
    label: str
    taken: datetime | None
    acceleration: NDArray[np.floating[Any]]
    """Shape (n, 3) in m/s2."""
    interval_s: float | None
    full_scale_g: int | None
    flags: int


def from_files(paths: Sequence[Path], selection: Selection) -> list[Recorded]:
    """Those selected of exports (npz) and files of frames. Raises RecordedError."""
    found = [one for path in paths for one in (_from_npz(path) if zipfile.is_zipfile(path) else _from_frames(path))]
    return [one for one in found if _is_selected(one, selection)]


def from_examples(examples: Iterable[Example]) -> Iterator[Recorded]:
    """Of the store, as `judder export` selects them."""
    for one in examples:
        yield of_window(one.window, one.label, one.taken, one.acceleration, one.interval_s)


def _is_selected(one: Recorded, selection: Selection) -> bool:
    """As `judder.export.examples` does it; a time that is not known lies outside of any limit."""
    if not fnmatchcase(one.device, selection.device) or selection.label not in ("", one.label):
        return False
    if one.taken is None:
        return not (selection.since or selection.until)
    early = selection.since is not None and one.taken < selection.since
    return not early and (selection.until is None or one.taken < selection.until)


def of_window(
    window: Window,
    label: str,
    taken: datetime | None,
    acceleration: NDArray[np.float32],
    interval_s: float | None,
) -> Recorded:
    """A stored window under a label; acceleration and interval may be resampled ones."""
    name = f"{window.boot:08x}:{window.sequence}"
    full_scale_g = window.full_scale_g
    return Recorded(name, window.device, label, taken, acceleration, interval_s, full_scale_g, int(window.flags))


def _from_frames(path: Path) -> list[Recorded]:
    try:
        items = list(decode_frames(path.read_bytes()))
    except OSError as error:
        raise RecordedError(f"{path}: {error.strerror}") from None
    found = [item for item in items if isinstance(item, Window)]
    if not found:
        refused = next((item.reason for item in items if isinstance(item, FrameError)), "reports only")
        raise RecordedError(f"{path}: no window in it ({refused}); give frames, or an npz of judder export")
    return [of_window(one, one.label, one.started_at, one.acceleration, one.interval_s) for one in found]


def _from_npz(path: Path) -> list[Recorded]:
    """Of judder export, whichever version wrote it, or of judder decode, which says less of each window."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _of_arrays(path, {name: arrays[name] for name in arrays.files})
    except OSError as error:
        raise RecordedError(f"{path}: {error.strerror or error}") from None
    except RecordedError:
        raise
    except Exception as error:  # noqa: BLE001  # numpy reads headers with Python's own parser, which raises anything
        raise RecordedError(f"{path}: not an npz of judder export ({error})") from None


def _of_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> list[Recorded]:
    acceleration, interval_s = arrays["acceleration"], np.atleast_1d(arrays["interval_s"])
    if acceleration.ndim == 2:
        acceleration = acceleration[np.newaxis]
    number = len(acceleration)
    if acceleration.ndim != 3 or acceleration.shape[2] != 3 or not np.issubdtype(acceleration.dtype, np.floating):
        raise RecordedError(
            f"{path}: acceleration is {acceleration.dtype} of shape {acceleration.shape}, not (k, n, 3)"
        )
    if (unit := str(arrays.get("unit", "m/s2"))) != "m/s2":
        raise RecordedError(f"{path}: acceleration is in {unit}, not in m/s2")

    def column(name: str, default: object) -> list[Any]:
        found = arrays.get(name)
        if found is None:
            return [default] * number
        if found.shape != (number,):
            raise RecordedError(f"{path}: {name} is of shape {found.shape}, for {number} windows")
        values: list[Any] = found.tolist()
        return values

    if len(interval_s) != number:
        raise RecordedError(f"{path}: {len(interval_s)} intervals for {number} windows")
    boots, sequences = column("boot", 0), column("sequence", None)
    return [
        Recorded(
            name=f"{boot:08x}:{sequence}" if sequence is not None else f"window {place}",
            device=str(device),
            label=str(label),
            taken=_time(str(taken)),
            acceleration=acceleration[place],
            interval_s=float(interval_s[place]) if 0 < interval_s[place] < np.inf else None,
            full_scale_g=int(full_scale_g) or None,
            flags=int(flags),
        )
        for place, (boot, sequence, device, label, taken, full_scale_g, flags) in enumerate(
            zip(
                boots,
                sequences,
                column("device", ""),
                column("label", ""),
                column("taken_at", ""),
                column("full_scale_g", 0),
                column("flags", 0),
                strict=True,
            )
        )
    ]


def _time(text: str) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
