"""An impulse as Edge Impulse describes it, wherever it was read from, and the model that it becomes.

Parameters of blocks have the names that Studio's REST API and the comments of a deployment's `model_variables.h` give
them, which are those of edgeimpulse/processing-blocks: parameters.json. What is not implemented is refused with what
to change in Studio; what the host computes and the board does not is imported, and `remarks` says so.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from judder.model import blocks as features_of
from judder.model.blocks import BlockError
from judder.model.file import CLASS_THRESHOLD, MOST_SAMPLES, NORMAL_NAMES, Clusters, Layer, Model, ModelError
from judder.model.tflite import Net

ANOMALY_THRESHOLD = 0.3
"""Studio's own, where none was set."""
BOARD_FFT_POINTS = (16, 1024)
_STEMS = ("", "a", "acc", "accel", "acceleration", "accelerometer")
_AXIS = re.compile(r"(?P<stem>.*?)[ _.-]?(?P<axis>[xyz])", re.IGNORECASE)
_KINDS = ("spectral-analysis", "flatten", "raw")


@dataclass(frozen=True)
class Dsp:
    """A processing block. `features`: how many it gives, as Edge Impulse counts them; None: not known."""

    number: int
    kind: str
    version: int
    axes: tuple[str, ...]
    parameters: Mapping[str, str]
    features: int | None = None


@dataclass(frozen=True)
class Classifier:
    """A dense net on the features of the blocks `dsp`."""

    dsp: tuple[int, ...]
    classes: tuple[str, ...]
    net: Net
    threshold: float = CLASS_THRESHOLD


@dataclass(frozen=True)
class KMeans:
    """`axes` are features by index, among those of the blocks `dsp`."""

    dsp: tuple[int, ...]
    axes: tuple[int, ...]
    mean: Sequence[float]
    scale: Sequence[float]
    centers: Sequence[Sequence[float]]
    reach: Sequence[float]
    threshold: float = ANOMALY_THRESHOLD


@dataclass(frozen=True)
class Impulse:
    """`source` says which project and which version."""

    name: str
    source: str
    samples: int
    interval_s: float
    blocks: tuple[Dsp, ...]
    classifier: Classifier | None = None
    anomaly: KMeans | None = None

    def model(self, normal: Sequence[str] = ()) -> Model:
        """What a board can run, with these classes for no event. Raises ModelError."""
        if not (self.classifier or self.anomaly):
            raise ModelError(f"{self.name} has neither a classifier nor k-means anomaly detection: train one in Studio")
        if not (1 <= self.samples <= MOST_SAMPLES and 0 < self.interval_s < float("inf")):
            raise ModelError(
                f"{self.name} takes windows of {self.samples} samples, one every {self.interval_s:g} s; "
                f"1 to {MOST_SAMPLES} samples at a rate above 0 are possible: it is not one for an accelerometer"
            )
        blocks, places = [], {}
        at = 0
        for dsp in self._used():
            made = block(dsp, 1 / self.interval_s)
            found = _order(made, self._count(dsp, made)) + at
            blocks.append(made)
            places[dsp.number] = found
            at += len(found)
        classes = self.classifier.classes if self.classifier else ()
        return Model(
            name=self.name,
            source=self.source,
            samples=self.samples,
            interval_s=self.interval_s,
            full_scale_g=None,
            blocks=tuple(blocks),
            classes=classes,
            layers=_layers(self.classifier, places, at) if self.classifier else (),
            clusters=_clusters(self.anomaly, places) if self.anomaly else None,
            normal=_normal(classes, normal),
            threshold=self.classifier.threshold if self.classifier else CLASS_THRESHOLD,
        )

    def _used(self) -> list[Dsp]:
        """Blocks that something was trained on; the others cost a board time for nothing."""
        learning = [one for one in (self.classifier, self.anomaly) if one]
        wanted = {number for one in learning for number in one.dsp}
        found = [dsp for dsp in self.blocks if dsp.number in wanted]
        if not all(one.dsp for one in learning) or len(found) != len(wanted):
            raise ModelError(f"{self.name} was trained on processing blocks that it does not have: train it again")
        return found

    def _count(self, dsp: Dsp, made: Mapping[str, Any]) -> int:
        """Features of the block. Edge Impulse has to have counted as many, or they are not the same ones."""
        try:
            count = len(features_of.names([made], self.samples, 1 / self.interval_s))
        except BlockError as error:
            raise ModelError(f"block {dsp.number}: {error}") from None
        if dsp.features is not None and dsp.features != count:
            raise ModelError(
                f"block {dsp.number} ({dsp.kind}) gives {dsp.features} features at Edge Impulse, and {count} here: "
                "generate its features in Studio again; if that does not help, this kind is not implemented"
            )
        return count


def _order(made: Mapping[str, Any], count: int) -> npt.NDArray[np.int64]:
    """Where each feature of a block is here. Edge Impulse has raw samples by time, this has them by axis."""
    if made["type"] != "raw":
        return np.arange(count)
    return np.arange(count).reshape(len(made["axes"]), -1).T.ravel()


def _layers(of: Classifier, places: Mapping[int, npt.NDArray[np.int64]], width: int) -> tuple[Layer, ...]:
    """The net's, with weights of 0 for features that it does not take."""
    columns = np.concatenate([places[number] for number in of.dsp])
    first = of.net.layers[0]
    if of.net.inputs != len(columns):
        raise ModelError(f"the net takes {of.net.inputs} features, and its blocks give {len(columns)}: train it again")
    if of.net.outputs != len(of.classes):
        raise ModelError(f"the net gives {of.net.outputs} numbers for {len(of.classes)} classes: train it again")
    weights = np.zeros((len(first.bias), width), np.float32)
    weights[:, columns] = first.weights
    return (first._replace(weights=weights), *of.net.layers[1:])


def _clusters(of: KMeans, places: Mapping[int, npt.NDArray[np.int64]]) -> Clusters:
    features = np.concatenate([places[number] for number in of.dsp])
    if not all(0 <= axis < len(features) for axis in of.axes):
        raise ModelError(f"the k-means clusters are of features {of.axes}, and there are {len(features)}")
    mean, scale, reach = (np.array(values, np.float32) for values in (of.mean, of.scale, of.reach))
    try:
        centers = np.array(of.centers, np.float32).reshape(-1, len(of.axes))
    except ValueError:
        centers = np.empty((0, 0), np.float32)
    if not len(reach) or centers.shape != (len(reach), len(of.axes)) or not len(mean) == len(scale) == len(of.axes):
        raise ModelError("the k-means clusters do not fit their features: train the anomaly block again")
    if not all(np.isfinite(values).all() for values in (mean, scale, centers, reach)) or (scale == 0).any():
        raise ModelError("the k-means clusters are no finite numbers: train the anomaly block again")
    chosen = tuple(int(features[axis]) for axis in of.axes)
    return Clusters(chosen, mean, scale, centers, reach, of.threshold)


def _normal(classes: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in classes:
            raise ModelError(f"--normal {name}: the model's classes are {', '.join(classes) or 'none'}")
    return tuple(name for name in classes if name in wanted or (not wanted and name.lower() in NORMAL_NAMES))


# --- blocks -----------------------------------------------------------------------------------------------------------


def block(dsp: Dsp, rate_hz: float) -> dict[str, Any]:
    """As a model file has it. Raises ModelError for what is not implemented."""
    if dsp.kind not in _KINDS:
        raise ModelError(
            f"block {dsp.number} is of the kind {dsp.kind}, which is not implemented ({', '.join(_KINDS)} are): "
            "replace it in Studio"
        )
    parameters = _Parameters(dsp)
    made: dict[str, Any] = {"type": dsp.kind.removesuffix("-analysis"), "axes": _axes(dsp)}
    if (scale := parameters.number("scale-axes", 1)) != 1:
        made["scale"] = scale
    if dsp.kind == "spectral-analysis":
        made |= _spectral(dsp, parameters, rate_hz)
    elif dsp.version != 1:
        raise ModelError(f"block {dsp.number}: {dsp.kind} version {dsp.version} is not implemented (1 is)")
    elif dsp.kind == "flatten":
        made["of"] = _flattened(dsp, parameters)
    try:
        features_of.check(made)
    except BlockError as error:
        raise ModelError(f"block {dsp.number}: {error}") from None
    return made


def _spectral(dsp: Dsp, parameters: "_Parameters", rate_hz: float) -> dict[str, Any]:
    if dsp.version not in (2, 3, 4):
        raise ModelError(
            f"block {dsp.number}: spectral analysis version {dsp.version} is not implemented (2, 3 and 4 are): "
            "delete the block in Studio, and add it anew"
        )
    if dsp.version > 2 and (analysis := parameters.text("analysis-type", "FFT")) != "FFT":
        raise ModelError(f"block {dsp.number}: analysis {analysis} is not implemented: set its type to FFT in Studio")
    made: dict[str, Any] = {
        "version": dsp.version,
        "fft": parameters.whole("fft-length", 16),
        "log": parameters.flag("do-log", True),
        "overlap": parameters.flag("do-fft-overlap", True),
    }
    if dsp.version == 4:
        if (ratio := parameters.whole("input-decimation-ratio", 1)) != 1:
            made["decimation"] = ratio
        if parameters.flag("extra-low-freq", False):
            made["extra_low_freq"] = True
    return made | _filter(parameters, made, rate_hz)


def _filter(parameters: "_Parameters", made: Mapping[str, Any], rate_hz: float) -> dict[str, Any]:
    """One of order 0 only leaves bins out, and becomes `bins`, so that a board can run it."""
    kind = parameters.text("filter-type", "none")
    if kind == "none":
        return {}
    filtered = {
        "filter": kind,
        "cutoff_hz": parameters.number("filter-cutoff", 0),
        "order": parameters.whole("filter-order", 6),
    }
    if filtered["order"] or kind not in ("low", "high") or made.keys() & {"decimation", "extra_low_freq"}:
        return filtered
    return {"bins": list(features_of.bins({**made, **filtered}, rate_hz))}


def _flattened(dsp: Dsp, parameters: "_Parameters") -> list[str]:
    if parameters.whole("moving-avg-num-windows", 0):
        raise ModelError(f"block {dsp.number}: flatten's moving average is not implemented: set it to 0 in Studio")
    of = [name for name in features_of.FLATTENED if parameters.flag(name, True)]
    if not of:
        raise ModelError(f"block {dsp.number}: flatten gives no feature: choose some in Studio")
    return of


def _axes(dsp: Dsp) -> list[int]:
    """0, 1, 2 for x, y, z of the accelerometer."""
    found = [_AXIS.fullmatch(name.strip()) for name in dsp.axes]
    known = [match for match in found if match and match["stem"].lower() in _STEMS]
    axes = ["xyz".index(match["axis"].lower()) for match in known]
    if not axes or len(known) != len(dsp.axes) or len(set(axes)) != len(axes):
        raise ModelError(
            f"block {dsp.number} is of the axes {', '.join(dsp.axes) or 'none'}; x, y, z of one accelerometer are "
            "implemented, named as judder delivers them: accX, accY, accZ"
        )
    return axes


class _Parameters:
    """Those of a block, by name, as texts. A name that is not there has its default."""

    def __init__(self, dsp: Dsp) -> None:
        self._number = dsp.number
        self._values = {name.replace("_", "-"): str(value) for name, value in dsp.parameters.items()}

    def text(self, name: str, default: str) -> str:
        return self._values.get(name, default).strip()

    def number(self, name: str, default: float) -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise ModelError(f"block {self._number}: {name} is {text!r}, and should be a number")
        return value

    def whole(self, name: str, default: int) -> int:
        value = self.number(name, default)
        if value != int(value):
            raise ModelError(f"block {self._number}: {name} is {value:g}, and should be a whole number")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        text = self.text(name, str(default)).lower()
        if text not in ("true", "false", "1", "0"):
            raise ModelError(f"block {self._number}: {name} is {text!r}, and should be true or false")
        return text in ("true", "1")


# --- what to say of a model -------------------------------------------------------------------------------------------


def remarks(impulse: Impulse, model: Model) -> list[str]:
    """What its owner should know, a line each."""
    found = [line for made in model.blocks for line in refused_by_boards(made)]
    if impulse.classifier and impulse.classifier.net.steps:
        found.append(
            "the net is int8, and boards compute it in floats: probabilities are mostly 1 or 2 steps of 1/256 off the "
            "int8 net's, up to 30 where classes are close (docs/models.md); a float32 net comes out the same"
        )
    if model.classes and not model.normal:
        found.append(
            f"every class is an event ({', '.join(model.classes)}): say with --normal CLASS which are none "
            f"(without it: {', '.join(NORMAL_NAMES)})"
        )
    return found


def refused_by_boards(made: Mapping[str, Any]) -> list[str]:
    """Why a board will not run a block that the host runs, and what to change."""
    if made["type"] != "spectral":
        return []
    found = []
    low, high = BOARD_FFT_POINTS
    if not low <= made["fft"] <= high:
        found.append(f"its FFT of {made['fft']} points: set FFT length to {high} or less")
    if "decimation" in made:
        found.append(f"its decimation by {made['decimation']}: set input decimation ratio to 1, or sample more slowly")
    if "extra_low_freq" in made:
        found.append("its extra low frequencies: switch them off")
    return [f"the board refuses the spectral block for {line} in Studio, and train again" for line in found]
