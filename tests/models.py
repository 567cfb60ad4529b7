"""Models of our own making for tests: drawn numbers, no export of anybody's."""

from itertools import pairwise
from typing import Any

import numpy as np

from judder.model import blocks as features_of
from judder.model.file import Clusters, Layer, Model

INTERVAL_S = 1 / 1344
SPECTRAL = {"type": "spectral", "version": 4, "fft": 64, "log": True, "overlap": True, "axes": [0, 1, 2]}


def spectral(**changes: Any) -> dict[str, Any]:
    return {**SPECTRAL, **changes}


def drawn(seed=1, blocks=(SPECTRAL,), hidden=(20, 10), classes=("ok", "worn"), clusters=32, of=11, **more):
    """As in Edge Impulse's example of a motor: 111 features, 20-10-2, 32 clusters on some of the features."""
    rng = np.random.default_rng(seed)
    samples = more.pop("samples", 1024)
    inputs = len(features_of.names(blocks, samples, 1 / INTERVAL_S))
    widths = (inputs, *hidden, len(classes)) if classes else (inputs,)
    layers = tuple(
        Layer(
            rng.normal(0, 1 / np.sqrt(width), (outputs, width)).astype(np.float32),
            rng.normal(0, 0.1, outputs).astype(np.float32),
            "relu" if number < len(hidden) else "softmax",
        )
        for number, (width, outputs) in enumerate(pairwise(widths))
    )
    of = min(of, inputs)
    chosen = Clusters(
        tuple(int(one) for one in rng.permutation(inputs)[:of]),
        rng.normal(0, 1, of).astype(np.float32),
        rng.uniform(0.5, 2, of).astype(np.float32),
        rng.normal(0, 1, (clusters, of)).astype(np.float32),
        rng.uniform(0.1, 1, clusters).astype(np.float32),
        more.pop("anomaly_threshold", 0.3),
    )
    return Model(
        **{
            "name": "drawn",
            "source": "tests",
            "samples": samples,
            "interval_s": INTERVAL_S,
            "full_scale_g": 2,
            "blocks": tuple(blocks),
            "classes": tuple(classes),
            "layers": layers,
            "clusters": chosen if clusters else None,
            "normal": ("ok",),
            **more,
        }
    )
