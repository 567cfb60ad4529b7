"""Which windows are sent, and what the reports say of the others."""

import io
import json
import math
import random
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.frames import motor
from tests.frames import window as make_window
from tests.models import INTERVAL_S, drawn, spectral

from judder.model.file import GOLDEN_SCALE
from node import clock, judge, policy
from node.model import Model, Scores
from node.settings import read as settings_of

HOUR_US = 3600 * 1000000
SMALL = Model(io.BytesIO(drawn(blocks=[spectral(fft=16)], clusters=2, of=4, samples=64).to_bytes()))


@pytest.fixture
def now(monkeypatch):
    passed = [0]
    monkeypatch.setattr(clock, "now_us", lambda: passed[0])
    return passed


class Scored:
    """A model that gives what it is told."""

    id = "0badcafe"
    classes = ("ok", "worn", "loose")
    normal = ("ok",)
    class_threshold = 0.6
    anomaly_threshold = 0.5
    anomaly_spread = 0.1

    def __init__(self, anomaly=0.0, probabilities=()):
        self.anomaly = anomaly
        self.probabilities = list(probabilities)
        self.why_unfit = None

    def unfit(self, samples, interval_s, full_scale_g):
        return self.why_unfit

    def score(self, counts, scale):
        if isinstance(self.anomaly, Exception):
            raise self.anomaly
        return Scores(array("f", [1, 2]), self.anomaly, self.classes, self.probabilities)


def window(samples=64, **more):
    return make_window(motor(samples), interval_ns=744048, **more)


def judging(model, **values):
    text = "\n".join(f'{name} = "{value}"' for name, value in values.items())
    found = settings_of(text)
    assert not found.complaints
    return judge.Judge(found, model)


def run(judged, now, every_us=HOUR_US, anomalies=()):
    """The trigger of each window, one an hour."""
    triggers = []
    for anomaly in anomalies:
        judged.model.anomaly = anomaly
        trigger = judged.judge(window())
        if trigger is None:
            judged.hold(bytes([len(triggers)]))
        else:
            judged.taken = judged.take_held() if trigger != policy.SCHEDULE else []
            judged.sent(trigger)
        triggers.append(trigger)
        now[0] += every_us
    return triggers


def test_all_are_sent_and_events_are_called_so(now):
    judged = judging(Scored(), UPLOAD="all")
    assert run(judged, now, anomalies=[0, 0.6, 0.5]) == [policy.SCHEDULE, policy.SCORE, policy.SCHEDULE]
    assert judged.counts == {"scored": 3, "events": 1, "unsent": 0, "unfit": 0}


def test_by_schedule_one_in_so_many_is_sent_whatever_its_score(now):
    judged = judging(Scored(), UPLOAD="schedule", UPLOAD_EVERY_S=4 * 3600)
    assert run(judged, now, anomalies=[0, 9, 9, 0, 9, 0]) == [0, None, None, None, 0, None]
    assert judged.counts == {"scored": 6, "events": 3, "unsent": 4, "unfit": 0}
    assert judged.take_held() == []


def test_off_sends_none_and_counts_them(now):
    judged = judging(Scored(), UPLOAD="off")
    assert run(judged, now, anomalies=[0, 9]) == [None, None]
    assert judged.counts["unsent"] == 2


def test_events_are_sent_with_what_was_before_them(now):
    judged = judging(Scored(), UPLOAD="score", UPLOAD_EVERY_S=0, BEFORE_EVENT=2, EVENT_EVERY_S=0, CAPTURE_EVERY_S=3600)
    assert run(judged, now, anomalies=[0, 0.1, 0.2, 0.3]) == [None] * 4
    assert run(judged, now, anomalies=[0.7]) == [policy.SCORE]
    assert judged.taken == [b"\2", b"\3"]
    judged.followed()
    judged.followed()
    assert judged.counts == {"scored": 5, "events": 1, "unsent": 2, "unfit": 0}


def test_events_are_limited_and_what_lies_between_two_is_not_before_the_second(now):
    judged = judging(Scored(), UPLOAD="score", UPLOAD_EVERY_S=0, EVENT_EVERY_S=3 * 3600)
    assert run(judged, now, anomalies=[9, 9, 9, 9, 0, 9]) == [1, None, None, 1, None, None]
    assert judged.counts == {"scored": 6, "events": 5, "unsent": 4, "unfit": 0}
    assert judged.take_held() == []


def test_what_a_window_by_schedule_lies_between_is_not_right_before(now):
    judged = judging(Scored(), UPLOAD="score", UPLOAD_EVERY_S=2 * 3600, BEFORE_EVENT=2)
    assert run(judged, now, anomalies=[0, 0.1, 0.2, 9]) == [policy.SCHEDULE, None, policy.SCHEDULE, policy.SCORE]
    assert judged.taken == []


def test_what_lies_further_back_than_it_should_is_not_right_before(now):
    """Captures have paused: there was no room."""
    judged = judging(Scored(), UPLOAD="score", UPLOAD_EVERY_S=0, BEFORE_EVENT=2, CAPTURE_EVERY_S=3600)
    run(judged, now, anomalies=[0, 0.1])
    now[0] += 3 * HOUR_US
    run(judged, now, anomalies=[9])
    assert judged.taken == []
    assert judged.counts["unsent"] == 2


def test_a_sample_of_the_rest_waits_for_the_budget_and_an_event_does_not(now):
    left = [0]
    judged = judge.Judge(settings_of('UPLOAD = "score"'), Scored(), daily_room=lambda: left[0])
    assert run(judged, now, anomalies=[0, 9]) == [None, policy.SCORE]
    left[0] = 100
    assert run(judged, now, anomalies=[0, 0]) == [policy.SCHEDULE, None]


@pytest.mark.parametrize(
    ("values", "anomaly", "probabilities", "trigger"),
    [
        ({}, 0.51, (), policy.SCORE),
        ({"EVENT_ANOMALY": 60}, 0.51, (), None),
        ({"EVENT_ANOMALY": 40}, 0.45, (), policy.SCORE),
        ({}, 0, (0.3, 0.65, 0.05), policy.SCORE),
        ({}, 0, (0.3, 0.55, 0.15), None),
        ({}, 0, (0.7, 0.2, 0.1), None),
        ({"EVENT_CLASS_PERCENT": 50}, 0, (0.3, 0.55, 0.15), policy.SCORE),
        ({"EVENT_CLASS_PERCENT": 80}, None, (0.1, 0.1, 0.75), None),
    ],
)
def test_thresholds_are_the_model_s_or_the_board_s_own(values, anomaly, probabilities, trigger, now):
    judged = judging(Scored(anomaly, probabilities), UPLOAD="score", UPLOAD_EVERY_S=0, **values)
    assert judged.judge(window()) == trigger


@given(st.integers(0, 2**32), st.floats(1, 200), st.floats(0, 3))
@settings(deadline=None)
def test_level_and_kurtosis_are_those_of_the_samples(seed, swing, spikes):
    rng = np.random.default_rng(seed)
    counts = np.clip(rng.normal(0, swing, (200, 3)) + (rng.random((200, 3)) < 0.01) * spikes * 300, -511, 511)
    counts = counts.astype(np.int16)
    rms_mg, kurtosis = judge.level(make_window(counts.ravel().tolist()))
    centred = counts * 4.0 - (counts * 4.0).mean(0)
    variance = (centred**2).mean(0)
    expected = max(-3, *((centred**4).mean(0)[variance > 0] / variance[variance > 0] ** 2 - 3), -3)
    assert rms_mg == pytest.approx(math.sqrt(variance.sum()), rel=1e-3, abs=1e-3)
    assert kurtosis == pytest.approx(expected, rel=1e-2, abs=1e-2)


def test_levels_make_events_without_a_model(now):
    rms_mg, _ = judge.level(window())
    assert judging(None, UPLOAD="score", EVENT_RMS_MG=int(rms_mg)).judge(window()) == policy.LEVEL
    assert judging(None, UPLOAD="all", EVENT_RMS_MG=int(rms_mg) + 1).judge(window()) == policy.SCHEDULE
    flat = make_window([0, 0, 250] * 64)
    assert judging(None, UPLOAD="all", EVENT_RMS_MG=1, EVENT_KURTOSIS=1).judge(flat) == policy.SCHEDULE


@pytest.mark.parametrize("problem", [MemoryError(), ZeroDivisionError("x"), KeyError(1), math.nan, math.inf])
def test_whatever_scoring_does_the_window_is_kept_and_the_reports_say_why(problem, now, capsys):
    judged = judging(Scored(problem), UPLOAD="all")
    one = window()
    assert [judged.judge(one), judged.judge(one)] == [policy.SCHEDULE] * 2
    assert one.scores is None
    assert judged.members()["unfit"] == 2
    assert judged.members()["unfit_because"]
    assert len(capsys.readouterr().out.splitlines()) == 1  # said once


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_features_that_are_no_numbers_get_into_no_report(number, now):
    judged = judging(Scored(), UPLOAD="all")
    judged.model.score = lambda counts, scale: Scores(array("f", [1, number]), 0.0, [], [])
    judged.judge(window())
    members = json.loads(json.dumps(judged.members()), parse_constant=pytest.fail)
    assert (members["unfit"], members["scored"]) == (1, 0)
    assert "feature_mean" not in members


def test_without_memory_for_levels_the_window_is_kept(now, monkeypatch):
    def level(window):
        raise MemoryError

    monkeypatch.setattr(judge, "level", level)
    judged = judging(None, UPLOAD="all", EVENT_RMS_MG=1)
    assert judged.judge(window()) == policy.SCHEDULE
    assert judged.members()["unfit_because"] == "no memory to judge it"


def test_windows_with_gaps_or_unlike_training_are_not_scored(now):
    judged = judging(SMALL, UPLOAD="all")
    gap = make_window(motor(64), gaps=[[9, 3]], interval_ns=744048)
    assert judged.judge(gap) == policy.SCHEDULE
    assert gap.scores is None
    assert judged.members()["unfit_because"] == "gaps in the window"
    slow = make_window(motor(64), interval_ns=2500000)
    judged.judge(slow)
    assert "trained at 1344 Hz" in judged.members()["unfit_because"]
    assert judged.counts["unfit"] == 2
    good = window()
    judged.judge(good)
    assert good.scores.class_name in ("ok", "worn")
    assert judged.counts["scored"] == 1


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40))
def test_the_histogram_counts_every_score_around_the_threshold(scores):
    judged = judging(Scored(), UPLOAD="all")
    for anomaly in scores:
        judged._note(Scores(array("f", [1, 2]), anomaly, [], []))
    members = judged.members()
    assert sum(members["scores"]) == len(scores)
    low, step = members["score_low"], members["score_step"]
    assert low + step * len(members["scores"]) / 2 == pytest.approx(Scored.anomaly_threshold)
    for number, count in enumerate(members["scores"]):
        first = -math.inf if number == 0 else low + number * step
        end = math.inf if number == len(members["scores"]) - 1 else low + (number + 1) * step
        inside = [score for score in scores if first - 1e-6 <= score < end + 1e-6]
        assert count <= len(inside)


def test_without_clusters_the_histogram_is_of_the_probability_of_all_classes_that_are_events(now):
    model = Scored(None, (0.4, 0.35, 0.25))
    model.anomaly_threshold = None
    judged = judging(model, UPLOAD="all")
    judged.judge(window())
    members = judged.members()
    (place,) = [i for i, count in enumerate(members["scores"]) if count]
    assert members["score_low"] + place * members["score_step"] <= 0.6 < (place + 1) * members["score_step"]


def test_mean_and_variance_are_those_of_the_features_since_the_last_report(now):
    judged = judging(SMALL, UPLOAD="off")
    rng = random.Random(3)
    for _ in range(2):
        found = []
        for _ in range(7):
            one = make_window([rng.randint(-200, 200) for _ in range(192)], interval_ns=744048)
            judged.judge(one)
            found.append([float(value) for value in SMALL.score(one.counts, GOLDEN_SCALE).features])
        members = json.loads(json.dumps(judged.members()))
        assert members["feature_windows"] == 7
        np.testing.assert_allclose(members["feature_mean"], np.mean(found, 0), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(members["feature_variance"], np.var(found, 0), rtol=2e-2, atol=1e-3)
        judged.reported()
    assert "feature_mean" not in judged.members()
    assert judged.members()["scored"] == 14


def test_score_without_anything_to_score_with_is_said_at_the_start():
    (line,) = judging(None, UPLOAD="score").complaints()
    assert "UPLOAD = score" in line
    assert judging(None, UPLOAD="score", EVENT_RMS_MG=100).complaints() == []
    assert "no window is sent" in judging(None, UPLOAD="schedule", UPLOAD_EVERY_S=0).complaints()[0]
    assert judging(Scored(), UPLOAD="score").complaints() == []


def test_what_memory_has_no_room_for_is_not_held(now):
    class Large:
        def __iter__(self):
            raise MemoryError

    judged = judging(Scored(), UPLOAD="score", UPLOAD_EVERY_S=0)
    judged.judge(window())
    judged.hold(Large())
    assert judged.take_held() == []


def test_a_board_that_sends_all_loads_none_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert type(policy.choose(settings_of(), lambda: 1, lambda size: True)) is policy.Policy
    assert policy.Policy().judge(SimpleNamespace()) == policy.SCHEDULE
    assert policy.Policy().members() == {}
    assert type(policy.choose(settings_of('UPLOAD = "off"'), lambda: 1, lambda size: True)) is judge.Judge
    (tmp_path / policy.MODEL_FILE).write_bytes(drawn().to_bytes())
    chosen = policy.choose(settings_of(), lambda: 1, lambda size: True)
    assert chosen.model.samples == 1024
    assert chosen.model.interval_s == INTERVAL_S
    (tmp_path / policy.MODEL_FILE).write_bytes(b"something")
    refused = policy.choose(settings_of(), lambda: 1, lambda size: True)
    assert refused.model is None
    assert "it is no model file" in refused.complaints()[0]
    assert "no model file" in refused.members()["model_refused"]
