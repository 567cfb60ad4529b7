"""From recorded windows to a model and a report on it.

Features are spectra of all axes, and level and shape of what is above a third of the band, where bearings ring.
Windows whose labels are normal make clusters (`clusters`); where there are several labels, a net learns to tell them
apart (`net`). What the report says was found on windows that were held out: whole days of a device, so that neighbours
in time do not stand on both sides, or stretches of time where there are too few days. Same windows, same bytes.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from judder import __version__
from judder.dataset import device_day
from judder.model import blocks as features_of
from judder.model import clusters, net
from judder.model.clusters import Table
from judder.model.file import (
    GOLDEN_SCALE,
    MOST_BYTES,
    NORMAL_NAMES,
    RATE_TOLERANCE_PERCENT,
    Model,
    ModelError,
    from_bytes,
)
from judder.model.recorded import Recorded
from judder.window import Flags

FOLDS = 10
LEAST_OF_LABEL = 10
"""Windows, for a label to be learnt."""
STANDARD_CLUSTERS = 32
"""Of K-means in Edge Impulse Studio, unless changed there."""
_HIGH_PASSED = 0.37  # of half the rate: 250 Hz of 672
_HIGH_ORDER = 4
_BINS = 24
_QUANTILES = (0, 5, 25, 50, 75, 95, 99, 100)
_OTHER_BYTES = 4096  # of a model's file, beside its largest tensor


class TrainError(ValueError):
    """Windows or options that no model comes of, in a line."""


@dataclass(frozen=True)
class Options:
    """`clusters` None: 1, and 32 of the `standard` kind, which is K-means as Edge Impulse trains it."""

    name: str = "trained"
    normal: tuple[str, ...] = ()
    fft: int = 32
    clusters: int | None = None
    standard: bool = False
    flagged: bool = False


@dataclass(frozen=True)
class Distribution:
    """Of scores: quantiles by percent, and how many lie in each bin of the report."""

    windows: int
    quantiles: dict[str, float]
    counts: list[int]


@dataclass(frozen=True)
class Report:
    """What came of training; fit for JSON."""

    windows: int
    left_out: dict[str, int]
    labels: dict[str, int]
    normal: list[str]
    device_days: int
    held_out_by: str
    features: int
    directions: int
    """That the clusters lie in: all features, or what a projection keeps."""
    clusters: int
    threshold: float
    spread: float
    """Standard deviation of held-out healthy scores."""
    false_alarms: int
    healthy: int
    edges: list[float]
    """Of the bins of scores."""
    scores: dict[str, Distribution]
    """`training` and `held out` of healthy windows, then by label, the healthy ones too if they have several."""
    confusion: dict[str, dict[str, int]]
    """By label, then by the class that the net took held-out windows for; empty without a net."""
    separating: list[dict[str, Any]] = field(default_factory=list)
    """Features whose means differ most between two labels, in standard deviations."""
    remarks: list[str] = field(default_factory=list)
    id: str = ""
    bytes: int = 0


@dataclass(frozen=True)
class Trained:
    """A model as a file, which has been read again, and the report."""

    model: Model
    data: bytes
    report: Report


def train(
    recorded: Sequence[Recorded], options: Options, progress: Callable[[int, int], None] = lambda done, of: None
) -> Trained:
    """Raises TrainError, ModelError. `progress` hears how many windows of how many have been turned into features."""
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with threadpool_limits(limits=1):  # threads add in any order, and other sums are other bytes
        return _train(recorded, options, progress)


def impulse(fft: int, rate_hz: float) -> tuple[dict[str, Any], ...]:
    """The blocks, at `rate_hz`."""
    spectral = {"type": "spectral", "version": 3, "axes": [0, 1, 2], "log": True, "overlap": True}
    cutoff_hz = float(f"{_HIGH_PASSED * rate_hz / 2:.2g}")
    high = {"fft": 16, "filter": "high", "order": _HIGH_ORDER, "cutoff_hz": cutoff_hz, "centred": True, "bins": [1, 1]}
    return ({**spectral, "fft": fft}, {**spectral, **high})


def _train(recorded: Sequence[Recorded], options: Options, progress: Callable[[int, int], None]) -> Trained:
    used, left_out = _usable(recorded, options)
    labels = [one.label for one in used]
    normal = _normal(labels, options.normal)
    is_healthy = np.array([label in normal for label in labels])
    shape = _shape(used, options)
    chosen = _chosen(shape)
    _check(int(is_healthy.sum()), len(chosen), options)
    table = np.empty((len(used), len(_names(shape))))
    for place, one in enumerate(used):
        table[place] = features_of.compute(shape.blocks, one.acceleration, 1 / shape.interval_s)
        progress(place + 1, len(used))
    fit = partial(clusters.fit_standard if options.standard else clusters.fit, chosen=chosen, number=_number(options))
    found, cross = fit(table[is_healthy]), _Cross(used, is_healthy, table, fit)
    limit = clusters.threshold(cross.healthy_scores)
    classes, layers = net.fit(table, labels) if len(set(labels)) > 1 else ((), ())
    model = replace(
        shape,
        name=options.name,
        source=_source(used),
        classes=classes,
        layers=layers,
        clusters=replace(found, threshold=limit, spread=float(cross.healthy_scores.std())),
        normal=tuple(sorted(normal & set(classes))),
        mean=np.asarray(table[is_healthy].mean(axis=0), np.float32),
        variance=np.asarray(table[is_healthy].var(axis=0), np.float32),
    )
    data = model.to_bytes(_golden(used, is_healthy, found.scores(table)))
    model, name = from_bytes(data)
    return Trained(model, data, _report(model, used, table, cross, left_out, name, len(data)))


# --- which windows ----------------------------------------------------------------------------------------------------


def _usable(recorded: Sequence[Recorded], options: Options) -> tuple[list[Recorded], Counter[str]]:
    """Those that can be trained on, by device and time; and how many cannot, by reason."""
    left_out: Counter[str] = Counter()
    whole = _kept(recorded, partial(_fault, flagged=options.flagged), left_out)
    if not whole:
        raise TrainError(f"none of {len(recorded)} windows can be trained on: {_told(left_out)}")
    samples = _most_common(len(one.acceleration) for one in whole)
    full_scale_g = _most_common(one.full_scale_g for one in whole if len(one.acceleration) == samples)
    median_s = float(np.median([one.interval_s for one in whole if len(one.acceleration) == samples]))
    like = Model("", "", samples, median_s, full_scale_g, ())

    def unlike(one: Recorded) -> str | None:
        if len(one.acceleration) != samples:
            return f"not of {samples} samples, as most are"
        if one.full_scale_g != full_scale_g:
            return f"not of {'an unknown range' if full_scale_g is None else f'+-{full_scale_g} g'}, as most are"
        if like.unfit(samples, one.interval_s, full_scale_g):
            return f"rate more than {RATE_TOLERANCE_PERCENT} % off the median of {1 / median_s:.0f} Hz"
        return None

    alike = _kept(whole, unlike, left_out)
    of_label = Counter(one.label for one in alike)

    def unlabelled(one: Recorded) -> str | None:
        if not one.label and len(of_label) > 1:
            return "no label, and others have one"
        if of_label[one.label] < LEAST_OF_LABEL and len(of_label) > 1:
            return f"label {one.label} with fewer than {LEAST_OF_LABEL} windows"
        return None

    used = _kept(alike, unlabelled, left_out)
    if not used:
        raise TrainError(f"none of {len(recorded)} windows can be trained on: {_told(left_out)}")
    return sorted(used, key=lambda one: (one.device, one.taken.timestamp() if one.taken else 0.0)), left_out


def _kept(found: Sequence[Recorded], why: Callable[[Recorded], str | None], left_out: Counter[str]) -> list[Recorded]:
    """Those with nothing against them."""
    reasons = [why(one) for one in found]
    left_out.update(reason for reason in reasons if reason)
    return [one for one, reason in zip(found, reasons, strict=True) if not reason]


def _fault(one: Recorded, *, flagged: bool) -> str | None:
    if one.flags and not flagged:
        return f"flagged {Flags(one.flags).name}"
    if not one.interval_s:
        return "interval not known"
    if not np.isfinite(one.acceleration).all():
        return "samples that are no numbers"
    return None


def _most_common(values: Iterator[Any]) -> Any:
    """Of several that are, the one that came first."""
    return Counter(values).most_common(1)[0][0]


def _normal(labels: Sequence[str], asked: Sequence[str]) -> set[str]:
    """Which labels are of healthy windows."""
    known = set(labels)
    names = ", ".join(sorted(known - {""})) or "none"
    if unknown := sorted(set(asked) - known):
        raise TrainError(f"--normal {unknown[0]}: no window to train on has that label; labels are: {names}")
    if asked or len(known) == 1:
        return set(asked) or known
    if not (usual := {label for label in known if label.lower() in NORMAL_NAMES}):
        raise TrainError(f"say with --normal LABEL which windows are healthy; labels are: {names}")
    return usual


def _shape(used: Sequence[Recorded], options: Options) -> Model:
    """A model that has learnt nothing yet."""
    if options.fft not in (16, 32, 64, 128, 256, 512, 1024):
        raise TrainError(f"--fft {options.fft}: a power of two from 16 to 1024")
    interval_s = float(np.median([one.interval_s for one in used]))
    samples = len(used[0].acceleration)
    if samples < 2 * options.fft:
        raise TrainError(
            f"windows of {samples} samples are too short for --fft {options.fft}: {2 * options.fft} or more"
        )
    return Model("", "", samples, interval_s, used[0].full_scale_g, impulse(options.fft, 1 / interval_s))


def _names(model: Model) -> list[str]:
    return features_of.names(model.blocks, model.samples, 1 / model.interval_s)


def _chosen(model: Model) -> tuple[int, ...]:
    """Features of the clusters: skewness without a filter says nothing of a machine that only turns."""
    names = _names(model)
    of_first = len(features_of.names(model.blocks[:1], model.samples, 1 / model.interval_s))
    return tuple(place for place, name in enumerate(names) if place >= of_first or not name.endswith("skewness"))


def _number(options: Options) -> int:
    return options.clusters or (STANDARD_CLUSTERS if options.standard else 1)


def _check(healthy: int, features: int, options: Options) -> None:
    """Whether there is enough to train on, and room for what comes of it."""
    largest = _number(options) * features if options.standard else clusters.directions_kept(features) * features
    if 4 * largest > MOST_BYTES - _OTHER_BYTES:
        raise TrainError(
            f"--fft {options.fft} makes {features} features, and the model would not fit {MOST_BYTES} bytes: "
            "give a smaller --fft" + (" or fewer --clusters" if options.standard else "")
        )
    needed = 2 * _number(options) if options.standard else max(2 * features, 2 * _number(options))
    if healthy < needed:
        fewer = len(_chosen(Model("", "", 64, 1e-3, None, impulse(16, 1e3))))
        hint = f"; --fft 16 needs fewer: {2 * fewer}" if options.fft > 16 and not options.standard else ""
        raise TrainError(
            f"{healthy} healthy windows are too few for {features} features and {_number(options)} clusters: "
            f"{needed} are needed{hint}"
        )


def _golden(used: Sequence[Recorded], is_healthy: npt.NDArray[np.bool_], scores: Table) -> npt.NDArray[np.int16]:
    """The healthy window with the middle score, as counts."""
    healthy = np.flatnonzero(is_healthy)
    middle = healthy[np.argsort(scores[healthy], kind="stable")[len(healthy) // 2]]
    counts = np.rint(used[middle].acceleration.astype(np.float64) / GOLDEN_SCALE)
    return np.asarray(np.clip(counts, -32768, 32767), np.int16)


def _source(used: Sequence[Recorded]) -> str:
    devices = len({one.device for one in used})
    days = sorted(f"{one.taken:%Y-%m-%d}" for one in used if one.taken)
    when = f", {days[0]} to {days[-1]}" if days else ""
    return f"judder {__version__}: {len(used)} windows of {devices} device{'s' * (devices > 1)}{when}"


# --- held out ---------------------------------------------------------------------------------------------------------


class _Cross:
    """Cross-validation: what clusters and nets say of windows that they were not trained on."""

    def __init__(
        self, used: Sequence[Recorded], is_healthy: npt.NDArray[np.bool_], table: Table, fit: clusters.Fit
    ) -> None:
        self.is_healthy = is_healthy
        healthy = [one for one, is_one in zip(used, is_healthy, strict=True) if is_one]
        fold, self.by = folds(healthy)
        self.healthy_scores = clusters.held_out(table[is_healthy], fold, fit)
        labels = [one.label for one in used]
        self.classes = net.held_out(table, labels, folds(used)[0]) if len(set(labels)) > 1 else []


def folds(used: Sequence[Recorded]) -> tuple[npt.NDArray[np.int64], str]:
    """Of each window, and what a fold is: days of a device, or stretches of each label's time if there are too few."""
    days = [_day(one) for one in used]
    sizes = Counter(days)
    if len(sizes) < FOLDS or "" in sizes:
        found = np.empty(len(used), np.int64)
        for label in sorted({one.label for one in used}):
            places = [place for place, one in enumerate(used) if one.label == label]
            found[places] = np.arange(len(places)) * FOLDS // len(places)
        return found, f"{FOLDS} stretches of time, as there are fewer days of devices"
    fold_of, filled = {}, [0] * FOLDS
    for day, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        fold_of[day] = filled.index(min(filled))
        filled[fold_of[day]] += size
    return np.array([fold_of[day] for day in days]), f"{len(sizes)} days of devices in {FOLDS} parts"


def _day(one: Recorded) -> str:
    return device_day(one.device, one.taken) if one.taken else ""


# --- the report -------------------------------------------------------------------------------------------------------


def _report(
    model: Model,
    used: Sequence[Recorded],
    table: Table,
    cross: _Cross,
    left_out: Mapping[str, int],
    name: str,
    size: int,
) -> Report:
    of = model.clusters
    if of is None:
        raise ModelError("a model without clusters")
    labels = np.array([one.label for one in used])
    trained = of.scores(table)
    best = trained.copy()
    best[cross.is_healthy] = cross.healthy_scores
    edges = _edges(best, trained, of.threshold)
    scores = {"training": trained[cross.is_healthy], "held out": cross.healthy_scores}
    normal = sorted(set(labels[cross.is_healthy].tolist()))
    told = [label for label in sorted(set(labels.tolist())) if label not in normal or len(normal) > 1]
    scores |= {f"label {label}": best[labels == label] for label in told}
    return Report(
        windows=len(used),
        left_out=dict(sorted(left_out.items())),
        labels=dict(sorted(Counter(labels.tolist()).items())),
        normal=normal,
        device_days=len({_day(one) for one in used} - {""}),
        held_out_by=cross.by,
        features=len(model.mean),
        directions=len(of.features) if of.projection is None else len(of.projection),
        clusters=len(of.reach),
        threshold=of.threshold,
        spread=float(cross.healthy_scores.std()),
        false_alarms=int((cross.healthy_scores > of.threshold).sum()),
        healthy=int(cross.is_healthy.sum()),
        edges=[round(edge, 6) for edge in edges.tolist()],
        scores={key: _distribution(values, edges) for key, values in scores.items()},
        confusion=_confusion(labels.tolist(), cross.classes),
        separating=_separating(model, table, labels),
        remarks=list(_remarks(used, labels.tolist())),
        id=name,
        bytes=size,
    )


def _edges(best: Table, trained: Table, limit: float) -> Table:
    """Of bins from the lowest score to the highest, up to five times as far above the threshold as below it."""
    low, high = min(best.min(), trained.min()), max(best.max(), trained.max(), limit)
    edges: Table = np.linspace(low, min(high, limit + 5 * max(limit - low, 1e-3)), _BINS + 1)
    return edges


def _distribution(values: Table, edges: Table) -> Distribution:
    """What is above the last bin counts in it."""
    quantiles = {str(percent): round(float(np.percentile(values, percent)), 4) for percent in _QUANTILES}
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Distribution(len(values), quantiles, counts.tolist())


def _confusion(labels: Sequence[str], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    if classes:
        names = sorted(set(labels))
        found = {label: dict.fromkeys(names, 0) for label in names}
        for label, name in zip(labels, classes, strict=True):
            found[label][name] = found[label].get(name, 0) + 1
    return found


def _separating(model: Model, table: Table, labels: npt.NDArray[np.str_]) -> list[dict[str, Any]]:
    """The five that tell two labels apart best."""
    names = features_of.titles(model.blocks, model.samples, 1 / model.interval_s)
    found = []
    for one, other in combinations(sorted(set(labels.tolist())), 2):
        first, second = table[labels == one], table[labels == other]
        deviation = np.sqrt((first.var(axis=0) + second.var(axis=0)) / 2)
        apart = np.abs(first.mean(axis=0) - second.mean(axis=0)) / np.maximum(deviation, 1e-6)
        found += [
            {"feature": names[place], "labels": [one, other], "deviations": round(float(apart[place]), 2)}
            for place in np.argsort(-apart, kind="stable")[:5]
        ]
    return sorted(found, key=lambda one: -one["deviations"])[:5]


def _remarks(used: Sequence[Recorded], labels: Sequence[str]) -> Iterator[str]:
    """What the figures cannot say."""
    days = {_day(one) for one in used}
    if len(days) < 3:
        yield f"all windows are from {len(days)} day{'s' * (len(days) > 1)} of a device: other days may differ by more"
    if len(days) >= FOLDS and "" not in days:
        for label in sorted(set(labels)):
            if len({_day(one) for one in used if one.label == label}) == 1:
                yield f"label {label} is from one day of a device: held out, the net has never seen it"


def _told(left_out: Mapping[str, int]) -> str:
    return "; ".join(f"{number} {reason}" for reason, number in sorted(left_out.items())) or "there are none"
