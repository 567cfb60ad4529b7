"""Projects to import models from: trained on nothing, but shaped like real ones; nothing in here was exported."""

import io
import zipfile

import numpy as np
from tests import nets

from judder.emulator.studio import Block, Learn, Project
from judder.model import blocks as features_of

SPECTRAL = {
    "scale-axes": "1",
    "input-decimation-ratio": "1",
    "filter-type": "none",
    "filter-cutoff": "3",
    "filter-order": "6",
    "analysis-type": "FFT",
    "fft-length": "32",
    "spectral-peaks-count": "3",
    "spectral-peaks-threshold": "0.1",
    "spectral-power-edges": "0.1, 0.5, 1.0, 2.0, 5.0",
    "do-log": "true",
    "do-fft-overlap": "true",
    "wavelet-level": "1",
    "wavelet": "db4",
    "extra-low-freq": "false",
}
FLATTEN = {"scale-axes": "1", **dict.fromkeys(features_of.FLATTENED, "true"), "moving-avg-num-windows": "0"}
RAW = {"scale-axes": "1"}
CLASSES = ("idle", "grinding", "stuck")
SAMPLES, RATE_HZ = 400, 400.0
_C_TYPES = {"implementationVersion": "int", "blockId": "uint32_t"}


def spectral(number=2, version=4, axes=("accX", "accY", "accZ"), features=None, **parameters):
    changed = {name.replace("_", "-"): str(value) for name, value in parameters.items()}
    values = {**SPECTRAL, **changed}
    if features is None:
        per_axis = (5 if version == 4 else 3) + int(values["fft-length"]) // 2
        features = per_axis * len(axes)
    return Block(number, "spectral-analysis", version, values, features, axes)


def flatten(number=3, axes=("accX", "accY", "accZ"), **parameters):
    values = {**FLATTEN, **{name.replace("_", "-"): str(value) for name, value in parameters.items()}}
    chosen = sum(values[name] == "true" for name in features_of.FLATTENED)
    return Block(number, "flatten", 1, values, chosen * len(axes), axes)


def raw(number=4, axes=("accX", "accY", "accZ"), samples=SAMPLES, **parameters):
    return Block(number, "raw", 1, {**RAW, **parameters}, samples * len(axes), axes)


def classifier(blocks, classes=CLASSES, number=10, seed=1, hidden=(6,), thresholds=None, int8_only=False, **metadata):
    """A keras block on these, with its layers; and what the API says about it."""
    rng = np.random.default_rng(seed)
    inputs = sum(block.features for block in blocks)
    layers = nets.random_layers(rng, [inputs, *hidden, len(classes)])
    files = {"tflite-int8": nets.int8_graph(layers, rng.normal(0, 1, (50, inputs))).to_bytes()}
    if not int8_only:
        files["tflite-float"] = nets.float_graph(layers).to_bytes()
    known = {"classNames": list(classes), "hasTrainedModel": True, "mode": "classification"}
    known["thresholds"] = [{"key": "min_score", "value": 0.7}] if thresholds is None else thresholds
    dsp = tuple(block.number for block in blocks)
    return Learn(number, "keras", dsp, known | metadata, files), layers


def k_means(blocks, axes=(0, 1, 5), number=11, seed=2, clusters=4, thresholds=None):
    rng = np.random.default_rng(seed)
    known = {
        "axes": list(axes),
        "mean": rng.normal(0, 1, len(axes)).round(6).tolist(),
        "scale": rng.uniform(0.5, 2, len(axes)).round(6).tolist(),
        "clusters": [
            {"center": rng.normal(0, 1, len(axes)).round(6).tolist(), "maxError": round(float(rng.uniform(0.1, 1)), 6)}
            for _ in range(clusters)
        ],
        "defaultMinimumConfidenceRating": 0.3,
        "thresholds": [{"key": "min_anomaly_score", "value": 0.4}] if thresholds is None else thresholds,
    }
    return Learn(number, "anomaly", tuple(block.number for block in blocks), known)


def project(blocks, learning, number=7, name="fan bench", **more):
    window_ms = more.pop("window_ms", round(SAMPLES / RATE_HZ * 1000))
    return Project(number, name, window_ms, more.pop("rate_hz", RATE_HZ), blocks, learning, **more)


def usual(**more):
    """One spectral block, a classifier and k-means on it."""
    block = spectral()
    return project([block], [classifier([block])[0], k_means([block])], **more)


# --- a deployment's zip -----------------------------------------------------------------------------------------------


def zip_of(
    of,
    *,
    version=3,
    net="tflite",
    clusters_apart=True,
    suffix="",
    defines=None,
    more_variables="",
    prefix="",
    nets_more=None,
    stream=("accX", "accY", "accZ"),
):
    """As Studio lays out its C++ library, of the parts that an importer reads. `net`: tflite, array, eon."""
    variables, clusters = _variables(of, suffix, stream), _clusters(of, suffix)
    files = {
        "model-parameters/model_metadata.h": _metadata(of, version, stream, defines or {}),
        "model-parameters/model_variables.h": variables + more_variables + ("" if clusters_apart else clusters),
        "edge-impulse-sdk/README.md": "nothing to read here",
    }
    if clusters_apart and clusters:
        files["model-parameters/anomaly_metadata.h"] = clusters
    for one in of.learning:
        if one.files:
            content = one.files.get("tflite-float", one.files["tflite-int8"])
            files |= _net(one, content, net)
    files |= nets_more or {}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(prefix + name, text)
    return out.getvalue()


def _net(learn, content, net):
    name = f"tflite-model/tflite_learn_{learn.number}"
    numbers = ", ".join(f"0x{value:02x}" for value in content)
    array = f"const unsigned char tflite_learn_{learn.number}[] __attribute__((aligned(16))) = {{\n{numbers}\n}};\n"
    if net == "tflite":
        return {f"{name}.tflite": content, f"{name}.h": array}
    if net == "array":
        return {f"{name}.h": array}
    return {f"{name}_compiled.cpp": "const int8_t tensor_data3[2] = { 0x01, 0x02 };\n"}


def _metadata(of, version, stream, defines):
    known = {
        "EI_CLASSIFIER_PROJECT_ID": of.number,
        "EI_CLASSIFIER_PROJECT_NAME": f'"{of.name}"',
        "EI_CLASSIFIER_PROJECT_DEPLOY_VERSION": version,
        "EI_CLASSIFIER_RAW_SAMPLE_COUNT": round(of.window_ms * of.rate_hz / 1000),
        "EI_CLASSIFIER_RAW_SAMPLES_PER_FRAME": len(stream),
        "EI_CLASSIFIER_INTERVAL_MS": f"{1000 / of.rate_hz:.17g}",
        "EI_CLASSIFIER_FUSION_AXES_STRING": '"' + " + ".join(stream) + '"',
        "EI_CLASSIFIER_HAS_ANOMALY": "EI_ANOMALY_TYPE_KMEANS",
        "EI_CLASSIFIER_THRESHOLD": 0.6,
        "EI_CLASSIFIER_HAS_DATA_NORMALIZATION": 0,
        "EI_CLASSIFIER_OBJECT_DETECTION": 0,
    }
    lines = [f"#define {name:40} {value}" for name, value in (known | defines).items()]
    return "/* made for a test\n * not by Edge Impulse */\n\n#include <stdint.h>\n" + "\n".join(lines) + "\n"


def _variables(of, suffix, stream):
    parts = ["/* made for a test */\n#include <stdint.h>\n"]
    for one in of.learning:
        if "classNames" in one.metadata:
            names = ", ".join(f'"{name}"' for name in one.metadata["classNames"])
            parts.append(f"const char* ei_classifier_inferencing_categories{suffix}[] = {{ {names} }};\n")
    parts += [_block(block, suffix, stream) for block in of.blocks]
    parts.append(f"ei_model_dsp_t ei_dsp_blocks{suffix}[{len(of.blocks)}] = {{\n")
    for block in of.blocks:
        parts.append(
            f"    {{ // DSP block {block.number}\n        {block.number},\n        {block.features}, // output size\n"
        )
        parts.append(f"        (void*)&ei_dsp_config{suffix}_{block.number}, // pointer to config struct\n    }},\n")
    parts.append("};\n")
    for one in of.learning:
        inputs = ", ".join(map(str, one.dsp))
        parts.append(
            f"const uint32_t ei_learning_block{suffix}_{one.number}_inputs[{len(one.dsp)}] = {{ {inputs} }};\n"
        )
    parts.append(f"const ei_learning_block_t ei_learning_blocks{suffix}[{len(of.learning)}] = {{\n")
    for one in of.learning:
        function = {"keras": "run_nn_inference", "anomaly": "run_kmeans_anomaly"}.get(one.kind, f"run_{one.kind}")
        parts.append(
            f"    {{\n        {one.number},\n        false,\n        &{function},\n"
            f"        (void*)&ei_learning_block_config{suffix}_{one.number},\n"
            "        EI_CLASSIFIER_IMAGE_SCALING_NONE,\n    },\n"
        )
    parts.append(f"}};\nconst ei_impulse_t impulse{suffix}_1 = {{\n    .project_id = {of.number},\n}};\n")
    return "".join(parts)


def _block(block, suffix, stream):
    name = f"ei_dsp_config{suffix}_{block.number}"
    axes = ", ".join(str(stream.index(axis)) for axis in block.axes)
    values = {"blockId": str(block.number), "implementationVersion": str(block.version)}
    values |= {"length of axes": str(len(block.axes)), **block.parameters}
    lines = [f"    {_literal(key, value)}, // {_C_TYPES.get(key, 'float')} {key}" for key, value in values.items()]
    lines[-1] = lines[-1].replace(", //", " //", 1)
    body = "\n".join(lines)
    kind = block.kind.replace("-", "_")
    return (
        f"EI_CLASSIFIER_DSP_AXES_INDEX_TYPE {name}_axes[] = {{ {axes} }};\n"
        f"const uint32_t {name}_axes_size = {len(block.axes)};\n"
        f"ei_dsp_config_{kind}_t {name} = {{\n{body}\n}};\n"
    )


def _literal(key, value):
    if value in ("true", "false"):
        return value
    try:
        float(value)
    except ValueError:
        return f'"{value}"'
    return f"{value}.0f" if key in ("scale-axes", "filter-cutoff") and "." not in value else value


def _clusters(of, suffix):
    found = ""
    for one in of.learning:
        if one.kind == "anomaly":
            width, known = len(one.metadata["axes"]), one.metadata
            found += f"const uint16_t ei_classifier_anom_axes{suffix}[] = {{ {_row(known['axes'])} }};\n"
            for name in ("scale", "mean"):
                found += f"const float ei_classifier_anom_{name}{suffix}[{width}] = {{ {_row(known[name])} }};\n"
            rows = "".join(
                f"\t{{ ( float[{width}] ) {{ {_row(cluster['center'])} }}, {cluster['maxError']} }},\n"
                for cluster in known["clusters"]
            )
            count = len(known["clusters"])
            found += (
                f"const ei_classifier_anom_cluster_t ei_classifier_anom_clusters{suffix}[{count}] = {{\n{rows}}};\n"
            )
    return found


def _row(values):
    return ", ".join(map(str, values))
