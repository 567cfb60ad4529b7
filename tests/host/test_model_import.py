"""Models of Edge Impulse: from the emulated Studio by HTTP, and from zips of deployments."""

import asyncio
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import nets
from tests.impulses import (
    CLASSES,
    RATE_HZ,
    SAMPLES,
    classifier,
    flatten,
    k_means,
    project,
    raw,
    spectral,
    usual,
    zip_of,
)
from typer.testing import CliRunner

from judder.background import background
from judder.cli import app
from judder.emulator import studio as emulated
from judder.emulator.studio import Fault, Learn, Studio
from judder.model import blocks as features_of
from judder.model import deployment, studio
from judder.model.blocks import BlockError
from judder.model.file import GOLDEN_SCALE, ModelError, for_board, from_bytes
from judder.model.impulse import Dsp, block, refused_by_boards, remarks
from node import features as board_features
from node.model import Model as BoardModel
from node.model import ModelError as BoardError

KEY = "ei_0123"
RNG = np.random.default_rng(9)
ZIP = zip_of(usual())
WINDOW = RNG.normal((0, 0, 9.81), 1, (SAMPLES, 3))


@pytest.fixture(scope="module")
def server():
    """One for all: each test gives it its projects and faults."""
    with background(lambda: emulated.running(Studio(KEY, []))) as service:
        yield service


@pytest.fixture
def service(server):
    server.projects, server.faults, server.requests = [], [], []
    server.job_polls, server.job_succeeds = 1, True
    return server


class Pauses(list):
    async def __call__(self, seconds):
        self.append(seconds)


def fetched(service, *projects, number=None, key=KEY, pauses=None):
    """What Studio, with these projects, is read as."""
    if projects:
        service.projects = list(projects)
    return asyncio.run(studio.fetch(key, number, service.url, sleep=Pauses() if pauses is None else pauses))


def refused(service, *projects, **options):
    """The line that says why a project is not imported."""
    with pytest.raises(ModelError) as raised:
        fetched(service, *projects, **options).model()
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- the same model from both -----------------------------------------------------------------------------------------


def both(service, of, **options):
    """The impulse from Studio, and from the zip of its deployment."""
    return fetched(service, of), deployment.read(zip_of(of, **options))


def partly():
    """A net and clusters on different blocks, in another order than the impulse has them; one block for nobody."""
    blocks = [
        spectral(2, axes=("accZ", "accX")),
        flatten(3, skewness="false"),
        raw(4, axes=("accY", "accX")),
        flatten(5),
    ]
    learn, _ = classifier([blocks[2], blocks[0]], thresholds=[])
    return project(blocks, [learn, k_means([blocks[1], blocks[0]], axes=(20, 3, 17), thresholds=[])])


def anomaly_only():
    block = spectral(version=3)
    return project([block], [k_means([block])])


@pytest.mark.parametrize("of", [usual, partly, anomaly_only])
def test_studio_and_zip_give_the_same_model(service, of):
    asked, unpacked = both(service, of())
    one, two = asked.model(), unpacked.model()
    assert "".join(one.source.partition(", ")[:1]) == "Edge Impulse project 7 (fan bench)"
    assert two.source == "Edge Impulse project 7 (fan bench), deployment 3"
    assert one.blocks == two.blocks
    assert one.interval_s == pytest.approx(two.interval_s)
    assert (one.samples, one.classes, one.normal) == (two.samples, two.classes, two.normal)
    for mine, other in zip(one.layers, two.layers, strict=True):
        np.testing.assert_array_equal(mine.weights, other.weights)
    found, expected = one.score(WINDOW), two.score(WINDOW)
    np.testing.assert_allclose(found.probabilities, expected.probabilities)
    assert found.anomaly == expected.anomaly


@pytest.mark.parametrize("of", [usual, partly, anomaly_only])
def test_boards_prove_imported_models_and_find_the_same_features(service, of):
    model = fetched(service, of()).model()
    data = model.to_bytes()
    again, _ = from_bytes(data)
    board = BoardModel(io.BytesIO(data))
    board.prove()
    counts = np.clip(WINDOW / GOLDEN_SCALE, -32768, 32767).astype("<i2")
    on_host, on_board = again.score(counts * GOLDEN_SCALE), board.score(counts.ravel(), GOLDEN_SCALE)
    np.testing.assert_allclose(np.array(on_board.features, float), on_host.features, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(on_board.probabilities, on_host.probabilities, atol=1e-3)
    assert on_board.anomaly == pytest.approx(on_host.anomaly, abs=1e-3)


def test_scores_are_those_of_the_net_on_features_in_edge_impulses_order(service):
    """Raw samples come by time there; features of the blocks in the order that the learning block has them."""
    blocks = [spectral(2, axes=("accZ", "accX")), raw(4, axes=("accY", "accX"))]
    learn, layers = classifier([blocks[1], blocks[0]])
    model = fetched(service, project(blocks, [learn])).model()
    of_spectrum = features_of.compute(model.blocks[:1], WINDOW, RATE_HZ)
    features = np.concatenate((WINDOW[:, [1, 0]].ravel(), of_spectrum))
    np.testing.assert_allclose(
        model.score(WINDOW).probabilities, nets.forward(layers, features[np.newaxis])[1][0], atol=1e-9
    )


def test_anomaly_is_the_distance_from_the_nearest_cluster(service):
    blocks = [flatten(3), spectral(2)]
    learn = k_means([blocks[1], blocks[0]], axes=(0, 65, 70))
    model = fetched(service, project(blocks, [learn])).model()
    values = features_of.compute(model.blocks, WINDOW, RATE_HZ)
    values = np.concatenate((values[21:], values[:21]))[[0, 65, 70]]
    known = learn.metadata
    scaled = (values - known["mean"]) / known["scale"]
    distances = [np.linalg.norm(scaled - one["center"]) - one["maxError"] for one in known["clusters"]]
    assert model.score(WINDOW).anomaly == pytest.approx(min(distances), rel=1e-5)


def test_what_nobody_was_trained_on_is_left_out(service):
    of = partly()
    of.blocks.append(spectral(9, version=1))
    model = fetched(service, of).model()
    assert [block["type"] for block in model.blocks] == ["spectral", "flatten", "raw"]
    assert not any("/dsp/9" in request for request in service.requests)


def test_thresholds_are_studios_or_its_defaults(service):
    model = fetched(service, usual()).model()
    assert (model.threshold, model.clusters.threshold) == (0.7, 0.4)
    model = fetched(service, partly()).model()
    assert (model.threshold, model.clusters.threshold) == (0.6, 0.3)
    block = spectral()
    several = [{"key": "other", "value": 9}, {"key": "text", "value": "x"}, {"key": "min_score", "value": 0.8}]
    model = fetched(service, project([block], [classifier([block], thresholds=several)[0]])).model()
    assert model.threshold == 0.8
    model = deployment.read(zip_of(usual(), defines={"EI_CLASSIFIER_THRESHOLD": "0.75f"})).model()
    assert model.threshold == 0.75


def test_normal_classes(service):
    impulse = fetched(service, usual())
    assert impulse.model().normal == ("idle",)
    assert impulse.model(["stuck", "grinding"]).normal == ("grinding", "stuck")
    with pytest.raises(ModelError, match="--normal off: the model's classes are idle, grinding, stuck"):
        impulse.model(["off"])
    block = spectral()
    other = fetched(service, project([block], [classifier([block], ("low", "high"))[0]]))
    assert other.model().normal == ()
    assert any("every class is an event (low, high)" in line for line in remarks(other, other.model()))
    shouted = fetched(service, project([block], [classifier([block], ("OK", "bad"))[0]]))
    assert shouted.model().normal == ("OK",)


# --- versions and forms -----------------------------------------------------------------------------------------------


def test_the_source_names_the_deployment_or_when_it_was_trained(service):
    of = usual(builds={4: b"", 5: b""})
    assert fetched(service, of).source == "Edge Impulse project 7 (fan bench), impulse 1, deployment 5"
    of.changed = True
    assert fetched(service, of).source == "Edge Impulse project 7 (fan bench), impulse 1, trained 2026-03-01T09:30:00"


def test_without_a_float32_net_the_int8_one_is_taken_and_said(service):
    block = spectral()
    impulse = fetched(service, project([block], [classifier([block], int8_only=True)[0]]))
    assert impulse.classifier.net.steps
    assert any("int8" in line for line in remarks(impulse, impulse.model()))


def test_without_any_net_to_download_a_deployment_is_built(service):
    of = usual()
    of.next_build = zip_of(usual())
    of.learning[0].files = {}
    service.job_polls = 3
    pauses = Pauses()
    impulse = fetched(service, of, pauses=pauses)
    assert impulse.source.endswith("impulse 1, deployment 1")
    assert pauses == [studio.JOB_INTERVAL_S] * 2
    assert impulse.model().layers
    assert "POST /v1/api/7/jobs/build-ondevice-model?type=zip" in service.requests


def test_a_build_that_fails(service):
    of = usual()
    of.learning[0].files = {}
    service.job_succeeds = False
    assert "could not build the net (job 100" in refused(service, of)
    service.job_polls = 10**6
    assert "is not done after 600 s" in refused(service, of)


def test_a_build_of_the_eon_compiler_says_what_to_do(service):
    of = usual()
    of.next_build = zip_of(usual(), net="eon")
    of.learning[0].files = {}
    assert "EON compiler" in refused(service, of)


@pytest.mark.parametrize("net", ["tflite", "array"])
@pytest.mark.parametrize("suffix", ["", "_7"])
@pytest.mark.parametrize("apart", [True, False])
def test_forms_of_zips(net, suffix, apart):
    found = deployment.read(zip_of(usual(), net=net, suffix=suffix, clusters_apart=apart, prefix="lib/src/")).model()
    expected = deployment.read(zip_of(usual())).model()
    assert found.to_bytes() == expected.to_bytes()


def test_a_net_beside_the_zip():
    of = usual()
    with pytest.raises(ModelError, match=r"EON compiler.*TensorFlow Lite.*--tflite FILE"):
        deployment.read(zip_of(of, net="eon"))
    net = of.learning[0].files["tflite-float"]
    assert deployment.read(zip_of(of, net="eon"), net).model().layers


def test_old_zips_without_block_numbers_in_the_struct():
    of = usual()
    data = zip_of(of)
    text = "    2, // uint32_t blockId\n"
    changed = rewritten(data, "model_variables.h", lambda content: content.replace(text, ""))
    assert deployment.read(changed).model().to_bytes() == deployment.read(data).model().to_bytes()


@pytest.mark.parametrize("comment", ["// output size", ""])
def test_the_count_of_features_is_held_against_ours(comment):
    def change(text):
        return text.replace("63, // output size", f"62, {comment}")

    with pytest.raises(ModelError, match="gives 62 features at Edge Impulse, and 63 here"):
        deployment.read(rewritten(zip_of(usual()), "model_variables.h", change)).model()


def rewritten(data, name, change):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as after:
        for path in before.namelist():
            content = before.read(path)
            after.writestr(path, change(content.decode()) if path.endswith(name) else content)
    return out.getvalue()


# --- blocks -----------------------------------------------------------------------------------------------------------


def blocks_of(service, block):
    return fetched(service, project([block], [classifier([block])[0]])).model().blocks


@pytest.mark.parametrize("version", [2, 3, 4])
def test_spectral_blocks(service, version):
    block = spectral(version=version, fft_length=64, scale_axes=0.5, do_log="false", do_fft_overlap="false")
    assert blocks_of(service, block) == (
        {
            "type": "spectral",
            "version": version,
            "axes": [0, 1, 2],
            "scale": 0.5,
            "fft": 64,
            "log": False,
            "overlap": False,
        },
    )


def test_a_filter_runs_on_boards(service):
    block = spectral(filter_type="high", filter_cutoff=20, filter_order=4, features=3 * (5 + 15))
    impulse = fetched(service, project([block], [k_means([block])]))
    model = impulse.model()
    assert remarks(impulse, model) == []
    BoardModel(io.BytesIO(model.to_bytes())).prove()


def test_a_filter_of_order_0_becomes_bins_and_runs_on_boards(service):
    block = spectral(filter_type="low", filter_cutoff=50, filter_order=0, features=3 * (5 + 4))
    impulse = fetched(service, project([block], [classifier([block])[0]]))
    model = impulse.model()
    assert model.blocks[0]["bins"] == [1, 5]
    assert "filter" not in model.blocks[0]
    assert remarks(impulse, model) == []
    BoardModel(io.BytesIO(model.to_bytes())).prove()


@pytest.mark.parametrize(
    ("parameters", "features", "words"),
    [
        ({"input_decimation_ratio": 3}, 3 * 21, "decimation by 3"),
        ({"extra_low_freq": "true"}, 6 * 21, "extra low frequencies"),
        ({"fft_length": 2048}, 3 * (5 + 1024), "FFT of 2048 points"),
    ],
)
def test_what_boards_refuse_is_imported_and_said(service, parameters, features, words):
    block = spectral(features=features, **parameters)
    impulse = fetched(service, project([block], [k_means([block])]))
    model = impulse.model()
    (line,) = remarks(impulse, model)
    assert words in line
    assert "in Studio" in line
    data = model.to_bytes()
    assert from_bytes(data)[0].blocks == model.blocks
    with pytest.raises(BoardError, match="this firmware cannot run it"):
        BoardModel(io.BytesIO(data))


@given(
    fft=st.sampled_from([16, 1024, 2048, 4096]),
    decimation=st.sampled_from([1, 3]),
    order=st.sampled_from([0, 2]),
    kind=st.sampled_from(["none", "low", "high"]),
    low=st.booleans(),
)
@settings(max_examples=60)
def test_boards_refuse_what_is_said_and_no_more(fft, decimation, order, kind, low):
    """The board's rule is written twice, as host and board share no code: here they are held together."""
    parameters = {"fft-length": fft, "input-decimation-ratio": decimation, "filter-type": kind, "filter-cutoff": 30}
    parameters |= {"filter-order": order, "extra-low-freq": low}
    made = block(Dsp(2, "spectral-analysis", 4, ("x", "y", "z"), parameters), RATE_HZ)
    try:
        board_features.check(for_board(made, RATE_HZ))
    except board_features.BlockError:
        assert refused_by_boards(made)
    else:
        assert not refused_by_boards(made)


def test_flatten_and_raw_blocks(service):
    assert blocks_of(service, flatten(average="false", kurtosis="false", axes=("accY",))) == (
        {"type": "flatten", "axes": [1], "of": ["minimum", "maximum", "rms", "stdev", "skewness"]},
    )
    assert blocks_of(service, raw(axes=("accZ",))) == ({"type": "raw", "axes": [2]},)


@pytest.mark.parametrize("axes", [("x", "y", "z"), ("acc_x", "ACC_Y", "accZ"), ("accelerometer.x",), ("accel z", "ax")])
def test_axes_of_an_accelerometer(service, axes):
    block = spectral(axes=axes)
    assert blocks_of(service, block)[0]["axes"] == ["xyz".index(name[-1].lower()) for name in axes]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (spectral(version=1), "spectral analysis version 1 is not implemented (2, 3 and 4 are): delete the block"),
        (spectral(version=5), "spectral analysis version 5"),
        (spectral(analysis_type="Wavelet"), "analysis Wavelet is not implemented: set its type to FFT"),
        (spectral(fft_length=24), "FFT of 24 points"),
        (spectral(scale_axes="much"), "scale-axes is 'much', and should be a number"),
        (spectral(input_decimation_ratio=1.5), "input-decimation-ratio is 1.5, and should be a whole number"),
        (spectral(input_decimation_ratio=7), "decimation 7 is none of"),
        (spectral(filter_type="band"), "filter band"),
        (spectral(filter_type="low", filter_order=3), "filter order 3"),
        (spectral(do_log="perhaps"), "do-log is 'perhaps', and should be true or false"),
        (flatten(moving_avg_num_windows=4), "moving average is not implemented: set it to 0"),
        (flatten(**dict.fromkeys(features_of.FLATTENED, "false")), "flatten gives no feature"),
        (spectral(axes=("gyrX", "gyrY", "gyrZ")), "of the axes gyrX, gyrY, gyrZ; x, y, z of one accelerometer"),
        (spectral(axes=("accX", "temperature")), "of the axes accX, temperature"),
        (spectral(axes=("accX", "acc_x")), "of the axes accX, acc_x"),
        (spectral(features=99), "gives 99 features at Edge Impulse, and 63 here"),
    ],
)
def test_blocks_that_are_refused(service, block, words):
    line = refused(service, project([block], [k_means([block], axes=(0,))]))
    assert words in line
    assert line.startswith(("block 2", "block 3"))


@pytest.mark.parametrize("kind", ["mfcc", "mfe", "spectrogram", "image", "custom"])
def test_kinds_of_blocks_that_are_refused(service, kind):
    block = spectral()
    block.kind = kind
    assert f"is of the kind {kind}, which is not implemented" in refused(service, project([block], [k_means([block])]))


# --- what else is refused ---------------------------------------------------------------------------------------------


def normalised():
    of = usual()
    of.blocks[0].normalize = "normalize-channel-standard-scaler"
    return of


def without_features():
    of = usual()
    of.blocks[0].generated = False
    return of


def with_learning(kind):
    def made():
        of = usual()
        of.learning.append(Learn(12, kind, (2,)))
        return of

    made.__name__ = f"with_{kind}"
    return made


def two_nets():
    of = usual()
    of.learning.append(classifier(of.blocks, number=12)[0])
    return of


def untrained():
    of = usual()
    of.learning[0].metadata["hasTrainedModel"] = False
    return of


def regression():
    of = usual()
    of.learning[0].metadata["mode"] = "regression"
    return of


def other_features():
    of = usual()
    of.learning[0] = classifier([spectral(fft_length=64)])[0]
    return of


def other_classes():
    of = usual()
    of.learning[0].metadata["classNames"] = ["one", "two"]
    return of


def clusters_of_nothing():
    of = usual()
    of.learning[1].metadata["axes"] = [0, 1, 500]
    return of


def clusters_that_do_not_fit():
    of = usual()
    of.learning[1].metadata["mean"] = [1.0]
    return of


def clusters_of_nan():
    of = usual()
    of.learning[1].metadata["scale"] = [0.0, 1.0, 1.0]
    return of


def blocks_that_are_gone():
    of = usual()
    of.learning[0].dsp = (2, 77)
    return of


def much_too_large():
    block = spectral()
    return project([block], [classifier([block], hidden=(200, 200))[0]])


def a_bad_net():
    of = usual()
    of.learning[0].files["tflite-float"] = of.learning[0].files["tflite-float"][:300]
    return of


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (normalised, "normalised (normalize-channel-standard-scaler), which is not implemented: switch"),
        (without_features, "has made no features yet: generate them"),
        (with_learning("anomaly-gmm"), "kind anomaly-gmm, which is not implemented (keras"),
        (with_learning("keras-transfer-image"), "kind keras-transfer-image"),
        (with_learning("keras-regression"), "kind keras-regression"),
        (two_nets, "several learning blocks of one kind (keras, anomaly, keras)"),
        (untrained, "the classifier is not trained"),
        (regression, "the net does regression; classification is implemented"),
        (other_features, "the net takes 111 features, and its blocks give 63"),
        (other_classes, "the net gives 3 numbers for 2 classes"),
        (clusters_of_nothing, "clusters are of features (0, 1, 500)"),
        (clusters_that_do_not_fit, "clusters do not fit their features"),
        (clusters_of_nan, "clusters are no finite numbers"),
        (blocks_that_are_gone, "processing blocks that it does not have"),
        (a_bad_net, "the .tflite file is damaged"),
        (lambda: usual(post_processing=["object-tracking"]), "has post-processing (object-tracking)"),
        (lambda: usual(input_kind="image"), "takes image in; one time-series"),
        (lambda: usual(rate_hz=0), "does not say at which rate it samples"),
        (lambda: usual(window_ms=10**9), "samples at a rate above 0 are possible"),
        (lambda: project([], []), "project 7 has no impulse"),
        (lambda: project([spectral()], []), "neither a classifier nor k-means"),
    ],
)
def test_projects_that_are_refused(service, of, words):
    assert words in refused(service, of())


def test_a_model_that_is_too_large(service):
    with pytest.raises(ModelError, match=r"takes .* bytes, and 65536 are allowed"):
        fetched(service, much_too_large()).model().to_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"defines": {"EI_CLASSIFIER_HAS_DATA_NORMALIZATION": 1}}, "has data normalization"),
        ({"more_variables": "ei_data_normalization_t ei_data_normalization_config_2 = {};"}, "has data normalization"),
        ({"defines": {"EI_CLASSIFIER_OBJECT_DETECTION": 1}}, "has object detection"),
        ({"defines": {"EI_CLASSIFIER_CALIBRATION_ENABLED": 1}}, "has performance calibration"),
        ({"defines": {"EI_CLASSIFIER_HAS_ANOMALY_GMM": 1}}, "has GMM anomaly detection"),
        ({"defines": {"EI_CLASSIFIER_HAS_ANOMALY": "EI_ANOMALY_TYPE_GMM"}}, "of the kind EI_ANOMALY_TYPE_GMM"),
        ({"more_variables": ".results_type = EI_CLASSIFIER_TYPE_REGRESSION,"}, "does regression"),
        ({"more_variables": "const ei_impulse_t impulse_2 = {};"}, "holds several impulses"),
        ({"more_variables": "{ 12, &run_gmm_anomaly, (void*)&ei_learning_block_config_12"}, "(run_gmm_anomaly; one"),
        ({"nets_more": {"tflite-model/other.tflite": b"x"}}, "several nets (tflite_learn_10.tflite, other.tflite)"),
        ({"nets_more": {"tflite-model/huge.tflite": bytes(5 * 1024 * 1024)}}, "huge.tflite in the zip has"),
        ({"defines": {"EI_CLASSIFIER_RAW_SAMPLE_COUNT": 0}}, "windows of 0 samples"),
        (
            {"stream": ("gyrX", "accX", "accY", "accZ"), "defines": {"EI_CLASSIFIER_FUSION_AXES_STRING": '"a + b"'}},
            "b, num",
        ),
    ],
)
def test_zips_that_are_refused(options, words):
    with pytest.raises(ModelError) as raised:
        deployment.read(zip_of(usual(), **options)).model()
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_zips():
    for data in (b"", b"PK\x03\x04 and no more", b"{}", os.urandom(500)):
        with pytest.raises(ModelError, match="zip, or a header in it, is damaged"):
            deployment.read(data)
    empty = rewritten(zip_of(usual()), "nothing", str)
    with pytest.raises(ModelError, match=r"EI_CLASSIFIER_PROJECT_NAME"):
        deployment.read(rewritten(empty, "model_metadata.h", lambda text: "nothing"))
    with pytest.raises(ModelError, match=r"C\+\+ library"):
        deployment.read(rewritten(empty, "model_metadata.h", lambda text: ""))


@settings(max_examples=100)
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=5))
def test_damaged_zips_raise_nothing_but_model_errors(places):
    data = bytearray(ZIP)
    for place, value in places:
        data[int(place * len(data))] = value
    with suppress(ModelError):
        deployment.read(bytes(data)).model()


@settings(max_examples=100)
@given(cut=st.floats(0, 1), inserted=st.text('{}[]=,;"#/0x-e.\n', max_size=6), removed=st.integers(0, 30))
def test_damaged_headers_raise_nothing_but_model_errors(cut, inserted, removed):
    def change(text):
        at = int(cut * len(text))
        return text[:at] + inserted + text[at + removed :]

    for name in ("model_variables.h", "model_metadata.h", "anomaly_metadata.h"):
        with suppress(ModelError):
            deployment.read(rewritten(ZIP, name, change)).model()


# --- the service's moods ----------------------------------------------------------------------------------------------


def test_connections_that_break_are_made_again(service):
    service.faults = [Fault("reset", times=4)]  # some of which the HTTP client tries again itself
    pauses = Pauses()
    assert fetched(service, usual(), pauses=pauses).model().layers
    assert pauses


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_passes_is_waited_for(service, status):
    service.faults = [Fault("status", times=3, status=status)]
    pauses = Pauses()
    assert fetched(service, usual(), pauses=pauses).model().layers
    assert len(pauses) == 3
    assert pauses[0] < pauses[1] < pauses[2] <= 4


def test_retry_after_is_kept_to(service):
    service.faults = [Fault("status", "/downloads", status=429, retry_after="7")]
    pauses = Pauses()
    assert fetched(service, usual(), pauses=pauses).model().layers
    assert pauses == [7]
    service.faults = [Fault("status", status=429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")]
    fetched(service, usual())
    service.faults = [Fault("status", status=429, retry_after="3600")]
    assert "it asks to wait 3600 s" in refused(service, usual())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("status", times=99), "answered 500: as told; 4 attempts: try again later"),
        (Fault("reset", times=99), "no answer from"),
        (Fault("status", status=403), "set EDGE_IMPULSE_API_KEY to a key of this project"),
        (Fault("status", status=404), "is --project the number"),
        (Fault("refuse", "/impulse"), "Edge Impulse refused: as told"),
        (Fault("refuse", "/model/"), "Edge Impulse refused: as told"),
        (Fault("text"), "this is no answer of Edge Impulse: <html>Just a moment</html>"),
        (Fault("text", content='{"success": true}'), "not as Edge Impulse describes it: KeyError('projects')"),
        (Fault("text", content='{"success": true, "projects": 3}'), "not as Edge Impulse describes it"),
        (Fault("text", content="[" * 100_000), "this is no answer of Edge Impulse"),
        (Fault("text", "/downloads", content='{"success": true, "downloads": [{"type": 1}]}'), "describes it"),
        (Fault("text", "/metadata", content='{"success": true, "featureCount": "many"}'), "describes it"),
        (Fault("redirect", times=99, content="/v1/api/projects"), "sends from one place to the next"),
        (Fault("redirect", times=99, content="gopher://x/"), "no answer from"),
    ],
)
def test_what_does_not_pass_is_one_line(service, fault, words):
    service.faults = [Fault(**vars(fault))]
    assert words in refused(service, usual())


def test_the_key(service):
    assert "answered 401: Invalid API key; set EDGE_IMPULSE_API_KEY" in refused(service, usual(), key="other")
    assert len(service.requests) == 1


def test_the_key_goes_nowhere_else(service):
    """Where a file is kept elsewhere, its link is all that the keeper gets."""
    seen = []

    async def keeper(request):
        seen.append(request.headers.get("x-api-key"))
        return web.Response(body=net)

    of = usual()
    net = of.learning[0].files["tflite-float"]
    with background(lambda: listening(keeper)) as url:
        service.faults = [Fault("redirect", "/model/", content=url)]
        assert fetched(service, of).model().layers
    assert seen == [None]


@asynccontextmanager
async def listening(handler):
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


def test_several_projects(service):
    two = [usual(), usual(number=8)]
    assert "choose with --project" in refused(service, *two)
    assert fetched(service, *two, number=8).source.startswith("Edge Impulse project 8")
    assert "No such thing: project 9" in refused(service, *two, number=9)


STRANGE = (
    None,
    True,
    0,
    -1,
    0.1,
    1e-320,
    10**30,
    float("inf"),
    float("nan"),
    "",
    "x",
    "1",
    "\ud800",
    [],
    [None],
    {},
    {"a": 1},
)


@pytest.fixture(scope="module")
def answers(server):
    """What Studio answers to each path while a project is imported."""
    found = {}

    class Recording(studio.Studio):
        async def _ask(self, method, url, members=None):
            found[url.removeprefix(server.url)] = body = await super()._ask(method, url, members)
            return body

    server.faults = []
    with mock.patch.object(studio, "Studio", Recording):
        fetched(server, usual(builds={1: b""}))
    return found


def places(value, path=()):
    """Where something stands in a JSON value, from its root on."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from places(one, (*path, key))


def replaced(value, path, by):
    if not path:
        return by
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@settings(max_examples=100)
@given(path=st.integers(0, 100), place=st.integers(0, 300), value=st.sampled_from(STRANGE))
def test_strange_answers_raise_nothing_but_model_errors(server, answers, path, place, value):
    """One value in an answer is another than it should be."""
    paths = [path for path, body in answers.items() if body[:1] == b"{"]
    changed = paths[path % len(paths)]
    body = json.loads(answers[changed])
    found = list(places(body))
    body = replaced(body, found[place % len(found)], value)

    class Strange(studio.Studio):
        async def _ask(self, method, url, members=None):
            asked = url.removeprefix(server.url)
            return json.dumps(body).encode() if asked == changed else answers.get(asked, b"{}")

    with suppress(ModelError, BlockError), mock.patch.object(studio, "Studio", Strange):
        from_bytes(fetched(server).model().to_bytes())


DESCRIBED = importlib.util.find_spec("edgeimpulse_api")


@pytest.mark.skipif(not DESCRIBED, reason="Edge Impulse's own client is not installed")
def test_the_emulated_studio_says_nothing_that_is_not_described():
    """Members and paths are in the client that was generated from the API's description. Read, as importing it takes
    seconds."""
    folder = Path(DESCRIBED.origin).parent

    def members(name):
        text = (folder / "models" / f"{name}.py").read_text()
        return set(re.findall(r'"(\w+)"', re.search(r"__properties = \[(.*?)\]", text, re.DOTALL)[1]))

    of = usual(builds={1: b""}, post_processing=["object-tracking"])
    layout, config = of.layout(), of.blocks[0].config()
    for name, found in (
        ("impulse", layout),
        ("impulse_input_block", layout["inputBlocks"][0]),
        ("impulse_dsp_block", layout["dspBlocks"][0]),
        ("impulse_learn_block", layout["learnBlocks"][0]),
        ("impulse_post_processing_block", layout["postProcessingBlocks"][0]),
        ("dsp_config_response", config),
        ("dsp_info", config["dsp"]),
        ("dsp_group", config["config"][0]),
        ("dsp_group_item", config["config"][0]["items"][0]),
        ("keras_model_metadata", of.learning[0].metadata),
        ("anomaly_model_metadata", of.learning[1].metadata),
        ("anomaly_model_metadata_clusters_inner", of.learning[1].metadata["clusters"][0]),
        ("block_threshold", of.learning[1].metadata["thresholds"][0]),
        ("download", of.downloads()[0]),
        ("dsp_metadata", dict.fromkeys(("generated", "dspConfig", "featureCount", "frequency"))),
        ("build_on_device_model_request", dict.fromkeys(("engine", "modelType"))),
        ("build_on_device_model_response", dict.fromkeys(("id", "deploymentVersion"))),
        ("get_last_deployment_build_response", dict.fromkeys(("hasBuild", "lastBuild"))),
        ("get_last_deployment_build_response_all_of_last_build", {"version": 1}),
        ("job", dict.fromkeys(("id", "finished", "finishedSuccessful"))),
    ):
        assert set(found) <= members(name), name
    paths = "".join(path.read_text() for path in (folder / "api").glob("*.py"))
    for path in emulated.PATHS:
        described = re.sub(r"{(\w+)(:[^}]*)?}", "{}", "/api/{}" + path)
        assert described in re.sub(r"{\w+}", "{}", paths), path


# --- the command ------------------------------------------------------------------------------------------------------


def judder(*arguments, code=0, **environment):
    ended = subprocess.run(
        [sys.executable, "-m", "judder", "model", "import", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "EDGE_IMPULSE_API_KEY"}
        | {"COLUMNS": "160"}
        | environment,
    )
    assert ended.returncode == code, ended.stderr
    return ended


def test_import_from_studio(service, tmp_path):
    service.projects = [usual(builds={5: b""})]
    out = tmp_path / "model.bin"
    out.write_bytes(b"the one before")
    ended = judder("--url", service.url, "--out", out, "--normal", "stuck", "--json", EDGE_IMPULSE_API_KEY=KEY)
    found = json.loads(ended.stdout)
    model, name = from_bytes(out.read_bytes())
    assert (found["id"], found["bytes"]) == (name, out.stat().st_size)
    assert (found["rate_hz"], found["samples"], found["features"]) == (400, 400, 63)
    assert (found["classes"], found["normal"]) == (list(CLASSES), ["stuck"])
    assert (found["clusters"], found["anomaly_threshold"]) == (4, 0.4)
    assert (found["runs_on_boards"], found["remarks"]) == (True, [])
    assert found["source"] == model.source == "Edge Impulse project 7 (fan bench), impulse 1, deployment 5"
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]
    assert KEY not in ended.stdout + ended.stderr


def test_import_from_a_zip_with_what_boards_refuse(tmp_path):
    block = spectral(input_decimation_ratio=3, features=3 * 21)
    of = project([block], [classifier([block], ("[red]a", "b"))[0]])
    source, net = tmp_path / "library.zip", tmp_path / "net.tflite"
    source.write_bytes(zip_of(of, net="eon"))
    net.write_bytes(of.learning[0].files["tflite-float"])
    ended = judder(source, "--tflite", net, "--out", tmp_path / "m.bin")
    for words in (
        "fan bench",
        "deployment 3",
        "400 samples at 400 Hz",
        "spectral v4 of xyz, FFT 32",
        "63",
        "[red]a",
        "refuse it",
    ):
        assert words in ended.stdout
    assert "\x1b" not in ended.stdout
    lines = ended.stderr.splitlines()
    assert len(lines) == 2
    assert "the board refuses the spectral block for its decimation by 3" in lines[0]
    assert "every class is an event" in lines[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "set EDGE_IMPULSE_API_KEY to a key of the project"),
        (("--api-key", "k\n"), "EDGE_IMPULSE_API_KEY holds spaces or other characters"),
        (("--api-key", "k", "--url", "studio"), "--url studio: it should start with https://"),
        (("--api-key", "k", "--tflite", "x"), "--tflite goes with a zip"),
        (("none.zip",), "none.zip: No such file or directory"),
        (("{zip}", "--project", "7"), "give one of a zip and --project"),
        (("{zip}", "--tflite", "{zip}"), "it is no .tflite file"),
        (("{zip}", "--tflite", "none"), "none: No such file or directory"),
        (("{zip}", "--normal", "x"), "--normal x: the model's classes are idle, grinding, stuck"),
        (("{zip}", "--out", "{folder}/no/model.bin"), "no/model.bin: No such file or directory"),
        (("{zip}", "--out", "{folder}"), "directory"),
    ],
)
def test_complaints(tmp_path, arguments, words):
    """In this process: a new one takes its time to start, and the call above has shown that it can."""
    source = tmp_path / "library.zip"
    source.write_bytes(ZIP)
    filled = [text.format(zip=source, folder=tmp_path) for text in arguments]
    command = ["model", "import", "--out", str(tmp_path / "model.bin"), *filled]
    ended = CliRunner().invoke(app, command, env={"EDGE_IMPULSE_API_KEY": None})
    assert ended.exit_code == 2, ended.output
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["library.zip"]
