"""Features and scores: the device's code against the host's, on numpy and on plain arrays; and what is refused."""

import contextlib
import hashlib
import inspect
import io
import json
import math
import re
import struct
from array import array
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models import INTERVAL_S, drawn, spectral

from judder.model import blocks as host
from judder.model.file import GOLDEN_SCALE, HEADER, ModelError, from_bytes
from node import features, judge, model, vectors, vectors_numpy, vectors_plain

KERNELS = (vectors_numpy, vectors_plain)
NAMES = [name for name, _ in inspect.getmembers(vectors_plain, inspect.isfunction)]


@pytest.fixture(params=KERNELS, ids=["numpy", "plain"])
def kernel(request, monkeypatch):
    use(request.param, monkeypatch.setattr)


def use(kernel, put):
    for module in (vectors, features, model):
        for name in NAMES:
            if hasattr(module, name):
                put(module, name, getattr(kernel, name))


class Using:
    """One of the kernels, for as long as hypothesis runs an example."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __enter__(self):
        self.kept = [(module, name, getattr(module, name)) for module in (vectors, features, model) for name in NAMES
                     if hasattr(module, name)]  # fmt: skip
        use(self.kernel, setattr)

    def __exit__(self, *_):
        for one in self.kept:
            setattr(*one)


# --- features ---------------------------------------------------------------------------------------------------------

windows = st.builds(
    lambda seed, samples, noise, swing, offset: np.clip(
        np.random.default_rng(seed).normal(0, noise, (samples, 3))
        + swing * np.sin(np.arange(samples) * (0.05 + 0.01 * (seed % 200)))[:, None]
        + offset,
        -511,
        511,
    ).astype(np.int16),
    st.integers(0, 2**32 - 1),
    st.integers(64, 1100),
    st.sampled_from([1.4, 5.0, 60.0, 300.0]),
    st.sampled_from([0.0, 30.0, 400.0]),
    st.sampled_from([0, 250, -250]),
)
spectral_blocks = st.builds(
    spectral,
    version=st.sampled_from([2, 3, 4]),
    fft=st.sampled_from([16, 32, 64, 128, 256, 512, 1024]),
    log=st.booleans(),
    overlap=st.booleans(),
    axes=st.sampled_from([[0, 1, 2], [2], [1, 0]]),
    scale=st.sampled_from([1, 0.1, 10]),
)
filters = st.builds(
    lambda kind, order, cutoff_hz, centred: {
        "filter": kind,
        "order": order,
        "cutoff_hz": cutoff_hz,
        "centred": centred,
    },
    st.sampled_from(["low", "high"]),
    st.sampled_from([0, 2, 4, 6, 8]),
    st.sampled_from([100.0, 250.0, 500.0]),
    st.booleans(),
)
flatten_blocks = st.builds(
    lambda of: {"type": "flatten", "of": sorted(of), "axes": [0, 1, 2]},
    st.sets(st.sampled_from(host.FLATTENED), min_size=1),
)


def for_device(block):
    """As the file of a model has it."""
    if block.get("filter", "none") == "none":
        return block
    sections = host.sections(block, 1 / INTERVAL_S)
    named = {**block, "bins": host.bins(block, 1 / INTERVAL_S)}
    return {**named, "filter": "none"} if sections is None else {**named, "sections": sections.tolist()}


def device_model(data):
    return model.Model(io.BytesIO(data))


def agree(blocks, counts, within=1e-3):
    """Whether device and host do; and what they found."""
    expected = host.compute(blocks, counts * GOLDEN_SCALE, 1 / INTERVAL_S)
    held = array("h", counts.ravel().tolist())
    for kernel in KERNELS:
        with Using(kernel):
            checked = [for_device(block) for block in blocks]
            for block in checked:
                features.check(block)
            found = np.array([float(one) for one in features.compute(checked, held, GOLDEN_SCALE)])
        assert found.shape == expected.shape
        assert np.isfinite(found).all()
        off = np.abs(found - expected) / np.maximum(1, np.abs(expected))
        assert off.max(initial=0) <= within, (kernel.__name__, off.argmax(), found[off.argmax()])


@settings(max_examples=150, deadline=None)
@given(windows, st.lists(spectral_blocks | flatten_blocks, min_size=1, max_size=2))
def test_features_are_those_of_the_host(counts, blocks):
    agree(blocks, counts)


@settings(max_examples=60, deadline=None)
@given(windows, spectral_blocks, filters)
def test_filtered_features_are_those_of_the_host(counts, block, of_filter):
    agree([{**block, **of_filter}], counts)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize(
    "counts",
    [
        pytest.param(np.full((200, 3), 250, np.int16), id="constant"),
        pytest.param(np.zeros((200, 3), np.int16), id="zero"),
        pytest.param((np.arange(600).reshape(200, 3) == 100).astype(np.int16) + np.int16(250), id="one count once"),
        pytest.param((np.arange(600).reshape(200, 3) % 2).astype(np.int16), id="least amplitude"),
    ],
)
def test_constant_and_nearly_constant_axes_are_numbers(counts, version, log, kernel):
    blocks = [spectral(version=version, fft=32, log=log), {"type": "flatten", "of": host.FLATTENED, "axes": [0, 1, 2]}]
    found = features.compute(blocks, array("h", counts.ravel().tolist()), GOLDEN_SCALE)
    assert all(np.isfinite(float(one)) for one in found)
    expected = host.compute(blocks, counts * GOLDEN_SCALE, 1 / INTERVAL_S)
    assert np.isfinite(expected).all()
    if np.ptp(counts) == 0:
        assert [float(one) for one in found[:3]] == [0, 0, -3]
        np.testing.assert_allclose([float(one) for one in found], expected, rtol=1e-5, atol=1e-5)


def test_raw_features_are_the_samples(kernel):
    counts = np.arange(-96, 96, dtype=np.int16).reshape(64, 3)
    found = features.compute([{"type": "raw", "axes": [0, 1, 2]}], array("h", counts.ravel().tolist()), GOLDEN_SCALE)
    np.testing.assert_allclose([float(one) for one in found], (counts * GOLDEN_SCALE).T.ravel(), rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 1}, "version 1"),
        ({"fft": 48}, "48 points"),
        ({"fft": 2048}, "2048 points"),
        ({"type": "wavelet"}, "block wavelet"),
        ({"decimation": 10}, "decimation 10 runs on the host only"),
        ({"extra_low_freq": True}, "host only"),
        ({"filter": "high", "order": 4, "cutoff_hz": 100}, "without its sections"),
    ],
)
def test_blocks_that_cannot_be_run_are_refused(changes, reason):
    with pytest.raises(features.BlockError, match=reason):
        features.check(spectral(**changes))


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(drawn(), id="motor"),
        pytest.param(drawn(blocks=[spectral(fft=16), {"type": "flatten", "of": ["rms"], "axes": [0]}]), id="two"),
        pytest.param(drawn(clusters=0), id="classes only"),
        pytest.param(drawn(classes=(), blocks=[spectral(filter="high", order=4, cutoff_hz=250)]), id="filter"),
    ],
)  # fmt: skip
def test_host_and_device_read_the_same_model(made, kernel):
    data = made.to_bytes()
    read, name = from_bytes(data)
    on_device = device_model(data)
    on_device.prove()
    assert on_device.id == name
    counts = np.random.default_rng(5).normal(0, 40, (1024, 3)).astype(np.int16)
    found = on_device.score(array("h", counts.ravel().tolist()), GOLDEN_SCALE)
    expected = read.score(counts * GOLDEN_SCALE)
    np.testing.assert_allclose([float(one) for one in found.probabilities], expected.probabilities, atol=1e-3)
    assert (found.anomaly is None) == (expected.anomaly is None)
    if expected.anomaly is not None:
        assert found.anomaly == pytest.approx(expected.anomaly, rel=1e-3, abs=1e-3)
    if made.classes:
        assert found.class_name == made.classes[int(np.argmax(expected.probabilities))]


def sealed(data):
    """With a checksum that is right again."""
    return data[:-4] + struct.pack("<I", crc32(data[:-4]))


def edited(data, change):
    """The model with its JSON changed, and whatever that takes."""
    *head, length, json_length = HEADER.unpack_from(data)
    content = json.loads(data[HEADER.size : HEADER.size + json_length])
    change(content)
    text = json.dumps(content, separators=(",", ":")).encode()
    assert len(text) <= json_length
    return sealed(HEADER.pack(*head, length, json_length) + text.ljust(json_length) + data[HEADER.size + json_length :])


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_cut_off_or_flipped_is_refused(data):
    whole = DAMAGED
    if data.draw(st.booleans()):
        bad = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, 8 * len(whole) - 1))
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        bad = bytes(flipped)
    with pytest.raises(model.ModelError):
        device_model(bad)
    with pytest.raises(ModelError):
        from_bytes(bad)


DAMAGED = drawn(blocks=[spectral(fft=16)], clusters=2).to_bytes()


def test_a_wrong_golden_vector_is_refused(kernel):
    data = bytearray(DAMAGED)
    content = json.loads(data[HEADER.size : HEADER.size + HEADER.unpack_from(data)[5]])
    offset, count = content["tensors"]["golden"]
    for number in range(count):
        wrong = bytearray(data)
        (expected,) = struct.unpack_from("<f", data, offset + 4 * number)
        struct.pack_into("<f", wrong, offset + 4 * number, expected + max(1, abs(expected)) * 0.003)
        one = device_model(sealed(bytes(wrong)))
        with pytest.raises(model.ModelError, match=f"number {number} of its golden window"):
            one.prove()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nonsense_behind_a_right_checksum_is_a_model_error_and_nothing_else(data):
    content = json.loads(DAMAGED[HEADER.size : HEADER.size + HEADER.unpack_from(DAMAGED)[5]])
    name = data.draw(st.sampled_from(sorted(content)))
    value = data.draw(st.sampled_from([None, -1, 0, "x", [], {}, [1], [[1]], [None], {"golden": [0, 1]}]))
    bad = edited(DAMAGED, lambda members: members.__setitem__(name, value))
    with contextlib.suppress(model.ModelError):
        device_model(bad).prove()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["blocks"][0].update(version=1), "cannot run it: spectral block version 1"),
        (lambda c: c["blocks"][0].pop("fft"), "not that of a model"),
        (lambda c: c["tensors"].pop("centers"), "not that of a model"),
        (lambda c: c.update(name="", source="", classes=["o" * 33, "x"]), "more than 32 bytes"),
        (lambda c: c.update(axes=["y", "x", "z"]), "it is for axes"),
        (lambda c: c.update(units="g"), "in g"),
        (lambda c: c.update(samples="7"), "no window would fit"),
        (lambda c: c.update(samples=1.5), "no window would fit"),
        (lambda c: c.update(interval_s=0), "no window would fit"),
        (lambda c: c.update(interval_s="a"), "no window would fit"),
        (lambda c: c.update(interval_s=1e-320), "no window would fit"),
        (lambda c: c.update(threshold=math.inf), "threshold of inf"),
        (lambda c: c.update(anomaly_threshold=math.nan), "threshold of nan"),
        (lambda c: c.update(anomaly_spread=math.inf), "threshold of inf"),
    ],
)
def test_models_that_contradict_themselves_are_refused(change, reason):
    with pytest.raises(model.ModelError, match=reason):
        device_model(edited(DAMAGED, change)).prove()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("interval_s", value) for value in (0, 1e-320, math.inf, "1", None)),
        *(("samples", value) for value in ("1024", 0, -5, 1.5, 3_000_000_000, None)),
        *((threshold, value) for threshold in ("threshold", "anomaly_threshold") for value in ("a", math.nan, 1e300)),
        *(("anomaly_spread", value) for value in (-math.inf, math.nan)),
        ("tensors", {"golden": [1 << 70, 1]}),
        ("tensors", {"golden": [16, 1 << 70]}),
        *(("classes", value) for value in (3, ["a\nb", "c"], [1, 2], ["o" * 33, "x"])),
        ("normal", 3),
        *(("blocks", value) for value in (3, [], [{"type": "spectral"}], [spectral(fft=16, bins=[1, 3_000_000_000])])),
        *(("clustered", value) for value in ([1e9], [9999], "a")),
        ("layers", [3]),
        *(("golden", value) for value in (None, {}, {"offset": 0, "samples": 1 << 60, "scale": 1})),
    ],
)
def test_host_and_board_refuse_what_no_window_could_be_scored_with(name, value):
    bad = edited(DAMAGED, lambda content: content.update({"source": "", "name": "", name: value}))
    bad = sealed(bad[:-36] + hashlib.sha256(bad[:-36]).digest() + bad[-4:])
    with pytest.raises(ModelError):
        from_bytes(bad)
    if (name, value) not in HARMLESS:
        with pytest.raises(model.ModelError):
            device_model(bad).prove()


HARMLESS = [("classes", ["a\nb", "c"])]  # on a board; it prints what the host would not


def test_a_later_version_is_refused():
    with pytest.raises(model.ModelError, match="version 2; this firmware reads version 1"):
        device_model(sealed(DAMAGED[:4] + b"\2" + DAMAGED[5:]))


@pytest.mark.parametrize(
    ("samples", "interval_s", "full_scale_g", "reason"),
    [
        (512, INTERVAL_S, 2, "1024 samples, this window has 512"),
        (1024, 0, 2, "interval is not known"),
        (1024, 1 / 400, 2, "1344 Hz, this window has 400 Hz"),
        (1024, INTERVAL_S * 1.12, 2, "1344 Hz"),
        (1024, INTERVAL_S, 4, r"\+-2 g, this window has \+-4 g"),
        (1024, INTERVAL_S * 1.05, 2, None),
    ],
)
def test_windows_unlike_those_of_training_are_unfit(samples, interval_s, full_scale_g, reason):
    found = device_model(drawn().to_bytes()).unfit(samples, interval_s, full_scale_g)
    assert found is None if reason is None else re.search(reason, found)


def test_a_board_takes_no_model_that_is_damaged_and_says_why(tmp_path):
    path = tmp_path / "model.bin"
    found, complaint = judge.load(lambda: path.open("rb"))
    assert (found, "is not used: " in complaint) == (None, True)
    path.write_bytes(DAMAGED)
    found, complaint = judge.load(lambda: path.open("rb"))
    assert found.id == from_bytes(DAMAGED)[1]
    assert complaint is None
    path.write_bytes(DAMAGED[:-1])
    found, complaint = judge.load(lambda: path.open("rb"))
    assert found is None
    assert "is not used: " in complaint
