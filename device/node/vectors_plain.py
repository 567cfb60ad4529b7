"""What a model computes on where there is no ulab: arrays of float32, plain loops (see node/vectors_numpy.py)."""

import math
from array import array

_transforms = {}  # by number of points
_axis = array("f")


def vector(values):
    return array("f", values)


def tensor(data):
    """A float32 vector of little-endian bytes, as every port has them."""
    return array("f", data)


def axis(counts, number, scale):
    """In room that the next call uses again: a small heap seldom has such a piece."""
    global _axis
    samples = len(counts) // 3
    if len(_axis) != samples:
        _axis = array("f", bytes(4 * samples))
    for i in range(samples):
        _axis[i] = counts[3 * i + number] * scale
    return _axis


def mean(values):
    return sum(values) / len(values)


def less(values, mean_value):
    for i in range(len(values)):
        values[i] -= mean_value
    return values


def filtered(values, sections):
    """By second-order sections (b0, b1, b2, 1, a1, a2), one after the other, from a state of zero."""
    for b0, b1, b2, _, a1, a2 in sections:
        first = second = 0.0
        for i in range(len(values)):
            x = values[i]
            y = b0 * x + first
            first = b1 * x - a1 * y + second
            second = b2 * x - a2 * y
            values[i] = y
    return values


def moments(values):
    second = third = fourth = 0.0
    for value in values:
        squared = value * value
        second += squared
        third += squared * value
        fourth += squared * squared
    n = len(values)
    return second / n, third / n, fourth / n


def extremes(values):
    return min(values), max(values)


def highest_powers(values, points, hop):
    transform = _transforms.get(points)
    if transform is None:
        transform = _transforms[points] = _Transform(points)
    found = array("f", bytes(4 * (points // 2 + 1)))
    for start in range(0, len(values), hop):
        transform.load(values, start)
        transform.run()
        transform.raise_to(found)
    for k in range(len(found)):
        found[k] /= points
    return found


class _Transform:
    """Fourier transform of `points` real values as one of half as many complex ones."""

    def __init__(self, points):
        half = points // 2
        self._re = array("f", bytes(4 * half))
        self._im = array("f", bytes(4 * half))
        self._cos = array("f", [math.cos(2 * math.pi * k / points) for k in range(half)])
        self._sin = array("f", [math.sin(2 * math.pi * k / points) for k in range(half)])
        self._order = array("H", bytes(2 * half))
        bits = 0
        while 1 << bits < half:
            bits += 1
        for i in range(half):
            for bit in range(bits):
                if i >> bit & 1:
                    self._order[i] |= 1 << (bits - 1 - bit)

    def load(self, values, start):
        re, im = self._re, self._im
        left = len(values) - start
        for i, place in enumerate(self._order):
            re[place] = values[start + 2 * i] if 2 * i < left else 0.0
            im[place] = values[start + 2 * i + 1] if 2 * i + 1 < left else 0.0

    def run(self):
        re, im, cos, sin = self._re, self._im, self._cos, self._sin
        half = len(re)
        span = 1
        while span < half:
            step = half // span  # of the tables, which are those of twice as many points
            for first in range(span):
                c = cos[first * step]
                s = sin[first * step]
                for a in range(first, half, 2 * span):
                    b = a + span
                    x = re[b] * c + im[b] * s
                    y = im[b] * c - re[b] * s
                    re[b] = re[a] - x
                    im[b] = im[a] - y
                    re[a] += x
                    im[a] += y
            span *= 2

    def raise_to(self, found):
        """Raise each of `found` to the power of its bin, if that is higher."""
        re, im, cos, sin = self._re, self._im, self._cos, self._sin
        half = len(re)
        for k in range(half + 1):
            a = k % half
            b = (half - k) % half
            even_re = (re[a] + re[b]) / 2
            even_im = (im[a] - im[b]) / 2
            odd_re = (im[a] + im[b]) / 2
            odd_im = (re[b] - re[a]) / 2
            c = cos[k] if k < half else -1.0
            s = sin[k] if k < half else 0.0
            x = even_re + odd_re * c + odd_im * s
            y = even_im + odd_im * c - odd_re * s
            power = x * x + y * y
            if power > found[k]:
                found[k] = power


def log10(values):
    for i in range(len(values)):
        values[i] = math.log(max(values[i], 1e-10)) / 2.302585092994046
    return values


def joined(parts):
    out = array("f")
    for values in parts:
        out.extend(values)
    return out


def part(values, indices):
    return array("f", [values[i] for i in indices])


def dense(values, weights, bias):
    out = array("f", bias)
    inputs = len(values)
    for i in range(len(out)):
        total = out[i]
        at = i * inputs
        for j in range(inputs):
            total += weights[at + j] * values[j]
        out[i] = total
    return out


def relu(values):
    for i in range(len(values)):
        if values[i] < 0:
            values[i] = 0.0
    return values


def exp(values):
    for i in range(len(values)):
        values[i] = math.exp(values[i])
    return values


def squared_distances(values, centers):
    out = []
    n = len(values)
    for at in range(0, len(centers), n):
        total = 0.0
        for i in range(n):
            distance = values[i] - centers[at + i]
            total += distance * distance
        out.append(total)
    return out


def note(values, means, squares, number):
    """Take window `number` into the mean of each feature and the sum of squares around it (Welford)."""
    for i in range(len(values)):
        off = values[i] - means[i]
        means[i] += off / number
        squares[i] += off * (values[i] - means[i])
