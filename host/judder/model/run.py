"""A model on recorded windows: what a board would say of each, and how far their features are from training."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from judder.model import blocks
from judder.model.file import Model
from judder.model.recorded import Recorded
from judder.report import Report
from judder.window import Flags

_DRIFTS = 5


@dataclass(frozen=True)
class Scored:
    """`unfit` says why a window was not scored; then nothing else is known of it."""

    name: str
    device: str
    taken_at: str | None
    label: str
    unfit: str | None = None
    anomaly: float | None = None
    class_name: str | None = None
    probability: float | None = None
    event: bool = False


@dataclass(frozen=True)
class Drift:
    """How far a feature's mean has moved, in standard deviations of training."""

    feature: str
    deviations: float
    mean: float
    trained: float


@dataclass(frozen=True)
class Run:
    """In the order of the recordings."""

    windows: list[Scored]
    drift: list[Drift]
    """The farthest first; empty when the model does not say how its features were in training."""


def run(model: Model, recorded: Iterable[Recorded], heard: Callable[[], None] = lambda: None) -> Run:
    """Score them; `heard` is called once for each."""
    windows, total, scored = [], np.zeros(len(model.mean)), 0
    for one in recorded:
        found, features = _score(model, one)
        windows.append(found)
        if features is not None and len(features) == len(total):
            total, scored = total + features, scored + 1
        heard()
    return Run(windows, _drift(model, total / scored) if scored else [])


def _score(model: Model, one: Recorded) -> tuple[Scored, np.ndarray[tuple[int], np.dtype[np.float64]] | None]:
    """With its features."""
    of = (one.name, one.device, one.taken.isoformat() if one.taken else None, one.label)
    reason = "gaps in the window" if one.flags & Flags.GAP else None
    reason = reason or model.unfit(len(one.acceleration), one.interval_s, one.full_scale_g)
    if reason is None and not np.isfinite(one.acceleration).all():
        reason = "samples that are no numbers"
    if reason is not None:
        return Scored(*of, unfit=reason), None
    scores = model.score(one.acceleration)
    best = int(np.argmax(scores.probabilities)) if model.classes and len(scores.probabilities) else None
    found = Scored(
        *of,
        anomaly=None if scores.anomaly is None else round(scores.anomaly, 6),
        class_name=None if best is None else model.classes[best],
        probability=None if best is None else round(float(scores.probabilities[best]), 6),
        event=model.is_event(scores),
    )
    return found, scores.features


def drift_of(model: Model, report: Report) -> list[Drift]:
    """Of the windows that a board has scored between two reports; empty when it does not say, or of another model."""
    mean = np.array(report.feature_mean or (), np.float64)
    return _drift(model, mean) if mean.shape == model.mean.shape and mean.size else []


def _drift(model: Model, mean: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[Drift]:
    names = blocks.titles(model.blocks, model.samples, 1 / model.interval_s)
    deviation = np.sqrt(np.maximum(model.variance.astype(np.float64), 1e-12))
    moved = (mean - model.mean) / deviation
    return [
        Drift(names[place], round(float(moved[place]), 3), float(mean[place]), float(model.mean[place]))
        for place in np.argsort(-np.abs(moved), kind="stable")[:_DRIFTS]
    ]
