"""Labels, categories, projects, and what is held for which reason."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.frames import encode, motor, window

from judder import decode, decode_article
from judder.dataset import NotFitError, Project, category_of, label_of, project_of, sample_of, taken_at
from judder.export import Selection, examples, write_csv, write_npz
from judder.queue import Queue
from judder.records import Entry, LabelRule, State, Stored, article_entry, entry

STARTED = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
PROJECT = Project("p", "http://x", "key", "0123456789abcdef0123456789abcdef")


def us(moment):
    return round(moment.timestamp() * 1e6)


def frame(label="idle", session="", device="dev:1", sequence=1, samples=64, **fields):
    fields = {"interval_ns": 744048, "started_at_us": us(STARTED)} | fields
    return encode(window(motor(samples), boot=7, sequence=sequence, **fields), [device, "", "", "", label, session])


def stored(body, received_us=0):
    return Stored(1, decode(body)[0].device, 7, 1, received_us, None, State.WAITING, "", body)


def label(rules, default="", **fields):
    (found,) = decode(frame(**fields))
    return label_of(found, STARTED, rules, default)


def test_the_window_s_own_label_comes_first_then_the_newest_rule_then_the_default():
    rules = [LabelRule("old"), LabelRule("new")]
    assert label(rules, "default", label="own") == "own"
    assert label(rules, "default", label="") == "new"
    assert label([], "default", label="") == "default"
    assert label([], "", label="") == ""


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        (LabelRule("x", device="dev:*"), True),
        (LabelRule("x", device="dev:2"), False),
        (LabelRule("x", session="shaker"), True),
        (LabelRule("x", session="other"), False),
        (LabelRule("x", from_us=us(STARTED)), True),
        (LabelRule("x", from_us=us(STARTED) + 1), False),
        (LabelRule("x", until_us=us(STARTED) + 1), True),
        (LabelRule("x", until_us=us(STARTED)), False),
    ],
)
def test_a_rule_fits_by_device_session_and_time(rule, fits):
    assert label([rule], label="", session="shaker") == ("x" if fits else "")


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_a_device_s_day_is_on_one_side(seconds, fraction):
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    found = {category_of("dev:1", day + timedelta(hours=hour), fraction) for hour in range(24)}
    assert len(found) == 1
    assert found == {category_of("dev:1", moment, fraction)}


def test_the_split_has_the_fraction_asked_for():
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(1000)]
    testing = sum(category_of(f"dev:{n % 7}", day, 0.2) == "testing" for n, day in enumerate(days))
    assert 150 < testing < 250
    assert {category_of("d", day, 0.0) for day in days} == {"training"}
    assert {category_of("d", day, 1.0) for day in days} == {"testing"}


def test_a_time_that_is_not_known_is_that_of_receipt_and_stays_so():
    body = frame(started_at_us=0)
    assert taken_at(stored(body, received_us=us(STARTED)), decode(body)[0]) == STARTED
    one, two = (sample_of(stored(body, received_us=us(STARTED)), PROJECT, [], "") for _ in range(2))
    assert one == two
    assert json.loads(one.body)["protected"]["iat"] == int(STARTED.timestamp())


@pytest.mark.parametrize(
    ("body", "project", "reason"),
    [
        (frame(label=""), PROJECT, "no label"),
        (frame(interval_ns=0), PROJECT, "its interval is not known"),
        (frame(flags=4), PROJECT, "flagged SATURATED"),
        (frame(), Project("p", "", "", rate_hz=1400.0), "measured at 1344.00 Hz, 40000 ppm off the project's 1400 Hz"),
        (frame(), Project("p", "", "", rate_hz=400.0, resample=True), "too far from 400 Hz"),
        (frame(samples=30), Project("p", "", "", rate_hz=1344.0, resample=True), "30 samples are too few"),
    ],
)
def test_what_is_not_fit_is_held_with_the_reason(body, project, reason):
    with pytest.raises(NotFitError) as caught:
        sample_of(stored(body), project, [], "")
    assert reason in str(caught.value)


def test_a_flagged_window_goes_out_when_the_project_wants_it():
    assert sample_of(stored(frame(flags=4)), Project("p", "", "", accept_flagged=True), [], "").metadata["flags"]


def test_within_the_tolerance_the_measured_interval_is_sent():
    sample = sample_of(stored(frame(interval_ns=744100)), Project("p", "", "", rate_hz=1344.0), [], "")
    assert json.loads(sample.body)["payload"]["interval_ms"] == 0.7441


def test_resampling_sends_the_project_s_interval_and_says_so():
    body = frame(interval_ns=725000, samples=512)
    sample = sample_of(stored(body), Project("p", "", "", rate_hz=1344.0, resample=True), [], "")
    payload = json.loads(sample.body)["payload"]
    assert payload["interval_ms"] == pytest.approx(1000 / 1344, rel=1e-8)
    assert len(payload["values"]) == int((511 - 48) / (1 / (725000e-9 * 1344))) + 1
    assert sample.metadata["resampled_to_hz"] == "1344"
    assert "0.5%" in sample.metadata["resampling_error"]
    assert sample.metadata["measured_rate_hz"].startswith("1379.")


def test_the_first_project_that_fits_takes_a_device():
    projects = [Project("a", "", "", devices="dev:1*"), Project("b", "", "", devices="dev:*")]
    assert project_of("dev:12", projects).name == "a"
    assert project_of("dev:2", projects).name == "b"
    assert project_of("article", projects) is None


def test_an_article_s_stream_needs_interval_and_label():
    stream = np.ones((20, 3), "<f4").tobytes()
    entry = article_entry(decode_article(stream))
    held = Stored(1, entry.device, entry.boot, entry.sequence, us(STARTED), None, State.WAITING, "", stream)
    with pytest.raises(NotFitError, match="--article-interval-ms"):
        sample_of(held, PROJECT, [], "idle")
    known = Stored(1, entry.device, entry.boot, entry.sequence, us(STARTED), 0.01, State.WAITING, "", stream)
    sample = sample_of(known, PROJECT, [], "idle")
    assert sample.name.startswith("article.")
    assert json.loads(sample.body)["payload"]["interval_ms"] == 10


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def queue(tmp_path):
    with Queue(tmp_path / "data") as queue:
        bodies = [
            frame("idle", sequence=1, samples=600),
            frame("run", sequence=2, samples=600, interval_ns=720000, started_at_us=us(STARTED + timedelta(days=1))),
            frame("", sequence=3, samples=600, device="dev:2"),
            frame("run", sequence=4, samples=600, flags=4),
        ]
        queue.put([entry(decode(body)[0]) for body in bodies]).result(10)
        yield queue


def sequences(queue, **selection):
    return [example.window.sequence for example in examples(queue, Selection(**selection))]


def test_a_selection_is_by_device_label_time_and_flags(queue):
    assert sequences(queue) == [1, 2, 3]
    assert sequences(queue, flagged=True) == [1, 2, 3, 4]
    assert sequences(queue, device="dev:2") == [3]
    assert sequences(queue, label="run") == [2]
    assert sequences(queue, since=STARTED + timedelta(hours=1)) == [2]
    assert sequences(queue, until=STARTED + timedelta(hours=1)) == [1, 3]
    queue.add_label(LabelRule("later", device="dev:2")).result(10)
    assert sequences(queue, label="later") == [3]


def test_npz_has_everything_to_train_with(queue, tmp_path):
    assert write_npz(examples(queue, Selection(rate_hz=1344.0)), tmp_path / "set.npz") == 3
    with np.load(tmp_path / "set.npz") as found:
        assert found["acceleration"].shape[0] == 3
        assert found["acceleration"].dtype == np.float32
        assert list(found["label"]) == ["idle", "run", ""]
        assert set(found["category"]) <= {"training", "testing"}
        assert found["interval_s"] == pytest.approx(1 / 1344)
        assert str(found["unit"]) == "m/s2"


def test_csv_is_exact(queue, tmp_path):
    assert write_csv(examples(queue, Selection()), tmp_path / "set.csv") == 3
    lines = (tmp_path / "set.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 600
    first = next(iter(examples(queue, Selection())))
    assert np.float32(lines[1].split(",")[-1]) == first.acceleration[0, 2]


def test_an_export_without_windows_or_of_unlike_lengths_says_so(queue, tmp_path):
    with pytest.raises(ValueError, match="no window fits"):
        write_npz(examples(queue, Selection(device="none")), tmp_path / "x.npz")
    queue.put([entry(decode(frame(sequence=9, samples=64))[0])]).result(10)
    with pytest.raises(ValueError, match="64 to 600 samples"):
        write_npz(examples(queue, Selection()), tmp_path / "x.npz")


def test_entries_keep_what_a_body_says():
    assert entry(decode(frame())[0]) == Entry("dev:1", 7, 1, decode(frame())[0].crc, frame())
