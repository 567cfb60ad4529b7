"""The file of a model: what a board needs to score a window, and one window to prove itself on (docs/model-format.md).

Data only. `Model` computes in float64 what the board computes in float32; `to_bytes` adds the golden window with what
is expected of it, `from_bytes` takes any file that is whole, and `prove` holds this implementation to the window too.
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

MAGIC = b"VM\xc1\x7f"
VERSION = 1
HEADER = struct.Struct("<4sBBHII")
TOLERANCE = 1e-3
"""Of features and scores, relative to those above 1."""
MOST_BYTES = 65536
GOLDEN_SAMPLES = 256
_FAR = 1000.0
_TRAILER = 32 + 4

Floats = npt.NDArray[np.float32]


class ModelError(ValueError):
    """A model that cannot be used, in a line."""


class Layer(NamedTuple):
    """Dense: `weights` (outputs, inputs), `bias` (outputs,), activation "relu", "" or, of the last one, "softmax"."""

    weights: Floats
    bias: Floats
    activation: str


@dataclass(frozen=True)
class Clusters:
    """Of k-means: `features` by index, standardised with `mean` and `scale`; `centers` (k, n), each with its reach."""

    features: tuple[int, ...]
    mean: Floats
    scale: Floats
    centers: Floats
    reach: Floats
    threshold: float


class Scores(NamedTuple):
    """`probabilities` by class, empty without a classifier; `anomaly`, None without clusters."""

    features: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
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
    threshold: float = 0.6
    """Probability from which on another class is one."""
    mean: Floats = field(default_factory=lambda: np.empty(0, np.float32))
    """Of each feature in training, with `variance`: to see drift. Empty: not known."""
    variance: Floats = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        try:
            for block in self.blocks:
                features_of.check(block)
            inputs = len(features_of.names(self.blocks, self.samples))
        except (BlockError, KeyError, TypeError) as error:
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
        if self.clusters and not all(0 <= index < inputs for index in self.clusters.features):
            raise ModelError(f"model {self.name}: clusters of features that it does not have ({inputs} it has)")

    def score(self, acceleration: npt.NDArray[Any]) -> Scores:
        """Of a window, (n, 3) in m/s2. Raises BlockError."""
        found = features_of.compute(self.blocks, acceleration, 1 / self.interval_s)
        return Scores(found, self._classify(found), self._distance(found))

    def _classify(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not self.layers:
            return np.empty(0)
        for weights, bias, activation in self.layers:
            values = weights.astype(np.float64) @ values + bias
            if activation == "relu":
                values = np.maximum(values, 0)
        raised = np.exp(values - values.max())
        return np.asarray(raised / raised.sum())

    def _distance(self, values: npt.NDArray[np.float64]) -> float | None:
        """From the edge of the nearest cluster (edgeimpulse/inferencing-sdk-cpp:.../anomaly.h)."""
        if self.clusters is None:
            return None
        of = self.clusters
        chosen = (values[list(of.features)] - of.mean) / of.scale
        return float(min(_FAR, np.min(np.linalg.norm(of.centers - chosen, axis=1) - of.reach)))

    def to_bytes(self, golden: npt.NDArray[np.int16], scale: float) -> bytes:
        """The file. `golden`: counts (n, 3) of a window, `scale` in m/s2 per count; the first 256 samples are kept."""
        golden = np.ascontiguousarray(golden[:GOLDEN_SAMPLES], "<i2")
        scores = self.score(golden * scale)
        expected = [*scores.features, *scores.probabilities, *([] if scores.anomaly is None else [scores.anomaly])]
        tensors = {"golden": np.array(expected, np.float32), "mean_of_training": self.mean}
        tensors["variance_of_training"] = self.variance
        for number, (weights, bias, _) in enumerate(self.layers):
            tensors |= {f"weights{number}": weights, f"bias{number}": bias}
        if self.clusters:
            tensors |= {name: getattr(self.clusters, name) for name in ("mean", "scale", "centers", "reach")}
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
        """The JSON, filled up to a multiple of 4, and where the tensors start. Their offsets stand in it: so again."""
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
            "blocks": list(self.blocks),
            "classes": list(self.classes),
            "normal": list(self.normal),
            "threshold": self.threshold,
            "layers": [layer.activation for layer in self.layers],
            "clustered": list(self.clusters.features) if self.clusters else [],
            "anomaly_threshold": self.clusters.threshold if self.clusters else None,
            "tensors": tensors,
            "golden": golden,
        }
        text = json.dumps(members, separators=(",", ":")).encode()
        return text + b" " * (-len(text) % 64)  # so that other offsets seldom change its length
