"""A model: what training produced, as one file of data, and the scores that it gives to a window.

The file (docs/model-format.md) holds an impulse: blocks that make features, dense layers that make class
probabilities of them, clusters that make an anomaly score; and one window with the features and scores that are
expected of it. A model is only used when those come out here, too. It holds no code.
"""

import json
import struct
from array import array
from binascii import crc32

from node import features
from node.frame import CLASS_BYTES
from node.vectors import dense, exp, extremes, less, part, relu, squared_distances, tensor, vector

MAGIC = b"VM\xc1\x7f"
VERSION = 1
HEADER = "<4sBBHII"
HEADER_LENGTH = 16
PIECE_BYTES = 1024
AXES = ["x", "y", "z"]
UNITS = "m/s2"
TOLERANCE = 1e-3  # of features and scores, relative to those above 1
RATE_TOLERANCE_PERCENT = 10  # parts are 2 to 5 off nominal, and training has seen some of them
FAR = 1000.0  # where Edge Impulse's search for the nearest cluster starts


class ModelError(ValueError):
    """A model that cannot be used, and why."""


class Scores:
    """Of a window. `anomaly`: None without clusters; `class_name`, `probability`: "" and None without a classifier."""

    def __init__(self, features_found, anomaly, classes, probabilities):
        self.features = features_found
        self.anomaly = anomaly
        self.probabilities = probabilities
        self.class_name = ""
        self.probability = None
        for i, probability in enumerate(probabilities):
            if self.probability is None or probability > self.probability:
                self.class_name, self.probability = classes[i], probability


class Model:
    """Of a file, open in binary. Raises ModelError when it is damaged, of a later version, or not for this runtime."""

    def __init__(self, file):
        length, checksum = _check(file)
        self.id = "%08x" % checksum
        content = _content(file)
        try:
            self._take(content)
            self._read(file, content, length)
        except features.BlockError as error:
            raise ModelError("this firmware cannot run it: %s" % error)
        except ModelError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ModelError("its content is not that of a model: %r" % (error,))

    def _take(self, content):
        self.name = content["name"]
        self.samples, self.interval_s, self.full_scale_g = _kind_of_window(content)
        self.classes = content["classes"]
        self.normal = content["normal"]
        self.class_threshold = _finite(content["threshold"])
        self.anomaly_threshold = self.anomaly_spread = None
        if content["clustered"]:
            self.anomaly_threshold = _finite(content["anomaly_threshold"])
            self.anomaly_spread = _finite(content["anomaly_spread"])
        if not (isinstance(self.classes, list) and isinstance(self.normal, list)):
            raise ModelError("its content is not that of a model: classes")
        if any(len(name.encode()) >= CLASS_BYTES for name in self.classes):
            raise ModelError("the name of a class takes more than %d bytes" % (CLASS_BYTES - 1))
        if content["axes"] != AXES or content["units"] != UNITS:
            raise ModelError("it is for axes %s in %s" % (content["axes"], content["units"]))
        self._blocks = content["blocks"]
        for block in self._blocks:
            features.check(block)
        self._clustered = content["clustered"]  # indices of features

    def _read(self, file, content, length):
        """The tensors, one by one: at no time is there the whole file."""

        def piece(offset, size):
            if not HEADER_LENGTH <= offset <= offset + size <= length:
                raise ValueError("a tensor outside the file")
            file.seek(offset)
            return file.read(size)

        def read(name):
            offset, count = content["tensors"][name]
            return tensor(piece(offset, 4 * count))

        self._layers = [
            (read("weights%d" % i), read("bias%d" % i), activation) for i, activation in enumerate(content["layers"])
        ]
        if self._clustered:
            self._clusters = [read(name) for name in ("mean", "scale", "centers", "reach")]
            self._projection = read("projection") if "projection" in content["tensors"] else None
        self._expected = read("golden")
        golden = content["golden"]
        self._golden = array("h", piece(golden["offset"], 6 * golden["samples"])), golden["scale"]

    def unfit(self, samples, interval_s, full_scale_g):
        """Why a window is not like those that the model was trained on; None when it is."""
        if samples != self.samples:
            return "trained on %d samples, this window has %d" % (self.samples, samples)
        if not interval_s:
            return "the window's interval is not known"
        if abs(interval_s / self.interval_s - 1) * 100 > RATE_TOLERANCE_PERCENT:
            return "trained at %d Hz, this window has %d Hz" % (1 / self.interval_s + 0.5, 1 / interval_s + 0.5)
        if self.full_scale_g and full_scale_g != self.full_scale_g:
            return "trained at +-%d g, this window has +-%d g" % (self.full_scale_g, full_scale_g)
        return None

    def score(self, counts, scale):
        """Scores of a window: an array of counts of x, y, z in turn, `scale` in m/s2 per count."""
        found = features.compute(self._blocks, counts, scale)
        return Scores(found, self._distance(found), self.classes, self._classify(found))

    def prove(self):
        """Raise ModelError unless the golden window gives what is expected. Once: it is gone then."""
        (counts, scale), expected = self._golden, self._expected
        del self._golden, self._expected
        try:
            scores = self.score(counts, scale)
        except MemoryError:
            raise
        except Exception as error:  # whatever a file may say that contradicts itself
            raise ModelError("its golden window cannot be scored: %r" % (error,))
        found = [float(value) for value in scores.features] + scores.probabilities
        if scores.anomaly is not None:
            found.append(scores.anomaly)
        if len(found) != len(expected):
            raise ModelError("it gives %d numbers and should give %d" % (len(found), len(expected)))
        for i, wanted in enumerate(expected):
            if not abs(found[i] - wanted) <= TOLERANCE * max(1, abs(wanted)):  # so that NaN is none either
                raise ModelError("number %d of its golden window is %g, should be %g" % (i, found[i], wanted))

    def _classify(self, values):
        if not self._layers:
            return []
        for weights, bias, activation in self._layers:
            values = dense(values, weights, bias)
            if activation == "relu":
                values = relu(values)
        raised = [float(value) for value in exp(less(values, extremes(values)[1]))]  # pyright: ignore
        total = sum(raised)
        return [value / total for value in raised]

    def _distance(self, values):
        """From the edge of the nearest cluster, in standard deviations.

        (edgeimpulse/inferencing-sdk-cpp:classifier/inferencing_engines/anomaly.h)
        """
        if not self._clustered:
            return None
        mean, scale, centers, reach = self._clusters
        chosen = part(values, self._clustered)
        for i in range(len(chosen)):
            chosen[i] = (chosen[i] - mean[i]) / scale[i]
        if self._projection is not None:
            chosen = dense(chosen, self._projection, vector([0] * (len(self._projection) // len(chosen))))
        nearest = FAR
        for i, squared in enumerate(squared_distances(chosen, centers)):
            nearest = min(nearest, squared**0.5 - float(reach[i]))
        return nearest


def _kind_of_window(content):
    """Samples, interval and full scale of the windows that it is for."""
    samples, interval_s, full_scale_g = content["samples"], content["interval_s"], content["full_scale_g"]
    possible = isinstance(samples, int) and 0 < samples < 65536
    possible = possible and isinstance(interval_s, (int, float)) and 1e-6 < interval_s < 1000
    if not possible or not (full_scale_g is None or isinstance(full_scale_g, int)):
        raise ModelError("no window would fit it: %s samples, %s s, %s g" % (samples, interval_s, full_scale_g))
    return samples, interval_s, full_scale_g


def _finite(value):
    """A number that reports and comparisons can do with."""
    value = float(value)
    if not -1e9 < value < 1e9:
        raise ValueError("a threshold of %r" % value)
    return value


def _check(file):
    """Length and checksum of a model file that is whole."""
    header = file.read(HEADER_LENGTH)
    if len(header) < HEADER_LENGTH or header[:4] != MAGIC:
        raise ModelError("it is no model file")
    version, length = header[4], struct.unpack_from(HEADER, header)[4]
    if version != VERSION:
        raise ModelError("it is of version %d; this firmware reads version %d" % (version, VERSION))
    there = file.seek(0, 2)
    if length != there or length < HEADER_LENGTH + 4:
        raise ModelError("%d of its %d bytes are there" % (there, length))
    file.seek(0)
    found = 0
    left = length - 4
    while left:
        piece = file.read(min(left, PIECE_BYTES))
        found = crc32(piece, found)
        left -= len(piece)
    (checksum,) = struct.unpack("<I", file.read(4))
    if found & 0xFFFFFFFF != checksum:
        raise ModelError("it is damaged: its checksum is wrong")
    return length, checksum


def _content(file):
    """The JSON behind the header."""
    file.seek(0)
    json_length = struct.unpack_from(HEADER, file.read(HEADER_LENGTH))[5]
    try:
        return json.loads(file.read(json_length).decode())
    except ValueError:  # not UTF-8 either
        raise ModelError("it is damaged: its content is no JSON")
