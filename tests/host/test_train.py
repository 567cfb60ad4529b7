"""Training: what is left out or refused, that boards compute the same, and that a small defect is found."""

import io
from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pytest
from tests.vibration import STARTED, recorded

from judder.emulator.machine import Service
from judder.export import Selection
from judder.model import clusters, net
from judder.model.file import GOLDEN_SCALE, from_bytes
from judder.model.recorded import RecordedError, from_files
from judder.model.run import run
from judder.model.train import FOLDS, Options, TrainError, folds, impulse, train
from judder.window import Flags
from node.model import Model as OnBoard

FFT16 = Options(fft=16)
SERVICE = Service(seed=1)
ILL = replace(SERVICE, defect="bearing", defect_factor=1.3)


@cache
def healthy(number=150, label=""):
    return recorded(SERVICE, np.arange(number) * 600.0, 1, label)


@cache
def ill(number=40, label="bearing"):
    return recorded(ILL, 7e6 + np.arange(number) * 600.0, 2, label)


@cache
def two_labels():
    return train([*healthy(label="Normal"), *ill()], FFT16)


@cache
def one_label():
    return train(healthy(), FFT16)


def refused(windows, options=FFT16):
    with pytest.raises(TrainError) as caught:
        train(windows, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trained", [one_label, two_labels])
def test_a_board_computes_what_the_host_does(trained):
    model, board = trained().model, OnBoard(io.BytesIO(trained().data))
    board.prove()
    for one in recorded(ILL, np.arange(5) * 777.0, 3):
        counts = np.rint(one.acceleration / GOLDEN_SCALE).astype(np.int16)
        here, there = model.score(one.acceleration), board.score(counts.ravel(), GOLDEN_SCALE)
        assert there.anomaly == pytest.approx(here.anomaly, abs=1e-3)
        assert list(there.probabilities) == pytest.approx(list(here.probabilities), abs=1e-3)


def test_the_same_windows_give_the_same_bytes():
    assert train(healthy(label="Normal")[::-1] + ill(), FFT16).data == two_labels().data
    standard = Options(fft=16, standard=True)
    assert train(healthy(), standard).data == train(healthy(), standard).data != one_label().data


def test_the_file_holds_what_was_trained():
    model, name = from_bytes(one_label().data)
    report = one_label().report
    assert (name, len(one_label().data)) == (report.id, report.bytes)
    assert (model.samples, model.full_scale_g, model.classes) == (1024, 2, ())
    assert model.blocks[1]["cutoff_hz"] == 250.0
    assert len(model.clusters.features) == 39
    assert model.clusters.projection.shape == (26, 39)
    table = np.array([model.score(one.acceleration).features for one in healthy()])
    assert np.allclose(model.mean, table.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert np.allclose(model.variance, table.var(axis=0), rtol=1e-3, atol=1e-9)


def test_the_farthest_healthy_window_is_at_the_edge():
    model = one_label().model
    scores = [model.score(one.acceleration).anomaly for one in healthy()]
    assert max(scores) == pytest.approx(0, abs=1e-6)
    table = np.array([model.score(one.acceleration).features for one in healthy(150)[:9]])
    assert np.allclose(model.clusters.scores(table), scores[:9])


def test_the_net_is_scikit_learn_s():
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(1)
    for number in (2, 3):
        labels = rng.integers(0, number, 200)
        table = rng.normal(0, [1e-2, 1, 30], (200, 3)) + labels[:, None] * [1e-2, 1, 10] + [1, -3, 90]
        mean, deviation = clusters.moments(table)
        standard = (table - mean) / deviation
        reference = MLPClassifier(net.HIDDEN, max_iter=1000, tol=1e-3, random_state=0).fit(standard, labels)
        model = replace(
            two_labels().model,
            blocks=({"type": "flatten", "of": ["average"], "axes": [0, 1, 2]},),
            classes=tuple("abc"[:number]),
            layers=net.layers(reference, mean, deviation),
            clusters=None,
        )
        found = np.array([model._classify(values) for values in table])
        assert np.abs(found - reference.predict_proba(standard)).max() < 1e-5
        assert list(net.most_probable(model.layers, table)) == list(reference.predict(standard))


def test_standard_is_k_means():
    model = train(healthy(), Options(fft=16, standard=True)).model
    assert model.clusters.projection is None
    assert model.clusters.centers.shape == (32, 39)


def test_there_may_be_several_clusters_in_the_kept_directions():
    trained = train(healthy(), replace(FFT16, clusters=3))
    assert trained.model.clusters.centers.shape == (3, 26)
    OnBoard(io.BytesIO(trained.data)).prove()
    scores = trained.model.clusters.scores(np.array([trained.model.score(healthy()[0].acceleration).features]))
    assert scores[0] <= 1e-6
    alike = [healthy()[0]] * 80
    assert train(alike, Options(fft=16, standard=True)).report.threshold == pytest.approx(0, abs=1e-6)


def test_the_filter_follows_the_rate():
    assert [impulse(32, rate_hz)[1]["cutoff_hz"] for rate_hz in (1344, 1371, 400, 99.7)] == [250, 250, 74, 18]


# --- finding a defect -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_small_defect_is_found_at_other_loads_and_speeds():
    """As tests/bench/bench_detection.py, of one machine and fewer windows: 20 % more, a month later."""
    service = Service(seed=2)
    model = train(recorded(service, np.arange(400) * 600.0, 1), Options()).model

    def share(source, seed):
        windows = recorded(source, 2.6e6 + np.arange(300) * 600.0, seed)
        return np.mean([one.event for one in run(model, windows).windows])

    assert share(service, 2) <= 0.01
    assert share(replace(service, defect="bearing"), 3) >= 0.95
    assert share(replace(service, defect="imbalance"), 4) >= 0.95


def test_an_event_is_one_class_or_the_anomaly():
    model = two_labels().model
    found = run(model, [*healthy()[:20], *ill()]).windows
    assert not any(one.event for one in found[:20])
    assert all(one.event and one.class_name == "bearing" for one in found[20:])


def test_drift_names_what_moved():
    found = run(one_label().model, ill()).drift
    assert found[0].feature == "z rms above 250 Hz"
    assert found[0].deviations > 1
    assert found[0].mean > found[0].trained


# --- which windows ----------------------------------------------------------------------------------------------------


def test_windows_that_do_not_fit_are_left_out_and_counted():
    good = healthy()
    odd = [
        replace(good[0], flags=int(Flags.GAP | Flags.OVERRUN)),
        replace(good[0], interval_s=None),
        replace(good[0], acceleration=good[0].acceleration[:1000]),
        replace(good[0], interval_s=good[0].interval_s * 1.11),
        replace(good[0], full_scale_g=4),
        replace(good[0], full_scale_g=None),
        replace(good[0], acceleration=np.full_like(good[0].acceleration, np.nan)),
    ]
    near = replace(good[0], interval_s=good[0].interval_s * 1.05)
    report = train([*odd, *good, near], FFT16).report
    assert report.windows == 151
    assert report.left_out == {
        "flagged GAP|OVERRUN": 1,
        "interval not known": 1,
        "not of +-2 g, as most are": 2,
        "not of 1024 samples, as most are": 1,
        "rate more than 10 % off the median of 1371 Hz": 1,
        "samples that are no numbers": 1,
    }
    assert train([odd[0], *good], replace(FFT16, flagged=True)).report.windows == 151


def test_windows_without_a_label_or_of_rare_ones_are_left_out():
    report = train([*healthy(label="ok"), *healthy(5), *ill(9)], FFT16).report
    assert report.labels == {"ok": 150}
    assert sum(report.left_out.values()) == 14
    assert report.confusion == {}


def test_normal_labels_train_the_clusters():
    report = two_labels().report
    assert (report.normal, report.healthy, two_labels().model.normal) == (["Normal"], 150, ("Normal",))
    assert report.confusion["bearing"]["bearing"] >= 36
    assert report.confusion["Normal"]["Normal"] >= 145
    assert report.separating[0]["feature"] == "z rms above 250 Hz"
    assert report.scores["label bearing"].quantiles["50"] > report.threshold
    assert sum(report.scores["held out"].counts) == 150
    both = train([*healthy(label="Normal"), *ill()], replace(FFT16, normal=("Normal", "bearing"))).report
    assert both.healthy == 190
    assert set(both.scores) == {"training", "held out", "label Normal", "label bearing"}


def test_what_cannot_be_trained_on_is_one_line():
    few = healthy()[:77]
    assert refused(few) == "77 healthy windows are too few for 39 features and 1 clusters: 78 are needed"
    assert "126 are needed; --fft 16 needs fewer: 78" in refused(few, Options())
    assert "50 are needed" not in refused(few[:60], Options(fft=16, standard=True, clusters=40))
    assert "64 are needed" in refused(few[:60], Options(fft=16, standard=True))
    assert refused([]) == "none of 0 windows can be trained on: there are none"
    assert "3 interval not known" in refused([replace(one, interval_s=None) for one in few[:3]])
    assert "--fft 48: a power of two" in refused(healthy(), Options(fft=48))
    assert "would not fit 65536 bytes" in refused(healthy(), Options(fft=256))
    mixed = [*healthy(label="a"), *ill()]
    assert refused(mixed) == "say with --normal LABEL which windows are healthy; labels are: a, bearing"
    assert "--normal b: no window" in refused(mixed, replace(FFT16, normal=("b",)))
    short = [replace(one, acceleration=one.acceleration[:20]) for one in healthy()]
    assert "too short for --fft 16: 32 or more" in refused(short)


def test_a_part_that_does_not_move_is_no_obstacle():
    still = [replace(one, acceleration=one.acceleration * np.float32([1, 1, 0])) for one in healthy()]
    trained = train(still, FFT16)
    OnBoard(io.BytesIO(trained.data)).prove()
    assert np.isfinite(trained.report.threshold)


# --- held out ---------------------------------------------------------------------------------------------------------


def test_whole_days_of_devices_are_held_out():
    used = [replace(healthy()[0], taken=STARTED + timedelta(hours=5 * k), device=f"dev:{k % 3}") for k in range(200)]
    fold, told = folds(used)
    assert told == "126 days of devices in 10 parts"
    days = {}
    for one, number in zip(used, fold, strict=True):
        days.setdefault((one.device, one.taken.date()), set()).add(int(number))
    assert all(len(found) == 1 for found in days.values())
    assert np.bincount(fold).min() >= 18


def test_stretches_of_time_are_held_out_where_days_are_few():
    fold, told = folds([*healthy(label="a"), *ill(25)])
    assert told.startswith("10 stretches of time")
    assert (np.diff(fold[:150]) >= 0).all()
    assert set(fold[150:].tolist()) == set(range(FOLDS))


def test_a_label_of_one_day_is_remarked():
    spread = [replace(one, taken=STARTED + timedelta(days=k % 12), label="ok") for k, one in enumerate(healthy())]
    once = [replace(one, taken=STARTED) for one in ill()]
    report = train([*spread, *once], FFT16).report
    assert report.remarks == ["label bearing is from one day of a device: held out, the net has never seen it"]
    assert one_label().report.remarks == ["all windows are from 2 days of a device: other days may differ by more"]


def test_held_out_scores_set_the_threshold():
    report = one_label().report
    held_out = report.scores["held out"]
    assert held_out.quantiles["95"] < report.threshold
    assert report.false_alarms <= 3
    assert report.threshold == pytest.approx(held_out.quantiles["50"] + 3 * report.spread, abs=0.3)
    assert held_out.quantiles["50"] > report.scores["training"].quantiles["50"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"taken_at": np.array([3])},
        {"interval_s": np.array(["a"])},
        {"interval_s": np.array([np.inf])},
        {"device": np.array([7])},
        {"label": np.array([1])},
        {"flags": np.array([0.0])},
        {"flags": np.array(["x"])},
        {"full_scale_g": np.array([np.nan])},
        {"acceleration": np.zeros((1, 8, 2), np.float32)},
        {"acceleration": np.zeros((1, 8, 3), np.int16)},
    ],
)
def test_an_export_with_strange_columns_gives_windows_or_one_line(tmp_path, spoilt):
    kept = {"acceleration": np.zeros((1, 8, 3), np.float32), "interval_s": np.array([0.001])}
    np.savez(tmp_path / "set.npz", **kept | spoilt)
    with pytest.raises((RecordedError, TrainError)):  # one window is too few, if it can be read
        train(from_files([tmp_path / "set.npz"], Selection()), Options())
