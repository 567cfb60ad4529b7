"""The file of a model: what a board needs to score a window, and one window to prove itself on (docs/model-format.md).

Data only. `Model` computes in float64 what the board computes in float32; `to_bytes` adds the golden window with what
is expected of it, `from_bytes` takes any file that is whole, and holds this implementation to the window too.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from judder.model import blocks as features_of
from judder.model.blocks import BlockError
from judder.window import STANDARD_GRAVITY

MAGIC = b"VM\xc1\x7f"
VERSION = 1
HEADER = struct.Struct("<4sBBHII")
RATE_TOLERANCE_PERCENT = 10
"""Of a window against training: parts are 2 to 5 off nominal, and training has seen some of them."""
TOLERANCE = 1e-3
"""Of features and scores, relative to those above 1."""
MOST_BYTES = 65536
GOLDEN_SAMPLES = 256
GOLDEN_SCALE = 0.004 * STANDARD_GRAVITY
"""m/s2 per count of the LIS3DH at +-2 g in normal mode."""
AXES = ["x", "y", "z"]
UNITS = "m/s2"
MOST_SAMPLES = 65535
"""In a window: its frame counts them in 16 bits."""
MOST_SCORE = 1e9
CLASS_BYTES = 32
"""Of a class's name in UTF-8: each frame carries one."""
CLASS_THRESHOLD = 0.6
"""Probability of an event's class, where nobody set another: Edge Impulse Studio's."""
NORMAL_NAMES = ("normal", "ok", "healthy", "idle", "off")
"""Classes and labels that are no event, if nothing else is said."""
_FAR = 1000.0
_TRAILER = 32 + 4

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class ModelError(ValueError):
    """A model that cannot be used, in a line."""


class Layer(NamedTuple):
    """Dense: `weights` (outputs, inputs), `bias` (outputs,), activation "relu", "" or, of the last one, "softmax"."""

    weights: Floats
    bias: Floats
    activation: str


def forward(layers: Sequence[Layer], values: Doubles) -> Doubles:
    """What the last layer gives for features, or for each row of them; the softmax is still to come."""
    for weights, bias, activation in layers:
        values = values @ weights.astype(np.float64).T + bias
        if activation == "relu":
            values = np.maximum(values, 0)
    return values


@dataclass(frozen=True)
class Clusters:
    """Of k-means: `features` by index, standardised with `mean` and `scale`; `centers` (k, n), each with its reach.

    With a `projection` (r, n) what is standardised is multiplied by it first, and centers are (k, r).
    """

    features: tuple[int, ...]
    mean: Floats
    scale: Floats
    centers: Floats
    reach: Floats
    threshold: float
    projection: Floats | None = None
    spread: float = 0.0
    """Standard deviation of healthy windows' scores: the step of the board's histogram. 0: not known."""

    def distances(self, table: Doubles) -> Doubles:
        """Of each row of features from each center."""
        points = (table[:, self.features] - self.mean) / self.scale
        if self.projection is not None:
            points = points @ self.projection.astype(np.float64).T
        return np.stack([np.linalg.norm(points - center, axis=1) for center in self.centers], axis=1)

    def scores(self, table: Doubles) -> Doubles:
        """Of each row of features: how far it is from the edge of the nearest cluster.

        (edgeimpulse/inferencing-sdk-cpp:classifier/inferencing_engines/anomaly.h)
        """
        return np.asarray((self.distances(table) - self.reach).min(axis=1).clip(max=_FAR))


class Scores(NamedTuple):
    """`probabilities` by class, empty without a classifier; `anomaly`, None without clusters."""

    features: Doubles
    probabilities: Doubles
    anomaly: float | None


@dataclass(frozen=True)
class Model:
    """An impulse: blocks, and what was trained on their features."""

    name: str
    source: str
    """Where it was trained, and which version it is there."""
    samples: int
    interval_s: float
    full_scale_g: int | None
    """None: any."""
    blocks: tuple[Mapping[str, Any], ...]
    classes: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    clusters: Clusters | None = None
    normal: tuple[str, ...] = ()
    """Classes that are no event."""
    threshold: float = CLASS_THRESHOLD
    """Probability from which on another class is one."""
    mean: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    """Of each feature in training, with `variance`: to see drift. Empty: not known."""
    variance: Floats = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        self._check_numbers()
        try:
            for block in self.blocks:
                features_of.check(block)
            inputs = len(features_of.names(self.blocks, self.samples, 1 / self.interval_s))
        except (BlockError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"model {self.name}: {error}") from None
        width = inputs
        for number, layer in enumerate(self.layers):
            if layer.weights.shape != (len(layer.bias), width):
                raise ModelError(
                    f"model {self.name}: layer {number} has weights of {layer.weights.shape}, and {width} inputs"
                )
            width = len(layer.bias)
        if self.layers and width != len(self.classes):
            raise ModelError(f"model {self.name}: {width} outputs for {len(self.classes)} classes")
        for name in self.classes:
            if not isinstance(name, str) or not name.isprintable() or len(name.encode(errors="replace")) > CLASS_BYTES:
                raise ModelError(
                    f"model {self.name}: {name!r} is no name of a class: at most {CLASS_BYTES} bytes of text"
                )
        if self.clusters:
            self._check_clusters(self.clusters, inputs)

    def _check_numbers(self) -> None:
        """What a board and its reports can do with."""
        of = self.clusters
        for name, value, least, most in (
            ("samples", self.samples, 1, MOST_SAMPLES),
            ("interval_s", self.interval_s, 1e-6, 1000),
            ("full_scale_g", 2 if self.full_scale_g is None else self.full_scale_g, 1, 1000),
            ("threshold", self.threshold, -MOST_SCORE, MOST_SCORE),
            ("anomaly_threshold", of.threshold if of else 0, -MOST_SCORE, MOST_SCORE),
            ("anomaly_spread", of.spread if of else 0, 0, MOST_SCORE),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ModelError(f"model {self.name}: {name} {value!r} is no number from {least:g} to {most:g}")
        if not isinstance(self.samples, int):
            raise ModelError(f"model {self.name}: {self.samples} samples")

    def _check_clusters(self, of: Clusters, inputs: int) -> None:
        if not all(0 <= index < inputs for index in of.features):
            raise ModelError(f"model {self.name}: clusters of features that it does not have ({inputs} it has)")
        n, k = len(of.features), len(of.reach)
        width = n if of.projection is None else len(of.projection)
        shapes = {"mean": (n,), "scale": (n,), "centers": (k, width), "reach": (k,), "projection": (width, n)}
        tensors = {name: getattr(of, name) for name in shapes}
        if not k or any(one is not None and one.shape != shapes[name] for name, one in tensors.items()):
            raise ModelError(f"model {self.name}: tensors of its clusters do not fit each other")

    def unfit(self, samples: int, interval_s: float | None, full_scale_g: int | None) -> str | None:
        """Why a window is not like those that it was trained on, as a board says it; None when it is."""
        if samples != self.samples:
            return f"trained on {self.samples} samples, this window has {samples}"
        if not interval_s:
            return "the window's interval is not known"
        if abs(interval_s / self.interval_s - 1) * 100 > RATE_TOLERANCE_PERCENT:
            return f"trained at {1 / self.interval_s:.0f} Hz, this window has {1 / interval_s:.0f} Hz"
        if self.full_scale_g and full_scale_g != self.full_scale_g:
            found = "an unknown range" if full_scale_g is None else f"+-{full_scale_g} g"
            return f"trained at +-{self.full_scale_g} g, this window has {found}"
        return None

    def is_event(self, scores: Scores) -> bool:
        """Whether the anomaly or the most probable class exceeds its threshold."""
        if self.clusters and scores.anomaly is not None and scores.anomaly > self.clusters.threshold:
            return True
        if not self.layers:
            return False
        best = int(np.argmax(scores.probabilities))
        return self.classes[best] not in self.normal and bool(scores.probabilities[best] >= self.threshold)

    def score(self, acceleration: npt.NDArray[Any]) -> Scores:
        """Of a window, (n, 3) in m/s2. Raises BlockError."""
        found = features_of.compute(self.blocks, acceleration, 1 / self.interval_s)
        return Scores(found, self._classify(found), self._distance(found))

    def _classify(self, values: Doubles) -> Doubles:
        if not self.layers:
            return np.empty(0)
        values = forward(self.layers, values)
        raised = np.exp(values - values.max())
        return np.asarray(raised / raised.sum())

    def _distance(self, values: Doubles) -> float | None:
        return None if self.clusters is None else float(self.clusters.scores(values[np.newaxis])[0])

    def to_bytes(self, golden: npt.NDArray[np.int16] | None = None, scale: float = GOLDEN_SCALE) -> bytes:
        """The file. `golden`: counts (n, 3) of a window, `scale` in m/s2 per count; without one, noise proves it.

        Of a window that is longer than 256 samples the first of them are kept, unless samples themselves are features.
        Raises ModelError when it is too large, BlockError.
        """
        kept = self.samples if any(block["type"] == "raw" for block in self.blocks) else GOLDEN_SAMPLES
        golden = np.ascontiguousarray((_noise(self.samples) if golden is None else golden)[:kept], "<i2")
        expected = _numbers(self.score(golden * scale))
        tensors = {"golden": expected.astype(np.float32), "mean_of_training": self.mean}
        tensors["variance_of_training"] = self.variance
        for number, (weights, bias, _) in enumerate(self.layers):
            tensors |= {f"weights{number}": weights, f"bias{number}": bias}
        if self.clusters:
            names = ("mean", "scale", "centers", "reach", "projection")
            found = {name: getattr(self.clusters, name) for name in names}
            tensors |= {name: tensor for name, tensor in found.items() if tensor is not None}
        sizes = {name: tensor.size for name, tensor in tensors.items()}
        content, start = self._content(sizes, len(golden), scale)
        body = b"".join(np.ascontiguousarray(tensor, "<f4").tobytes() for tensor in tensors.values())
        length = start + len(body) + golden.nbytes + _TRAILER
        if length > MOST_BYTES:
            raise ModelError(f"model {self.name} takes {length} bytes, and {MOST_BYTES} are allowed")
        out = HEADER.pack(MAGIC, VERSION, HEADER.size, 0, length, len(content)) + content + body + golden.tobytes()
        out += hashlib.sha256(out).digest()
        return out + struct.pack("<I", crc32(out))

    def _content(self, sizes: Mapping[str, int], golden_samples: int, scale: float) -> tuple[bytes, int]:
        """The JSON, filled up to a multiple of 64, and where the tensors start. Their offsets stand in it: so again."""
        content, start = b"", 0
        while True:
            offsets, at = {}, start
            for name, size in sizes.items():
                offsets[name] = [at, size]
                at += 4 * size
            content = self._json(offsets, {"offset": at, "samples": golden_samples, "scale": scale})
            if HEADER.size + len(content) == start:
                return content, start
            start = HEADER.size + len(content)

    def _json(self, tensors: Mapping[str, Sequence[int]], golden: Mapping[str, Any]) -> bytes:
        members = {
            "name": self.name,
            "source": self.source,
            "samples": self.samples,
            "interval_s": self.interval_s,
            "full_scale_g": self.full_scale_g,
            "axes": AXES,
            "units": UNITS,
            "blocks": [for_board(block, 1 / self.interval_s) for block in self.blocks],
            "classes": list(self.classes),
            "normal": list(self.normal),
            "threshold": self.threshold,
            "layers": [layer.activation for layer in self.layers],
            "clustered": list(self.clusters.features) if self.clusters else [],
            "anomaly_threshold": self.clusters.threshold if self.clusters else None,
            "anomaly_spread": self.clusters.spread if self.clusters else None,
            "tensors": tensors,
            "golden": golden,
        }
        text = json.dumps(members, separators=(",", ":")).encode()
        return text + b" " * (-len(text) % 64)  # so that other offsets seldom change its length


def for_board(block: Mapping[str, Any], rate_hz: float) -> Mapping[str, Any]:
    """A board cannot design filters: here is what it needs of this one. Raises BlockError."""
    if block["type"] != "spectral" or block.get("filter", "none") == "none":
        return block
    rate_hz /= block.get("decimation", 1)
    of_filter, chosen = features_of.sections(block, rate_hz), features_of.bins(block, rate_hz)
    if of_filter is None:
        return block
    return {**block, "sections": of_filter.tolist(), "bins": list(chosen)}


def from_bytes(data: bytes) -> tuple[Model, str]:
    """The model of a file, and its id. It has been held to its golden window. Raises ModelError."""
    content = _checked(data)
    try:
        model = _model(data, content)
        golden, tensors = content["golden"], content["tensors"]
        counts = np.frombuffer(data, "<i2", 3 * golden["samples"], golden["offset"]).reshape(-1, 3)
        expected = np.frombuffer(data, "<f4", tensors["golden"][1], tensors["golden"][0])
        scores = model.score(counts * golden["scale"])
    except ModelError:
        raise
    except (ArithmeticError, AttributeError, BlockError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(f"its content is not that of a model: {error!r}") from None
    found = _numbers(scores)
    if len(found) != len(expected):
        raise ModelError(f"it gives {len(found)} numbers and should give {len(expected)}")
    wrong = np.flatnonzero(~(np.abs(found - expected) <= TOLERANCE * np.maximum(1, np.abs(expected))))
    if wrong.size:
        at = wrong[0]
        raise ModelError(f"number {at} of its golden window is {found[at]:g}, should be {expected[at]:g}")
    return model, model_id(data)


def model_id(data: bytes) -> str:
    """What frames name the model by: the CRC-32 that ends its file, in hex."""
    return f"{struct.unpack_from('<I', data, len(data) - 4)[0]:08x}"


def _checked(data: bytes) -> dict[str, Any]:
    """The JSON of a file that is whole. Raises ModelError."""
    if len(data) < HEADER.size + _TRAILER or data[:4] != MAGIC:
        raise ModelError("it is no model file")
    _, version, header_length, _, length, json_length = HEADER.unpack_from(data)
    if version != VERSION:
        raise ModelError(f"it is of version {version}; this judder reads version {VERSION}: update judder")
    if length != len(data):
        raise ModelError(f"{len(data)} of its {length} bytes are there")
    whole = crc32(data[:-4]) == struct.unpack_from("<I", data, length - 4)[0]
    if not whole or hashlib.sha256(data[:-_TRAILER]).digest() != data[-_TRAILER:-4]:
        raise ModelError("it is damaged: its checksum is wrong")
    try:
        content = json.loads(data[header_length : header_length + json_length])
    except (ValueError, RecursionError):
        raise ModelError("it is damaged: its content is no JSON") from None
    if not isinstance(content, dict):
        raise ModelError("its content is not that of a model: no JSON object")
    return content


def _model(data: bytes, content: Mapping[str, Any]) -> Model:
    def read(name: str, width: int = 0) -> Floats:
        offset, count = content["tensors"][name]
        found = np.frombuffer(data, "<f4", count, offset)
        return found.reshape(-1, width) if width else found

    if content["axes"] != AXES or content["units"] != UNITS:
        raise ModelError(f"it is for axes {content['axes']} in {content['units']}, not {AXES} in {UNITS}")
    layers = []
    for number, activation in enumerate(content["layers"]):
        bias = read(f"bias{number}")
        layers.append(Layer(read(f"weights{number}").reshape(len(bias), -1), bias, activation))
    clusters = None
    if chosen := content["clustered"]:
        projection = read("projection", len(chosen)) if "projection" in content["tensors"] else None
        width = len(chosen) if projection is None else len(projection)
        of = (read("mean"), read("scale"), read("centers", width), read("reach"))
        clusters = Clusters(tuple(chosen), *of, content["anomaly_threshold"], projection, content["anomaly_spread"])
    return Model(
        name=content["name"],
        source=content["source"],
        samples=content["samples"],
        interval_s=content["interval_s"],
        full_scale_g=content["full_scale_g"],
        blocks=tuple(content["blocks"]),
        classes=tuple(content["classes"]),
        layers=tuple(layers),
        clusters=clusters,
        normal=tuple(content["normal"]),
        threshold=content["threshold"],
        mean=read("mean_of_training"),
        variance=read("variance_of_training"),
    )


def _numbers(scores: Scores) -> Doubles:
    """All of them in a row, as in the file."""
    anomaly = [] if scores.anomaly is None else [scores.anomaly]
    return np.concatenate((scores.features, scores.probabilities, anomaly))


def _noise(samples: int) -> npt.NDArray[np.int16]:
    """Always the same, in all bins alike: no feature is too small to tell."""
    drawn = np.random.default_rng(1).normal(0, 100, (samples, 3))
    return np.asarray(np.clip(drawn + np.array([0, 0, 250]), -511, 511), np.int16)
