from types import SimpleNamespace

from .numpy import array
from .numpy import float as float32


def _sosfilt(sections, values):
    values = [float(value) for value in values]
    for b0, b1, b2, one, a1, a2 in sections:
        if one != 1:
            raise ValueError("sos[:, 3] should be all ones")
        first = second = 0.0
        for i, x in enumerate(values):
            values[i] = b0 * x + first
            first = b1 * x - a1 * values[i] + second
            second = b2 * x - a2 * values[i]
    return array(values, dtype=float32)


signal = SimpleNamespace(sosfilt=_sosfilt)
