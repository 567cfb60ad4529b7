"""Between samples: a band-limited signal's values at any instant, and a window at another rate.

A Kaiser-windowed sinc over the neighbouring samples. At a window's ends, where part of them would lie outside, no
samples are made up: the resampled window is shorter.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

TAPS = 24  # samples used on each side
BETA = 9.0  # Kaiser: what is left of images and aliases is 90 dB down
FARTHEST = 0.2  # relative change of rate that `resample` is made for
BAND = 0.4  # of the lower rate: up to here amplitudes are kept within ERROR
ERROR = 0.005


def interpolate(
    samples: NDArray[np.floating],
    at: FloatArray,
    *,
    cutoff: float = 1.0,
    outside: Literal["wrap", "clip"] = "clip",
) -> FloatArray:
    """Values (m, axes) of `samples` (n, axes) at fractional indices `at` (m,).

    `cutoff` is the highest frequency kept, relative to half the samples' rate. Beyond the ends the samples repeat
    (wrap) or stand still (clip).
    """
    nearest = np.floor(at).astype(np.int64)
    taps = np.arange(1 - TAPS, TAPS + 1)
    distance = (at - nearest)[:, None] - taps
    weights = np.sinc(cutoff * distance) * np.i0(BETA * np.sqrt(np.maximum(0, 1 - (distance / TAPS) ** 2)))
    weights /= weights.sum(axis=1, keepdims=True)
    result: FloatArray = np.einsum("nt,nta->na", weights, samples.take(nearest[:, None] + taps, axis=0, mode=outside))
    return result


def resample(samples: NDArray[np.floating], interval_s: float, rate_hz: float) -> NDArray[np.float32]:
    """Samples (n, axes) taken every `interval_s`, at exactly `rate_hz`; about 2 x TAPS fewer. The first is sample TAPS.

    Raises ValueError when the rates differ too much or too few samples are left.
    """
    step = 1 / (interval_s * rate_hz)  # old samples from one new sample to the next
    if not abs(step - 1) <= FARTHEST:
        raise ValueError(f"{1 / interval_s:.1f} Hz is too far from {rate_hz:g} Hz to resample")
    number = int((len(samples) - 1 - 2 * TAPS) / step) + 1
    if number < 1:
        raise ValueError(f"{len(samples)} samples are too few to resample")
    at: FloatArray = TAPS + np.arange(float(number)) * np.float64(step)
    return interpolate(samples, at, cutoff=min(1.0, 1 / step)).astype(np.float32)
