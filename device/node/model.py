"""A model: what training produced, as one file of data, and the scores that it gives to a window.

The file (docs/model-format.md) holds an impulse: blocks that make features, dense layers that make class
probabilities of them, clusters that make an anomaly score; and one window with the features and scores expected of it.
A model is only used when those come out here, too. It holds no code.
"""

import json
import struct
from binascii import crc32

from node import features
from node.vectors import dense, exp, extremes, less, part, relu, squared_distances, tensor

MAGIC = b"VM\xc1\x7f"
VERSION = 1
HEADER = "<4sBBHIII"
HEADER_LENGTH = 20
TOLERANCE = 1e-3  # of features and scores, relative to those above 1
RATE_TOLERANCE_PERCENT = 10  # parts are 2 to 5 off nominal, and training has seen some of them
FAR = 1000.0  # where Edge Impulse's search for the nearest cluster starts


class ModelError(ValueError):
    """A model that cannot be used, and why."""


class Scores:
    """`probabilities` by class, [] without classifier; `anomaly`, None without clusters; `event`: beyond a threshold."""

    def __init__(self, features_of_it, probabilities, anomaly):
        self.features = features_of_it
        self.probabilities = probabilities
        self.anomaly = anomaly


class Model:
    """Of the bytes of a file. Raises ModelError when it is damaged, of a later version, or not for this runtime."""

    def __init__(self, data):
        self._data = data
        self._content = _content(data)
        self.id = "%08x" % struct.unpack_from("<I", data, len(data) - 4)[0]
        for name in ("name", "samples", "interval_s", "blocks"):
            setattr(self, name, self._content[name])
        self.full_scale_g = self._content.get("full_scale_g")
        self.classifier = self._content.get("classifier")
        self.anomaly = self._content.get("anomaly")
        for block in self.blocks:
            try:
                features.check(block)
            except features.BlockError as error:
                raise ModelError("model %s: %s" % (self.name, error))

    def unfit(self, samples, interval_s, full_scale_g):
        """Why a window is not what the model was trained on; None when it is."""
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
        """Scores of a window: counts of x, y, z in turn, `scale` in m/s2 per count."""
        found = features.compute(self.blocks, counts, scale)
        return Scores(found, self._classify(found), self._distance(found))

    def prove(self):
        """Raise ModelError unless the golden window's features and scores come out as expected."""
        golden = self._content["golden"]
        scores = self.score(memoryview(self._data)[golden["offset"] :][: 6 * golden["samples"]], golden["scale"])
        self._compare("feature", scores.features, self._tensor("golden_features"))
        if self.classifier:
            self._compare("probability", scores.probabilities, self._tensor("golden_probabilities"))
        if self.anomaly:
            self._compare("anomaly score", [scores.anomaly], [golden["anomaly"]])

    def _compare(self, what, found, expected):
        if len(found) != len(expected):
            raise ModelError("model %s: %d %ss instead of %d" % (self.name, len(found), what, len(expected)))
        for i in range(len(expected)):
            if not abs(found[i] - expected[i]) <= TOLERANCE * max(1, abs(expected[i])):  # not: NaN
                raise ModelError(
                    "model %s: %s %d of its golden window is %g here and was %g in training"
                    % (self.name, what, i, found[i], expected[i])
                )

    def _tensor(self, name):
        offset, count = self._content["tensors"][name]
        return tensor(self._data, offset, count)

    def _classify(self, values):
        if not self.classifier:
            return []
        for i, activation in enumerate(self.classifier["activations"]):
            values = dense(values, self._tensor("w%d" % i), self._tensor("b%d" % i))
            if activation == "relu":
                values = relu(values)
        values = exp(less(values, extremes(values)[1]))
        total = sum(values)
        return [float(value / total) for value in values]

    def _distance(self, values):
        """From the nearest cluster's edge, in standard deviations (edgeimpulse/inferencing-sdk-cpp:anomaly.h)."""
        if not self.anomaly:
            return None
        spread = self._tensor("spread")
        values = part(values, self.anomaly["features"])
        values = [(values[i] - self._tensor("middle")[i]) / spread[i] for i in range(len(spread))]
        nearest = FAR
        reach = self._tensor("reach")
        for i, squared in enumerate(squared_distances(part(values, range(len(values))), self._tensor("centers"))):
            nearest = min(nearest, squared**0.5 - reach[i])
        return nearest


def _content(data):
    """The JSON of a model file that is whole."""
    if len(data) < HEADER_LENGTH + 4 or bytes(data[:4]) != MAGIC:
        raise ModelError("no model file")
    _, version, header_length, _, length, json_length, _ = struct.unpack_from(HEADER, data)
    if version != VERSION:
        raise ModelError("a model file of version %d; this firmware reads version %d" % (version, VERSION))
    if length != len(data):
        raise ModelError("a model file of %d bytes, of which %d are there" % (length, len(data)))
    if crc32(memoryview(data)[: length - 4]) & 0xFFFFFFFF != struct.unpack_from("<I", data, length - 4)[0]:
        raise ModelError("a damaged model file: its checksum is wrong")
    try:
        return json.loads(bytes(data[header_length : header_length + json_length]).decode())
    except (ValueError, UnicodeError):
        raise ModelError("a damaged model file: its content is no JSON")
