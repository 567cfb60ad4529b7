"""A recording played into the emulated sensor as continuous acceleration, over and over.

The recording is filtered as the sensor's own chain would filter it, then evaluated between its samples by a windowed
sinc. So what the chip sees is what it would have seen on that machine: content above half its rate folds down exactly
as far as its filter lets it through, and nothing is invented above half the recording's own rate.

CSV: a header line with columns x, y and z, plain or with their unit (x_g, x_mg, x_m_s2), others are ignored; the rate
from a column time_s or a line `# rate_hz: 6400`. npz: acceleration (n, 3), rate_hz or interval_s, unit. WAV: three
channels of PCM, their rate from the file. What the file does not say is given with the call.
"""

import csv
import re
import wave
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from judder.emulator.lis3dh import Response
from judder.resample import interpolate
from judder.window import STANDARD_GRAVITY

FloatArray = NDArray[np.float64]

G_PER_UNIT = {"g": 1.0, "mg": 1e-3, "m/s2": 1 / STANDARD_GRAVITY}
UNITS = "g, mg or m/s2"
FASTEST_HZ = 1e7
STRONGEST_G = 1e5
SHORTEST = 64  # samples: room for the interpolation's taps
UNEVEN = 0.4  # of the interval, by which time_s may be off; one sample missing makes it 0.5 somewhere
DIFFERS = 0.01  # of the rate
_SUFFIXES = {"_g": "g", "_mg": "mg", "_m_s2": "m/s2"}
_RATE_LINE = re.compile(r"#\s*rate_hz\s*[:=]\s*(\S+)")


class RecordingError(ValueError):
    """The file cannot be played; one line says which, why, and what it should be like."""


class Recording:
    """Samples in g, shape (n, 3), taken `rate_hz` times a second; `name` is for people."""

    def __init__(self, samples_g: FloatArray, rate_hz: float, name: str = "") -> None:
        if len(samples_g) < SHORTEST:
            raise RecordingError(f"{name}: {len(samples_g)} samples are too few: give {SHORTEST} or more")
        if not np.isfinite(samples_g).all():
            row = int(np.argmin(np.isfinite(samples_g).all(axis=1)))
            raise RecordingError(f"{name}: sample {row} is not a finite number")
        if not 0 < rate_hz <= FASTEST_HZ:
            raise RecordingError(f"{name}: the rate is {rate_hz:g} Hz; it must be above 0 and at most {FASTEST_HZ:g}")
        if np.abs(samples_g).max() > STRONGEST_G:
            raise RecordingError(f"{name}: {np.abs(samples_g).max():.3g} g is no acceleration: is the unit right?")
        self.samples_g = samples_g
        self.rate_hz = rate_hz
        self.name = name
        self._filtered = lru_cache(maxsize=4)(self._filter)

    @classmethod
    def load(cls, path: Path, unit: str | None = None, rate_hz: float | None = None) -> Self:
        """Read a CSV, npz or WAV file. Raises RecordingError."""
        readers = {".csv": _read_csv, ".npz": _read_npz, ".wav": _read_wav}
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise RecordingError(f"{path}: unknown kind of file; give .csv, .npz or .wav")
        if rate_hz is not None and not 0 < rate_hz <= FASTEST_HZ:
            raise RecordingError(f"--replay-rate-hz {rate_hz:g}: it must be above 0 and at most {FASTEST_HZ:g}")
        try:
            samples_g, its_rate_hz = reader(path, unit)
        except RecordingError:
            raise
        except OSError as error:
            raise RecordingError(f"{path}: {error.strerror or error}") from None
        except (ValueError, TypeError, csv.Error) as error:
            raise RecordingError(f"{path} cannot be read: {str(error).splitlines()[0][:120]}") from None
        if its_rate_hz is not None and rate_hz is not None and abs(its_rate_hz / rate_hz - 1) > DIFFERS:
            raise RecordingError(f"{path} says {its_rate_hz:g} Hz, --replay-rate-hz {rate_hz:g}: leave that out")
        rate_hz = rate_hz if its_rate_hz is None else its_rate_hz
        if rate_hz is None:
            raise RecordingError(
                f"{path} does not say its rate: add a column time_s, a line `# rate_hz: 6400`, or give --replay-rate-hz"
            )
        return cls(samples_g, rate_hz, str(path))

    def acceleration(self, times_s: FloatArray, response: Response) -> FloatArray:
        """Acceleration in g, shape (n, 3), after a filter of magnitude `response(f_hz)`."""
        return interpolate(self._filtered(response), times_s * self.rate_hz, outside="wrap")

    def _filter(self, response: Response) -> FloatArray:
        spectrum = np.fft.rfft(self.samples_g, axis=0)
        spectrum *= response(np.arange(len(spectrum)) * self.rate_hz / len(self.samples_g))[:, None]
        result: FloatArray = np.fft.irfft(spectrum, len(self.samples_g), axis=0)
        return result


def _scale(path: Path, unit: str | None) -> float:
    if unit is None:
        raise RecordingError(
            f"{path} does not say its unit: name the columns x_g, x_mg or x_m_s2, or give --replay-unit"
        )
    if unit not in G_PER_UNIT:
        raise RecordingError(f"{path}: unit {unit!r} is unknown; give {UNITS}")
    return G_PER_UNIT[unit]


# --- CSV --------------------------------------------------------------------------------------------------------------


def _read_csv(path: Path, unit: str | None) -> tuple[FloatArray, float | None]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise RecordingError(f"{path} is not a text file") from None
    said_hz = None
    first = 0
    while first < len(lines) and (lines[first].startswith("#") or not lines[first].strip()):
        if match := _RATE_LINE.match(lines[first]):
            said_hz = _number(match[1], f"{path}, line {first + 1}: rate_hz")
        first += 1
    if first == len(lines):
        raise RecordingError(f"{path} is empty: give a header line and one line a sample")
    header = [name.strip() for name in next(csv.reader([lines[first]]))]
    axes, its_unit = _axes(path, header)
    columns = axes + ([header.index("time_s")] if "time_s" in header else [])
    values = _values(path, lines, first, columns)
    rate_hz = said_hz
    if len(columns) == 4:
        rate_hz = _rate_hz(path, values[:, 3])
        if said_hz is not None and not abs(said_hz - rate_hz) <= DIFFERS * rate_hz:
            raise RecordingError(f"{path} says {said_hz:g} Hz, its time_s {rate_hz:g} Hz: remove what is wrong")
    if its_unit and unit and its_unit != unit:
        raise RecordingError(f"{path} is in {its_unit}, --replay-unit says {unit}: leave that out")
    return values[:, :3] * _scale(path, its_unit or unit), rate_hz


def _axes(path: Path, header: list[str]) -> tuple[list[int], str | None]:
    """Columns of x, y and z, and their unit if they say one."""
    for suffix, unit in (*_SUFFIXES.items(), ("", None)):
        names = [axis + suffix for axis in "xyz"]
        if all(name in header for name in names):
            return [header.index(name) for name in names], unit
    raise RecordingError(
        f"{path} has columns {', '.join(header)[:80]}: it needs x, y and z, all as x, x_g, x_mg or all as x_m_s2"
    )


def _values(path: Path, lines: list[str], first: int, columns: list[int]) -> FloatArray:
    rows: list[list[float]] = []
    for number, row in enumerate(csv.reader(lines[first + 1 :]), first + 2):
        if not row:
            continue
        if len(row) <= max(columns):
            raise RecordingError(f"{path}, line {number}: {len(row)} columns, the header has more")
        rows.append([_number(row[column], f"{path}, line {number}") for column in columns])
    return np.array(rows, float).reshape(-1, len(columns))


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecordingError(f"{where}: {text.strip()[:40]!r} is not a number") from None


def _rate_hz(path: Path, times_s: FloatArray) -> float:
    steps_s = np.diff(times_s)
    if not steps_s.size or not np.isfinite(times_s).all():
        raise RecordingError(f"{path}: time_s has to be a number on every line")
    interval_s = (times_s[-1] - times_s[0]) / steps_s.size
    # written with few digits, neighbours differ by a digit; what counts is that the samples do not leave their places
    off = np.abs(times_s - times_s[0] - interval_s * np.arange(times_s.size))
    if interval_s <= 0 or steps_s.min() <= 0 or off.max() > UNEVEN * interval_s:
        raise RecordingError(
            f"{path}: time_s is not evenly spaced ({steps_s.min():g} to {steps_s.max():g} s): resample it first"
        )
    return float(1 / interval_s)


# --- npz and WAV ------------------------------------------------------------------------------------------------------


def _read_npz(path: Path, unit: str | None) -> tuple[FloatArray, float | None]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (ValueError, zipfile.BadZipFile, EOFError):
        raise RecordingError(f"{path} is no npz file of plain arrays") from None
    samples = found.get("acceleration")
    if samples is None or samples.ndim != 2 or samples.shape[1] != 3 or samples.dtype.kind not in "fiu":
        held = ", ".join(f"{name} {array.shape}" for name, array in found.items()) or "nothing"
        raise RecordingError(f"{path} holds {held[:120]}: it needs an array acceleration of shape (n, 3)")
    rate_hz = None
    if "rate_hz" in found:
        rate_hz = _number(str(found["rate_hz"]), f"{path}: rate_hz")
    elif "interval_s" in found:
        interval_s = _number(str(found["interval_s"]), f"{path}: interval_s")
        if not interval_s > 0:
            raise RecordingError(f"{path}: interval_s is {interval_s:g}; it must be above 0")
        rate_hz = 1 / interval_s
    its_unit = str(found["unit"]) if "unit" in found else unit
    return samples.astype(float) * _scale(path, its_unit), rate_hz


def _read_wav(path: Path, unit: str | None) -> tuple[FloatArray, float | None]:
    """`unit` is the acceleration of full scale: 2g, 19.6m/s2."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate_hz = file.getnchannels(), file.getsampwidth(), file.getframerate()
            data = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise RecordingError(f"{path} is no PCM WAV file: {error}") from None
    if channels != 3 or width not in (2, 3, 4):
        raise RecordingError(
            f"{path} has {channels} channels of {8 * width} bits: it needs three (x, y, z) of 16, 24 or 32"
        )
    match = re.fullmatch(r"([\d.]+)\s*(g|mg|m/s2)", unit or "")
    if not match:
        raise RecordingError(f"{path}: say what full scale means with --replay-unit, as in 2g or 19.6m/s2")
    full_scale_g = _number(match[1], f"{path}: --replay-unit") * G_PER_UNIT[match[2]]
    if not full_scale_g > 0:
        raise RecordingError(f"{path}: --replay-unit {unit}: full scale must be above 0")
    data = data[: len(data) // (3 * width) * 3 * width]  # a recorder that was switched off leaves a part of a sample
    padded = np.zeros((len(data) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    samples = padded.view("<i4").reshape(-1, 3)
    return samples * (full_scale_g / 2**31), float(rate_hz)
