"""Blocks that make features of a window, with the numbers that Edge Impulse Studio shows; float64, for the host.

The device's own are `device/node/features.py`; golden windows and tests hold the two together. Formulas:
edgeimpulse/processing-blocks, spectral_analysis versions 2 to 4 (FFT), flatten, raw. Filters and decimation need scipy
and run here only.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
_T = TypeVar("_T")

FLATTENED = ("average", "minimum", "maximum", "rms", "stdev", "skewness", "kurtosis")
LEAST_POWER = 1e-10
"""What the logarithm is taken of where there is less. Edge Impulse: only where there is nothing at all."""
_DECIMATED_BY = 10
_RIPPLE_DB = 0.05


class BlockError(ValueError):
    """A block that is not implemented, or whose parameters contradict each other."""


def compute(blocks: Sequence[Mapping[str, Any]], acceleration: npt.NDArray[Any], rate_hz: float) -> Vector:
    """All features of a window, (n, 3) in m/s2 at `rate_hz` samples per second. Raises BlockError."""
    parts: list[Vector] = []
    for block in blocks:
        compute_axis = _KINDS[_kind(block)]
        axes = [acceleration[:, axis].astype(np.float64) * block.get("scale", 1) for axis in block["axes"]]
        parts += _in_order([compute_axis(block, values, rate_hz) for values in axes])
    return np.concatenate(parts)


def names(blocks: Sequence[Mapping[str, Any]], samples: int, rate_hz: float) -> list[str]:
    """Of each feature, such as `x rms` or `z bin 12`."""
    found: list[str] = []
    for block in blocks:
        of_axis = _NAMES[_kind(block)](block, samples, rate_hz)
        axes = [[[f"{'xyz'[axis]} {name}" for name in part] for part in of_axis] for axis in block["axes"]]
        found += [name for part in _in_order(axes) for name in part]
    return found


def titles(blocks: Sequence[Mapping[str, Any]], samples: int, rate_hz: float) -> list[str]:
    """As `names`, saying which are of what a filter lets through, such as `x rms above 250 Hz`."""
    found: list[str] = []
    for block in blocks:
        of = {"low": " below {:g} Hz", "high": " above {:g} Hz"}.get(block.get("filter", "none"), "")
        found += [name + of.format(block.get("cutoff_hz", 0)) for name in names([block], samples, rate_hz)]
    return found


def _in_order(axes: Sequence[Sequence[_T]]) -> list[_T]:
    """The first part of each axis, then the second of each, if there is one."""
    return [part for parts in zip(*axes, strict=True) for part in parts]


def check(block: Mapping[str, Any]) -> None:
    """Raise BlockError for what is not implemented."""
    if _kind(block) != "spectral":
        return
    points, version = block["fft"], block["version"]
    if version not in (2, 3, 4):
        raise BlockError(f"spectral block version {version} is not implemented (2, 3 and 4 are)")
    if points not in (2**power for power in range(4, 13)):
        raise BlockError(f"FFT of {points} points: a power of two from 16 to 4096")
    first, end = block.get("bins", (1, 1))
    if not 1 <= first <= end <= points // 2 + 1:
        raise BlockError(f"bins {first} to {end} of a spectrum with {points // 2}")
    if block.get("filter", "none") not in ("none", "low", "high"):
        raise BlockError(f"filter {block['filter']} is none of none, low, high")
    if block.get("order", 0) not in (0, 2, 4, 6, 8):
        raise BlockError(f"filter order {block['order']} is none of 0, 2, 4, 6, 8")
    if block.get("decimation", 1) not in (1, 3, 10, 30, 100, 1000):
        raise BlockError(f"decimation {block['decimation']} is none of 1, 3, 10, 30, 100, 1000")


def _kind(block: Mapping[str, Any]) -> str:
    kind: str = block["type"]
    if kind not in _KINDS:
        raise BlockError(f"block {kind} is not implemented ({', '.join(_KINDS)} are)")
    return kind


# --- spectral analysis ------------------------------------------------------------------------------------------------


def bins(block: Mapping[str, Any], rate_hz: float) -> tuple[int, int]:
    """First and behind the last bin that become features; those that a filter takes away do not.

    `bins` of the block says the same for a filter that only leaves bins out: so a device can run it.
    """
    points = block["fft"]
    if "bins" in block:
        return block["bins"][0], block["bins"][1]
    at = min(block.get("cutoff_hz", 0), rate_hz / 2) * points / rate_hz
    if block.get("filter", "none") == "low":
        return 1, int(at + 0.5) + 1
    if block.get("filter", "none") == "high":
        return max(1, int(at - 0.5) + 1), points // 2 + 1
    return 1, points // 2 + 1


def _spectral(block: Mapping[str, Any], values: Vector, rate_hz: float) -> list[Vector]:
    ratio = block.get("decimation", 1)
    values, rate_hz = _decimated(values, ratio), rate_hz / ratio
    filtered = _filtered(block, values, rate_hz)
    parts = [_of_spectrum(block, filtered, bins(block, rate_hz))]
    if block.get("extra_low_freq"):
        low = dict(block, filter="none")
        parts.append(_of_spectrum(low, _decimated(filtered, _DECIMATED_BY), bins(low, rate_hz)))
    return parts


def _of_spectrum(block: Mapping[str, Any], values: Vector, chosen: tuple[int, int]) -> Vector:
    values = _centred(values)
    powers = highest_powers(values, block["fft"], overlap=block["overlap"])
    found = [np.sqrt(np.mean(values**2)), *_shape(values)]
    if block["version"] == 4:
        found += _shape(_centred(powers))
    spectrum = powers[slice(*chosen)]
    if block["log"]:
        spectrum = np.log10(np.maximum(spectrum, LEAST_POWER))
    return np.concatenate((found, spectrum))


def highest_powers(values: Vector, points: int, *, overlap: bool) -> Vector:
    """Of each bin the highest power in any frame of `points` values; the last is filled up with 0."""
    hop = points // 2 if overlap else points
    starts = np.arange(0, len(values), hop)
    padded = np.concatenate((values, np.zeros(points)))
    frames = padded[starts[:, np.newaxis] + np.arange(points)]
    powers: Vector = (np.abs(np.fft.rfft(frames, axis=1)) ** 2 / points).max(axis=0)
    return powers


def _decimated(values: Vector, ratio: int) -> Vector:
    """By 3 and by 10, each step behind a Chebyshev filter that starts in its steady state of the first value."""
    if ratio == 1:
        return values
    from scipy import signal  # large, and only for those who need it

    while ratio > 1:
        step = 3 if ratio % 10 else 10
        sections = signal.cheby1(8, _RIPPLE_DB, 0.8 / step, output="sos")
        state = signal.sosfilt_zi(sections) * values[0]
        values = signal.sosfilt(sections, values, zi=state)[0][::step]
        ratio //= step
    return values


def sections(block: Mapping[str, Any], rate_hz: float) -> Vector | None:
    """Second-order sections (n, 6) of its Butterworth filter; None without one. Order 0 only leaves bins out."""
    if block.get("filter", "none") == "none" or not block.get("order", 0):
        return None
    if block["cutoff_hz"] >= rate_hz / 2:
        raise BlockError(f"cut-off at {block['cutoff_hz']:g} Hz, and the rate is {rate_hz:g} Hz")
    return _butterworth(block["order"], block["cutoff_hz"], block["filter"], rate_hz)


@lru_cache(maxsize=16)
def _butterworth(order: int, cutoff_hz: float, kind: str, rate_hz: float) -> Vector:
    """Designing it takes three times as long as filtering a window."""
    from scipy import signal

    found: Vector = signal.butter(order, cutoff_hz, kind, fs=rate_hz, output="sos")
    return found


def _filtered(block: Mapping[str, Any], values: Vector, rate_hz: float) -> Vector:
    """From a state of zero: gravity is a step for it, unless the block is `centred`, as Edge Impulse's never is."""
    if (of_filter := sections(block, rate_hz)) is None:
        return values
    from scipy import signal

    filtered: Vector = signal.sosfilt(of_filter, _centred(values) if block.get("centred") else values)
    return filtered


def _names_of_spectrum(block: Mapping[str, Any], samples: int, rate_hz: float) -> list[list[str]]:
    first = ["rms", "skewness", "kurtosis"]
    if block["version"] == 4:
        first += ["spectral skewness", "spectral kurtosis"]
    rate_hz /= block.get("decimation", 1)
    found = [first + [f"bin {number}" for number in range(*bins(block, rate_hz))]]
    if block.get("extra_low_freq"):
        found.append([f"low {name}" for name in (*first, *(f"bin {n}" for n in range(1, block["fft"] // 2 + 1)))])
    return found


# --- flatten, raw -----------------------------------------------------------------------------------------------------


def _flatten(block: Mapping[str, Any], values: Vector, rate_hz: float) -> list[Vector]:
    found = (values.mean(), values.min(), values.max(), np.sqrt(np.mean(values**2)), values.std())
    all_of_them = dict(zip(FLATTENED, (*found, *_shape(_centred(values))), strict=True))
    return [np.array([all_of_them[name] for name in FLATTENED if name in block["of"]])]


def _raw(block: Mapping[str, Any], values: Vector, rate_hz: float) -> list[Vector]:
    return [values]


def _centred(values: Vector) -> Vector:
    """Less their mean; exactly 0 for a constant, whatever its mean is rounded to."""
    return np.asarray(values - (values[0] if np.ptp(values) == 0 else values.mean()))


def _shape(centred: Vector) -> list[float]:
    """Skewness and excess kurtosis, biased; those of a constant are 0 and -3."""
    second = np.mean(centred**2)
    if second <= 0:
        return [0.0, -3.0]
    return [float(np.mean(centred**3) / second**1.5), float(np.mean(centred**4) / second**2 - 3)]


_KINDS: dict[str, Callable[[Mapping[str, Any], Vector, float], list[Vector]]] = {
    "spectral": _spectral,
    "flatten": _flatten,
    "raw": _raw,
}
_NAMES: dict[str, Callable[[Mapping[str, Any], int, float], list[list[str]]]] = {
    "spectral": _names_of_spectrum,
    "flatten": lambda block, samples, rate_hz: [[name for name in FLATTENED if name in block["of"]]],
    "raw": lambda block, samples, rate_hz: [[str(number) for number in range(samples)]],
}
