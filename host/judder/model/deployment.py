"""Edge Impulse's C++ library, as Studio's Deployment page builds it: the impulse in the headers of its zip.

Headers are generated, one form for all impulses; read were those that public repositories hold, of 2023 to 2026. Each
parameter of a processing block stands on a line of its own, with its name as a comment. They are licensed by Edge
Impulse: nothing of one belongs into this repository, and tests write their own.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import PurePosixPath
from typing import TypeVar

from judder.model import tflite
from judder.model.file import CLASS_THRESHOLD, ModelError
from judder.model.impulse import Classifier, Dsp, Impulse, KMeans

MOST_BYTES = 64 * 1024 * 1024
MOST_HEADER_BYTES = 4 * 1024 * 1024
EON = (
    "the zip holds the net as code of the EON compiler, not as a .tflite file: build it in Studio with the engine "
    "TensorFlow Lite and quantization Unoptimized (float32), or give the net with --tflite FILE (Studio: Dashboard, "
    "TensorFlow Lite (float32))"
)
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, OSError, RuntimeError, ValueError),
    ArithmeticError,  # of numbers beyond all bounds
)
_SWITCHES = {
    "EI_CLASSIFIER_HAS_DATA_NORMALIZATION": "data normalization",
    "EI_CLASSIFIER_OBJECT_DETECTION": "object detection",
    "EI_CLASSIFIER_OBJECT_TRACKING_ENABLED": "object tracking",
    "EI_CLASSIFIER_CALIBRATION_ENABLED": "performance calibration",
    "EI_CLASSIFIER_FREEFORM_OUTPUT": "free-form output",
    "EI_CLASSIFIER_HAS_ANOMALY_GMM": "GMM anomaly detection (K-means is implemented)",
    "EI_CLASSIFIER_HAS_VISUAL_ANOMALY": "visual anomaly detection",
}
_TYPES = {"data normalization": "ei_data_normalization_t"}
"""What stands in model_variables.h where a part is used, whatever its switch says."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PARAMETER = re.compile(r"^\s*(?:\(char\s*\*\)\s*)?(\"[^\"]*\"|[^,\s]+),?\s*//\s*\w+\s+(\S.*?)\s*$", re.MULTILINE)
_DSP = re.compile(r"ei_dsp_config_(\w+)_t\s+ei_dsp_config_(\w+)\s*=\s*\{(.{0,20000}?)\};", re.DOTALL)
_OUTPUT = re.compile(r"\{\s*//\s*DSP block (\d+)\s+\d+,\s*(\d+),")
_LEARN = re.compile(r"\{\s*\d+,\s*(?:\w+,\s*)?&(\w+),\s*\(void\s*\*\)\s*&ei_learning_block_config_(\w+)")
_CLUSTER = re.compile(rf"\{{([^{{}}]*)\}},\s*({_NUMBER})f?\s*\}}")
_ARRAY = re.compile(r"\][^=;{}]{0,200}=\s{0,200}\{([\s0-9a-fA-FxX,]+)\}")
_T = TypeVar("_T", int, float)


def read(data: bytes, net: bytes | None = None) -> Impulse:
    """The impulse of a deployment's zip; `net` is a .tflite file to use instead of its own. Raises ModelError."""
    with _opened(data) as archive:
        return _Headers(archive).impulse(net, archive)


def net_of(data: bytes) -> bytes:
    """The .tflite file in a deployment's zip. Raises ModelError."""
    with _opened(data) as archive:
        return _net_of(archive)


@contextmanager
def _opened(data: bytes) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            yield archive
    except ModelError:
        raise
    except _DAMAGED as error:
        name = type(error).__name__
        raise ModelError(f"the zip, or a header in it, is damaged ({name}): download it again") from None


def _net_of(archive: zipfile.ZipFile) -> bytes:
    found = {
        PurePosixPath(name).name: _content(archive, name, tflite.MOST_BYTES)
        for name in archive.namelist()
        if PurePosixPath(name).suffix == ".tflite"
    }
    found = found or _arrays(archive)
    if not found:
        raise ModelError(EON)
    if len(found) > 1:
        names = ", ".join(found)
        raise ModelError(f"the zip holds several nets ({names}): unpack it, and give one of them with --tflite FILE")
    return next(iter(found.values()))


def _arrays(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Nets that older deployments have as arrays of C, by the names of their files."""
    found = {}
    for name in archive.namelist():
        path = PurePosixPath(name)
        if path.parts[-2:-1] == ("tflite-model",) and path.suffix in (".h", ".c", ".cpp"):
            for body in _ARRAY.findall(_content(archive, name, 6 * tflite.MOST_BYTES).decode("latin-1")):
                data = bytes(int(value, 16) for value in re.findall("0x([0-9a-fA-F]{2})", body))
                if data[4:8] == tflite.IDENTIFIER:
                    found[path.name] = data
    return found


def _content(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    size = archive.getinfo(name).file_size
    if size > most_bytes:
        raise ModelError(f"{name} in the zip has {size} bytes; up to {most_bytes} are read")
    with archive.open(name) as member:
        return member.read(most_bytes)  # what the zip says of its size may be a lie


class _Headers:
    """The texts of `model-parameters`, without the comments that run over lines."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._metadata = self._header(archive, "model_metadata.h")
        self._variables = self._header(archive, "model_variables.h")
        if not self._metadata or not self._variables:
            raise ModelError(
                "the zip has no model-parameters/model_metadata.h and model_variables.h: give the zip of Studio's "
                "deployment C++ library"
            )
        self._clusters = self._header(archive, "anomaly_metadata.h") or self._variables

    @staticmethod
    def _header(archive: zipfile.ZipFile, name: str) -> str:
        for path in archive.namelist():
            if PurePosixPath(path).parts[-2:] == ("model-parameters", name):
                text = _content(archive, path, MOST_HEADER_BYTES).decode("utf-8", "replace")
                return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
        return ""

    def impulse(self, net: bytes | None, archive: zipfile.ZipFile) -> Impulse:
        self._check()
        name = self._text("EI_CLASSIFIER_PROJECT_NAME")
        project, version = (
            self._define("EI_CLASSIFIER_PROJECT_ID"),
            self._define("EI_CLASSIFIER_PROJECT_DEPLOY_VERSION"),
        )
        classifier = anomaly = None
        for function, config in self._learning():
            if function == "run_kmeans_anomaly" and not anomaly:
                anomaly = self._kmeans(config)
            elif function == "run_nn_inference" and not classifier:
                classifier = self._classifier(config, tflite.read(net or _net_of(archive)))
            else:
                raise ModelError(
                    f"the impulse has a learning block that is not implemented ({function}; one classifier and one "
                    "K-means anomaly detection are)"
                )
        return Impulse(
            name=name,
            source=f"Edge Impulse project {project} ({name}), deployment {version}",
            samples=self._number("EI_CLASSIFIER_RAW_SAMPLE_COUNT", int),
            interval_s=self._number("EI_CLASSIFIER_INTERVAL_MS", float) / 1000,
            blocks=self._blocks(),
            classifier=classifier,
            anomaly=anomaly,
        )

    def _check(self) -> None:
        for switch, name in _SWITCHES.items():
            if self._define(switch, "0") not in ("0", "false") or (name in _TYPES and _TYPES[name] in self._variables):
                raise ModelError(
                    f"the impulse has {name}, which is not implemented: switch it off in Studio, train and build again"
                )
        kind = self._define("EI_CLASSIFIER_HAS_ANOMALY", "0")
        if kind not in ("0", "1", "EI_ANOMALY_TYPE_UNKNOWN", "EI_ANOMALY_TYPE_KMEANS"):
            raise ModelError(f"the impulse has anomaly detection of the kind {kind}; K-means is implemented")
        kinds = set(re.findall(r"\bEI_CLASSIFIER_(?:TYPE|CLASSIFICATION_MODE|MODE)_(\w+)", self._variables))
        if other := kinds - {"CLASSIFICATION", "ANOMALY_KMEANS"}:
            raise ModelError(
                f"the impulse does {', '.join(sorted(other)).lower()}, which is not implemented: classification is"
            )
        if len(re.findall(r"\bei_impulse_t\s+\w+\s*=", self._variables)) > 1:
            raise ModelError("the zip holds several impulses: deploy one of them in Studio")

    # --- its blocks

    def _blocks(self) -> tuple[Dsp, ...]:
        stream = [name.strip() for name in self._text("EI_CLASSIFIER_FUSION_AXES_STRING").split("+")]
        counts = {int(number): int(count) for number, count in _OUTPUT.findall(self._variables)}
        found = []
        for kind, suffix, body in _DSP.findall(self._variables):
            parameters = {name: _value(text) for text, name in _PARAMETER.findall(body)}
            number = int(parameters.get("blockId", suffix.rpartition("_")[2]))
            axes = tuple(stream[axis] if axis < len(stream) else f"number {axis}" for axis in self._axes(suffix))
            version = int(parameters.get("implementationVersion", 1))
            found.append(Dsp(number, kind.replace("_", "-"), version, axes, parameters, counts.get(number)))
        return tuple(found)

    def _axes(self, suffix: str) -> list[int]:
        return [int(value) for value in self._values(self._variables, rf"ei_dsp_config_{re.escape(suffix)}_axes")]

    def _learning(self) -> list[tuple[str, str]]:
        return [(function, config) for function, config in _LEARN.findall(self._variables)]

    def _inputs(self, config: str) -> tuple[int, ...]:
        return tuple(map(int, self._values(self._variables, rf"ei_learning_block_{re.escape(config)}_inputs")))

    def _classifier(self, config: str, net: tflite.Net) -> Classifier:
        found = re.search(r"\bei_classifier_inferencing_categories\w*\[\]\s*=\s*\{(.*?)\};", self._variables, re.DOTALL)
        if not found:
            raise ModelError("model_variables.h names no classes: is it one that Edge Impulse made?")
        classes = tuple(json.loads(text, strict=False) for text in re.findall(r'"(?:[^"\\]|\\.)*"', found[1]))
        threshold = float(self._define("EI_CLASSIFIER_THRESHOLD", str(CLASS_THRESHOLD)).removesuffix("f"))
        return Classifier(self._inputs(config), classes, net, threshold)

    def _kmeans(self, config: str) -> KMeans:
        found = re.search(r"\bei_classifier_anom_clusters\w*\s*\[\w*\]\s*=\s*\{(.*?)\};", self._clusters, re.DOTALL)
        clusters = _CLUSTER.findall(found[1]) if found else []
        return KMeans(
            dsp=self._inputs(config),
            axes=tuple(map(int, self._values(self._clusters, r"ei_classifier_anom_axes\w*"))),
            mean=self._values(self._clusters, r"ei_classifier_anom_mean\w*"),
            scale=self._values(self._clusters, r"ei_classifier_anom_scale\w*"),
            centers=[[float(value) for value in re.findall(_NUMBER, center)] for center, _ in clusters],
            reach=[float(reach) for _, reach in clusters],
        )

    # --- what stands in them

    def _values(self, text: str, name: str) -> list[float]:
        """Of an array of numbers."""
        found = re.search(rf"\b{name}\s*\[\w*\]\s*=\s*\{{([^{{}}]*)\}}", text)
        if not found:
            name = name.replace("\\w*", "")
            raise ModelError(f"the headers in the zip have no array {name}: is it one that Edge Impulse made?")
        return [float(value) for value in re.findall(_NUMBER, found[1])]

    def _define(self, name: str, default: str | None = None) -> str:
        found = re.search(rf"^\s*#define\s+{name}\s+(.+?)\s*(?://.*)?$", self._metadata, re.MULTILINE)
        if not found and default is None:
            raise ModelError(f"model_metadata.h in the zip does not define {name}: is it one that Edge Impulse made?")
        return found[1] if found else str(default)

    def _text(self, name: str) -> str:
        return str(json.loads(self._define(name), strict=False))

    def _number(self, name: str, kind: Callable[[str], _T]) -> _T:
        return kind(self._define(name).removesuffix("f"))


def _value(text: str) -> str:
    """Of a literal of C: a text, a truth value or a number."""
    if text[0] == '"':
        return text.strip('"')
    return text if text in ("true", "false") else text.rstrip("fF")
