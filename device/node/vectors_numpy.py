# pyright: reportArgumentType=none, reportAttributeAccessIssue=none, reportCallIssue=none, reportIndexIssue=none
# (typed for two libraries at once)
"""What a model computes on, with numpy or CircuitPython's ulab: float32 vectors, no loop over samples in Python.

ulab's `fft` gives (re, im) where the runtime has no complex numbers, as on the Swan, and numpy's gives one array.
"""

try:
    from ulab import numpy as np  # pyright: ignore[reportMissingImports]

    _FLOAT = np.float
except ImportError:
    import numpy as np

    _FLOAT = np.float32
try:
    from ulab import scipy  # pyright: ignore[reportMissingImports]
except ImportError:  # left out of a build, or a PC, which has time for a loop
    scipy = None


def vector(values):
    return np.array(values, dtype=_FLOAT)


def tensor(data):
    """A float32 vector of little-endian bytes, as every port has them."""
    return np.frombuffer(data, dtype=_FLOAT)


def axis(counts, number, scale):
    """One axis of x, y, z in turn, in m/s2."""
    return np.array(np.frombuffer(counts, dtype=np.int16)[number::3], dtype=_FLOAT) * scale


def mean(values):
    return np.sum(values) / len(values)


def less(values, mean_value):
    return values - mean_value


def filtered(values, sections):
    if scipy is None:
        from node import vectors_plain

        return vector(vectors_plain.filtered(values, sections))
    return scipy.signal.sosfilt(sections, values)


def moments(values):
    """Sums of the second, third and fourth power of values around 0, over their number."""
    squares = values * values
    n = len(values)
    return np.sum(squares) / n, np.sum(squares * values) / n, np.sum(squares * squares) / n


def extremes(values):
    return np.min(values), np.max(values)


def highest_powers(values, points, hop):
    """The highest power of each bin 0 to points/2, of frames of `points` values; the last is filled up with 0.

    (edgeimpulse/processing-blocks:spectral_analysis, "Welch max hold")
    """
    half = points // 2 + 1
    found = np.zeros(half, dtype=_FLOAT)
    room = np.zeros(points, dtype=_FLOAT)
    for start in range(0, len(values), hop):
        frame = values[start : start + points]
        if len(frame) < points:
            room[:] = 0
            room[: len(frame)] = frame
            frame = room
        transformed = np.fft.fft(frame)
        if isinstance(transformed, tuple):
            re, im = transformed[0][:half], transformed[1][:half]
        else:
            re, im = transformed[:half].real, transformed[:half].imag
        found = np.maximum(found, re * re + im * im)
    return found * (1 / points)


def log10(values):
    return np.log10(np.maximum(values, 1e-10))


def joined(parts):
    return np.concatenate(tuple(parts))


def part(values, indices):
    return vector([values[i] for i in indices])


def dense(values, weights, bias):
    """`weights`: row after row, one for each of the outputs."""
    rows = weights.reshape((len(bias), len(values)))
    return np.dot(rows, values.reshape((len(values), 1))).reshape((len(bias),)) + bias


def relu(values):
    return np.maximum(values, 0)


def exp(values):
    return np.exp(values)


def squared_distances(values, centers):
    rows = centers.reshape((len(centers) // len(values), len(values)))
    return [float(np.sum((rows[i] - values) * (rows[i] - values))) for i in range(len(rows))]


def note(values, means, squares, number):
    """Take window `number` into the mean of each feature and the sum of squares around it (Welford)."""
    off = values - means
    means += off * (1 / number)
    squares += off * (values - means)
