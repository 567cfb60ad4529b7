"""Blocks of an impulse that make features of a window, with the numbers that Edge Impulse Studio shows.

Each block is the JSON object of a model file (docs/model-format.md). The formulas are those of
edgeimpulse/processing-blocks (spectral_analysis versions 2 to 4 with FFT, flatten, raw). What this cannot run, as
decimation, is refused when the model is loaded.
"""

import math

from node.vectors import axis, extremes, filtered, highest_powers, joined, less, log10, mean, moments, vector

SPECTRAL_VERSIONS = (2, 3, 4)
FFT_POINTS = (16, 1024)
_FLATTENED = ("average", "minimum", "maximum", "rms", "stdev", "skewness", "kurtosis")


class BlockError(ValueError):
    """A block that this firmware cannot run."""


def check(block):
    """Raise BlockError for what cannot be run here."""
    kind = block["type"]
    if kind not in _BLOCKS:
        raise BlockError("block %s is not implemented" % kind)
    if kind == "spectral":
        points = block["fft"]
        if block["version"] not in SPECTRAL_VERSIONS:
            raise BlockError("spectral block version %d is not implemented" % block["version"])
        if not FFT_POINTS[0] <= points <= FFT_POINTS[1] or points & (points - 1):
            raise BlockError("FFT of %d points: a power of two from %d to %d" % (points, FFT_POINTS[0], FFT_POINTS[1]))
        first, end = block.get("bins", (1, 1))
        if not 1 <= first <= end <= points // 2 + 1:
            raise BlockError("bins %s to %s of %d" % (first, end, points // 2))
        for name, plain in (("decimation", 1), ("extra_low_freq", False)):
            if block.get(name, plain) != plain:
                raise BlockError("%s %s runs on the host only" % (name, block[name]))
        if block.get("filter", "none") != "none" and not ("sections" in block and "bins" in block):
            raise BlockError("filter %s without its sections and bins" % block["filter"])


def compute(blocks, counts, scale):
    """All features of a window: a vector. `scale` is in m/s2 per count."""
    parts = []
    for block in blocks:
        for number in block["axes"]:
            values = axis(counts, number, scale * block.get("scale", 1))
            parts.append(_BLOCKS[block["type"]](block, values))
    return joined(parts)


def _spectral(block, values):
    if "sections" in block:
        values = filtered(_centred(values) if block.get("centred") else values, block["sections"])
    values = _centred(values)
    second, third, fourth = moments(values)
    found = [math.sqrt(second)] + _shape(second, third, fourth)
    points = block["fft"]
    first, end = block.get("bins", (1, points // 2 + 1))
    if first >= end and block["version"] != 4:
        return vector(found)
    powers = highest_powers(values, points, points // 2 if block["overlap"] else points)
    bins = powers[first:end] if first < end else None  # ulab takes an empty vector for one of length 1
    if block["version"] == 4:
        found += _shape(*moments(less(powers, mean(powers))))
    if bins is None:
        return vector(found)
    return joined((vector(found), log10(bins) if block["log"] else bins))


def _flatten(block, values):
    average = mean(values)
    low, high = extremes(values)
    square, _, _ = moments(values)
    second, third, fourth = moments(_centred(values))
    skewness, kurtosis = _shape(second, third, fourth)
    all_of_them = (average, low, high, math.sqrt(square), math.sqrt(second), skewness, kurtosis)
    return vector([all_of_them[i] for i in range(len(_FLATTENED)) if _FLATTENED[i] in block["of"]])


def _raw(block, values):
    return vector(values)  # a copy: the next axis may use its room


def _centred(values):
    """Less their mean; exactly 0 for a constant, whatever its mean is rounded to."""
    low, high = extremes(values)
    return less(values, low if low == high else mean(values))


def _shape(second, third, fourth):
    """Skewness and excess kurtosis from moments around the mean; those of a constant are 0 and -3."""
    if second <= 0:
        return [0.0, -3.0]
    return [third / (second * math.sqrt(second)), fourth / (second * second) - 3]


_BLOCKS = {"spectral": _spectral, "flatten": _flatten, "raw": _raw}
