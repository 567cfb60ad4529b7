"""The loop with a model on the board: scores in the frames, events that arrive, and what is not sent counts."""

from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import pytest
from tests.bench.bench_model import run
from tests.loop import Loop
from tests.models import INTERVAL_S, drawn, spectral
from tests.vibration import recorded

from judder.board import MODEL_FILE
from judder.config import Config
from judder.emulator.machine import Machine, Service
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError, micropython
from judder.model.file import Clusters, Model, from_bytes, model_id
from judder.model.run import drift_of
from judder.model.train import Options, train
from judder.server import background

HOUR_S = 3600
LEVEL_M_S2 = 0.1 * 9.80665 / np.sqrt(2)  # the machine's x, from its fundamental


def level_model():
    """How far the level of x is from a healthy machine's: nothing that was trained."""
    one = np.ones(1, np.float32)
    clusters = Clusters((0,), one * LEVEL_M_S2, one * LEVEL_M_S2, one.reshape(1, 1) * 0, one * 0.2, 0.1)
    block = {"type": "flatten", "of": ["stdev"], "axes": [0]}
    known = {"mean": one * LEVEL_M_S2, "variance": one * (0.1 * LEVEL_M_S2) ** 2}
    return Model("level of x", "tests", 256, INTERVAL_S, 2, (block,), clusters=clusters, **known)


def test_a_model_alone_runs_in_256_kb_of_heap():
    """1,000 times in `make bench`."""
    try:
        run(drawn(), 150, heap_kb=256)
    except RuntimeMissingError as error:
        pytest.skip(str(error))


RUNTIMES_WITH_ROOM = {**RUNTIMES, "micropython": lambda: micropython(heap_kb=384)}


@pytest.mark.parametrize("name", RUNTIMES_WITH_ROOM)
def test_every_frame_says_what_the_model_found_on_every_runtime(loop, name):
    """On CPython through ulab's functions and no others, on MicroPython with plain arrays."""
    try:
        runtime = RUNTIMES_WITH_ROOM[name]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    blocks = (
        spectral(fft=64),
        spectral(fft=16, version=3, filter="high", order=4, cutoff_hz=250, bins=[1, 1], centred=True),
    )
    model = drawn(blocks=blocks, samples=1024)
    data = model.to_bytes()
    running = loop(runtime=runtime)
    running.bench.install(data)
    with running.bench as bench:
        bench.run(3)
    running.check_nothing_lost_or_doubled()
    assert len(running.stored()) >= 3
    assert not running.said("MemoryError")
    for window in running.stored().values():
        expected = model.score(window.acceleration)
        assert window.model == model_id(data)
        assert window.anomaly == pytest.approx(expected.anomaly, rel=1e-3, abs=1e-3)
        assert window.class_name == model.classes[int(np.argmax(expected.probabilities))]
        assert window.class_probability == pytest.approx(max(expected.probabilities), abs=1e-3)
    assert all("anomaly" in line for line in running.said(" captured: "))


def test_with_score_only_events_arrive_and_what_was_before_them_and_the_rest_is_counted(loop):
    """An imbalance doubles after six hours. Bench and store agree on every window, also on those that were held."""
    service = Service(Machine.demo(), speed_swing=0.02, defect="imbalance", defect_from_s=6.1 * HOUR_S, defect_factor=2)
    settings = {"UPLOAD": "score", "CAPTURE_EVERY_S": 600, "SAMPLES": 256, "BEFORE_EVENT": 2, "REPORT_EVERY_S": 7200}
    running = loop(source=service, settings=settings)
    running.bench.install(level_model().to_bytes())
    with running.bench as bench:
        bench.run_for(9 * HOUR_S)
    running.check_nothing_lost_or_doubled()
    for key, window in running.stored().items():
        assert crc32(window.counts.astype("<i2").tobytes()) == bench.captured[key].counts_crc
    stored = [window for _, window in sorted(running.stored().items())]
    assert [window.trigger for window in stored] == [0, 3, 3, 1, 1, 1]  # at the start; events are an hour apart
    started_s = [truth.first_sample_utc_s for _, truth in sorted(bench.captured.items())]
    assert [round((one - started_s[1]) / 600) for one in started_s[1:4]] == [0, 1, 2]
    assert all(abs(one.started_at.timestamp() - said) < 2 for one, said in zip(stored[1:], started_s[1:], strict=True))
    assert [window.anomaly > 0.1 for window in stored] == [False, False, False, True, True, True]
    report = next(iter(running.server.queue.newest_reports()))
    measured = len(bench.kept_back) + 4
    assert report.model == model_id(level_model().to_bytes())
    assert report.scored <= measured
    assert report.scored >= measured - 12  # since the report
    assert sum(report.scores) == report.scored
    assert report.unsent == report.scored - sum(one < report.written_at.timestamp() for one in started_s)
    assert report.feature_windows == 12  # one in 10 minutes, for two hours
    assert report.feature_mean[0] == pytest.approx(2 * LEVEL_M_S2, rel=0.1)
    (moved,) = drift_of(level_model(), report)
    assert moved.feature == "x stdev"
    assert moved.deviations == pytest.approx(10, rel=0.2)  # twice the level, in tenths of it
    assert drift_of(drawn(), report) == []
    (account,) = running.server.queue.accounts()
    assert (account.captured, account.missing, account.lost) == (6, 0, {})


@dataclass
class Day:
    """Bytes posted in its healthy part, windows scored then and since, and how many of them were events."""

    healthy_bytes: int
    healthy: int
    false_alarms: int
    ill: int
    events: int
    arrived: int
    """As events."""


def day(folder, upload, model, threshold):
    """A window in 15 minutes; the bearing strikes 40 % harder for the last three hours."""
    ill = Service(seed=4, defect="bearing", defect_from_s=21 * HOUR_S, defect_factor=1.4)
    with background(Config(data=folder, port=0)) as server:
        running = Loop(server, source=ill, settings={"UPLOAD": upload, "CAPTURE_EVERY_S": 900}, odr_error=0.01)
        running.bench.install(model)
        with running.bench as bench:
            bench.run_for(21 * HOUR_S)
            healthy_bytes, healthy = running.notehub.bytes_posted, len(running.said("anomaly"))
            bench.run_for(3 * HOUR_S)
            bench.run(0)  # until nothing waits
        running.check_nothing_lost_or_doubled()
        events = [float(line.split("anomaly ")[1].split(",")[0]) > threshold for line in running.said("anomaly")]
        arrived = sum(window.trigger == 1 for window in running.stored().values())
        ill_events = sum(events[healthy:])
        return Day(healthy_bytes, healthy, sum(events[:healthy]), len(events) - healthy, ill_events, arrived)


@pytest.mark.slow
def test_with_score_a_tenth_of_the_bytes_finds_the_same(tmp_path):
    model = train(recorded(Service(seed=4), np.arange(250) * 900.0, odr_error=0.01), Options()).data
    threshold = from_bytes(model)[0].clusters.threshold
    all_of_them, score = (day(tmp_path / upload, upload, model, threshold) for upload in ("all", "score"))
    assert all_of_them.healthy_bytes >= 10 * score.healthy_bytes
    assert (all_of_them.healthy, all_of_them.ill) == (score.healthy, score.ill) == (84, 12)
    assert all_of_them.arrived == all_of_them.false_alarms + all_of_them.events
    assert score.arrived in (3, 4)  # one an hour
    for found in (all_of_them, score):
        assert found.false_alarms <= 2
        assert found.events >= 11


def test_levels_make_events_without_a_model(loop):
    service = Service(replace(Machine.demo(), bearing_g=0.0), defect="imbalance", defect_from_s=1800, defect_factor=3)
    settings = {"UPLOAD": "score", "SAMPLES": 256, "UPLOAD_EVERY_S": 0, "BEFORE_EVENT": 0, "EVENT_RMS_MG": 180}
    running = loop(source=service, settings=settings)
    with running.bench as bench:
        bench.run_for(HOUR_S)
    running.check_nothing_lost_or_doubled()
    assert [window.trigger for window in running.stored().values()] == [2]
    assert not running.said("not used")


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        ({"UPLOAD": "schedule", "UPLOAD_EVERY_S": 60}, 3),
        ({"UPLOAD": "off"}, 0),
        ({"EVENT_RMS_MG": 28000}, 3),
        ({"UPLOAD": "score", "EVENT_RMS_MG": 1, "EVENT_EVERY_S": 0, "UPLOAD_EVERY_S": 0}, 3),
    ],
)
def test_policies_without_a_model_work_in_256_kb_of_heap(loop, settings, sent):
    try:
        runtime = micropython()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = loop(runtime=runtime, settings=settings)
    with running.bench as bench:
        bench.run_for(400)
        bench.run(0)
    running.check_nothing_lost_or_doubled()
    assert len(running.stored()) >= sent
    assert len(running.stored()) + len(bench.kept_back) >= 5
    assert not running.said("MemoryError")
    assert not running.said("not judged")


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-9], lambda data: b"", lambda data: data[:99] + b"?" + data[100:]]
)
def test_a_damaged_model_never_becomes_active_and_the_board_goes_on(loop, spoil):
    running = loop(settings={"SAMPLES": 256})
    running.bench.install(spoil(level_model().to_bytes()))
    with running.bench as bench:
        bench.run(2)
    running.check_nothing_lost_or_doubled()
    assert all((window.model, window.anomaly) == ("", None) for window in running.stored().values())
    assert running.said(f"{MODEL_FILE} is not used: ")
    assert "not used" in next(iter(running.server.queue.newest_reports())).model_refused


def test_a_heap_without_room_for_the_model_still_holds_windows(loop):
    try:
        runtime = micropython(heap_kb=256)
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = loop(runtime=runtime)
    running.bench.install(drawn().to_bytes())
    with running.bench as bench:
        bench.run(3)
    running.check_nothing_lost_or_doubled()
    assert running.said("memory has no room for it")
    assert not running.said("MemoryError")


def test_a_model_of_another_rate_scores_nothing_and_all_is_sent(loop):
    running = loop(settings={"SAMPLES": 256, "ODR_HZ": 400})
    running.bench.install(level_model().to_bytes())
    with running.bench as bench:
        bench.run(2)
    running.check_nothing_lost_or_doubled()
    assert all(window.anomaly is None for window in running.stored().values())
    (line,) = running.said("windows are not judged")
    assert "trained at 1344 Hz" in line
