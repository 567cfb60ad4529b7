"""A window's waveform and spectrum as text, and a histogram: braille dots and blocks, or plain ASCII instead."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from judder.spectrum import amplitude_spectrum, strongest_peak

FloatArray = NDArray[np.float64]

_LABEL = 8  # columns left of the picture
_BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # Unicode 2800: bit of each dot


def waveform(acceleration: NDArray[np.floating], interval_s: float, width: int, height: int, *, plain: bool) -> str:
    """The axis that moves most, mean removed, over time; `width` by `height` characters and a line below."""
    _, _, axis = strongest_peak(acceleration, interval_s)
    signal = np.asarray(acceleration[:, axis], float) - acceleration[:, axis].mean()
    limit = _round_up(float(np.abs(signal).max()))
    columns, rows = _dots(width, height, plain=plain)
    low, high = _extremes(signal, columns)
    picture = _fill(_row(low, -limit, limit, rows), _row(high, -limit, limit, rows), rows)
    lines = _framed(picture, (f"{limit:+.3g}", "0", f"{-limit:+.3g}"), plain=plain)
    return "\n".join(
        [*lines, _scale(f"{'xyz'[axis]} in m/s2, mean removed", f"{len(signal) * interval_s:.3f} s", width)]
    )


def spectrum(acceleration: NDArray[np.floating], interval_s: float, width: int, height: int, *, plain: bool) -> str:
    """Amplitude of the same axis over frequency, up to half the rate."""
    peak_hz, _, axis = strongest_peak(acceleration, interval_s)
    frequencies_hz, amplitude = amplitude_spectrum(acceleration[:, axis], interval_s)
    amplitude[:2] = 0  # what the window function smears of the mean
    limit = _round_up(float(amplitude.max()))
    columns, rows = _dots(width, height, plain=plain)
    _, high = _extremes(amplitude, columns)
    picture = _fill(np.zeros(columns, int), _row(high, 0, limit, rows), rows)
    lines = _framed(picture, (f"{limit:.3g}", "", "0"), plain=plain)
    left = f"amplitude of {'xyz'[axis]} in m/s2, strongest at {peak_hz:.2f} Hz"
    return "\n".join([*lines, _scale(left, f"{frequencies_hz[-1]:.0f} Hz", width)])


def levels(values: Sequence[float], *, plain: bool) -> str:
    """A character a value, from the least to the greatest."""
    steps = "0123456789" if plain else "▁▂▃▄▅▆▇█"
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(steps) - 1) / (high - low) if high > low else 0.0
    return "".join(steps[round((value - low) * scale)] for value in values)


def histogram(
    edges: Sequence[float], counts: Sequence[int], others: Sequence[int], limit: float, width: int, *, plain: bool
) -> str:
    """A line a bin: `counts` filled, `others` lighter behind them; the bin in which `limit` lies says so."""
    filled, lighter = "#." if plain else "█░"
    highest = max(1, *(one + other for one, other in zip(counts, others, strict=True)))
    room = max(8, width - _LABEL - 24)
    lines = []
    for number, (one, other) in enumerate(zip(counts, others, strict=True)):
        low, high = edges[number], edges[number + 1]
        drawn = [-(-count * room // highest) for count in (one, other)]  # one window is seen, too
        bar = filled * drawn[0] + lighter * drawn[1]
        mark = f"< threshold {limit:.2f}" if low <= limit < high else ""
        told = f"{one} {other}" if other else f"{one or ''}"
        lines.append(f"{low:>{_LABEL - 1}.2f} {bar} {told} {mark}".rstrip())
    return "\n".join(lines)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))


def _dots(width: int, height: int, *, plain: bool) -> tuple[int, int]:
    columns = max(8, width - _LABEL)
    return (columns, height) if plain else (2 * columns, 4 * height)


def _extremes(signal: FloatArray, columns: int) -> tuple[FloatArray, FloatArray]:
    """Least and greatest value in each column; between neighbours it is drawn through."""
    edges: FloatArray = np.linspace(0, len(signal) - 1, columns + 1)
    points: FloatArray = np.concatenate((np.arange(len(signal)), edges))
    order = np.argsort(points, kind="stable")
    values = np.interp(points[order], np.arange(len(signal)), signal)
    column = np.searchsorted(edges, points[order], side="right").clip(1, columns) - 1
    low, high = np.full(columns, np.inf), np.full(columns, -np.inf)
    np.minimum.at(low, column, values)
    np.maximum.at(high, column, values)
    return low, high


def _row(values: FloatArray, bottom: float, top: float, rows: int) -> NDArray[np.int64]:
    """Rows counted from the bottom."""
    return np.rint((values - bottom) / (top - bottom) * (rows - 1)).astype(np.int64).clip(0, rows - 1)


def _fill(low: NDArray[np.int64], high: NDArray[np.int64], rows: int) -> NDArray[np.bool_]:
    row = np.arange(rows)[::-1, None]
    return (row >= low) & (row <= high)


def _framed(picture: NDArray[np.bool_], labels: tuple[str, str, str], *, plain: bool) -> list[str]:
    lines = _ascii(picture) if plain else _braille(picture)
    names = {0: labels[0], len(lines) // 2: labels[1], len(lines) - 1: labels[2]}
    return [f"{names.get(i, ''):>{_LABEL - 2}} {'|' if plain else '│'}{line}" for i, line in enumerate(lines)]


def _ascii(picture: NDArray[np.bool_]) -> list[str]:
    return ["".join("#" if dot else " " for dot in row) for row in picture]


def _braille(picture: NDArray[np.bool_]) -> list[str]:
    rows, columns = picture.shape
    cells = picture.reshape(rows // 4, 4, columns // 2, 2)
    codes = 0x2800 + np.einsum("ricj,ij->rc", cells, _BRAILLE)
    return ["".join(map(chr, row)) for row in codes]


def _scale(left: str, right: str, width: int) -> str:
    room = max(1, width - _LABEL - len(left) - len(right))
    return " " * _LABEL + left + " " * room + right
