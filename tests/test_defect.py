"""The demo's second half: training, the model on the board, a defect that grows, and events that arrive."""

import json
from importlib import util

import pytest
from tests.host.test_cli import judder

from judder import demo


@pytest.mark.slow
@pytest.mark.parametrize(("defect", "fault"), [("bearing", "lost-reply"), ("imbalance", None)])
def test_a_model_of_the_healthy_start_sees_the_defect(tmp_path, defect, fault):
    """Every score in a frame is held to the host's by the demo itself (`wrong`)."""
    finished = demo.run(demo.Options(tmp_path, windows=190, defect=defect, fault=fault))
    assert finished.wrong == []
    report, outcome = finished.report, finished.report.model
    assert report.windows_captured == report.windows_stored == 190
    assert (report.lost, report.duplicates) == (0, 0)
    assert 126 <= outcome.trained_on <= 133
    assert outcome.healthy + outcome.ill >= 50
    assert outcome.false_alarms <= 2
    grown = [one for one in outcome.watched if one.grown >= 1.5]
    assert sum(one.is_event for one in grown) >= 0.9 * len(grown) > 0
    assert 1 < outcome.first_event_grown <= 1.5
    events = [window for window in finished.stored.values() if window.trigger == 1]
    assert len(events) == outcome.events + outcome.false_alarms
    assert {window.model for window in events} == {outcome.id}


def test_few_windows_run_without_a_model(tmp_path):
    shown = json.loads(judder("demo", "--windows", 2, "--json", "--data", tmp_path / "data").stdout)
    assert "model" not in shown
    assert shown["windows_stored"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--defect", "bearing", "--windows", 100], "--windows 190 or more"),
        (["--defect", "wear"], "wear"),
        (["--defect", "bearing", "--replay", __file__], "a recording has what it has"),
    ],
)
def test_what_makes_no_model_is_refused_before_anything_runs(options, words):
    assert util.find_spec("sklearn") is not None
    assert words in judder("demo", *options, code=2).stderr
