"""The demo's second half: a model of the healthy machine goes onto the boards, and the machine develops a defect.

Emulated, as the rest of the demo: `Service` wanders in speed and load, then its defect grows. Training, the model file
and what computes the scores on the board are the real ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from judder.emulator.bench import Bench
from judder.emulator.machine import Service
from judder.model.file import TOLERANCE
from judder.window import Window

Defect = Literal["bearing", "imbalance"]
FACTOR = 1.6
"""What the defect grows to: 60 % more than when the machine was healthy."""
HEALTHY_SHARE = 0.7  # of a run's windows, to train on
LEAST_WINDOWS = 190  # of all devices: training takes 126
SCORE_TRIGGER = 1

Key = tuple[str, int, int]


@dataclass(frozen=True)
class Watched:
    """A window that the model has scored, and how far the defect had grown then (1: not at all)."""

    key: Key
    grown: float
    anomaly: float
    is_event: bool


@dataclass
class Outcome:
    """What came of the model. `--json` shows all of it but the windows."""

    defect: Defect
    id: str
    bytes: int
    trained_on: int
    features: int
    threshold: float
    healthy: int = 0
    """Scored windows from before the defect began, and how many of them were events."""
    false_alarms: int = 0
    ill: int = 0
    """Scored windows since, and how many of them were events."""
    events: int = 0
    first_event_grown: float | None = None
    """How far the defect had grown at the first event: 1.2 is 20 % more."""
    watched: list[Watched] = field(default_factory=list)


class Plan:
    """What is done halfway, and what came of it. Raises TrainError, ModelError, ModuleNotFoundError."""

    def __init__(self, defect: Defect, windows: int) -> None:
        self.defect = defect
        self.windows_before = int(HEALTHY_SHARE * windows)
        """From each device, to train on."""
        self.outcome: Outcome | None = None
        self._data = b""
        self._rest = windows - self.windows_before

    def turn(self, benches: Sequence[Bench], windows: Iterable[Window]) -> None:
        """Train a model on what the server has stored so far."""
        from judder.model.recorded import of_window
        from judder.model.train import Options, train

        recorded = [
            of_window(window, window.label, window.started_at, window.acceleration, window.interval_s)
            for window in windows
        ]
        trained = train(recorded, Options(name="demo"))
        report = trained.report
        self._data = trained.data
        self._model = trained.model
        self.outcome = Outcome(
            self.defect, report.id, report.bytes, report.windows, report.features, round(report.threshold, 4)
        )

    def go_on(self, bench: Bench, every_s: float) -> None:
        """Put the model onto the board and start it anew; a third of its windows later the defect begins."""
        begins_s = bench.clock.now_ns() / 1e9 + self._rest / 3 * every_s
        bench.lis3dh.source = replace(
            _service(bench),
            defect=self.defect,
            defect_from_s=begins_s,
            defect_grows_s=self._rest / 3 * every_s,
            defect_factor=FACTOR,
        )
        bench.install(self._data)
        bench.swan.reset()

    def judge(self, benches: Iterable[Bench], stored: Mapping[Key, Window]) -> list[str]:
        """Fill the outcome in; returns what is wrong with it, a line each."""
        outcome, wrong = self.outcome, []
        if outcome is None:
            return ["no model could be trained"]
        of = {bench.device: bench for bench in benches}
        for key, window in stored.items():
            if not window.model:
                continue
            bench = of[key[0]]
            grown = _service(bench).grown(bench.time_s(bench.captured[key[1:]]))
            wrong += [f"window {key[1]:08x}:{key[2]} of {key[0]}: {line}" for line in self._wrong_with(window)]
            if window.anomaly is not None:
                event = window.trigger == SCORE_TRIGGER
                outcome.watched.append(Watched(key, grown, window.anomaly, event))
        outcome.watched.sort(key=lambda one: one.key)
        healthy = [one for one in outcome.watched if one.grown == 1]
        ill = [one for one in outcome.watched if one.grown > 1]
        outcome.healthy, outcome.false_alarms = len(healthy), sum(one.is_event for one in healthy)
        outcome.ill, outcome.events = len(ill), sum(one.is_event for one in ill)
        outcome.first_event_grown = min((round(one.grown, 3) for one in ill if one.is_event), default=None)
        if not outcome.events:
            wrong.append("no window of the grown defect is an event")
        return wrong

    def _wrong_with(self, window: Window) -> list[str]:
        """Whether the board has found what the host finds in the same samples."""
        if self.outcome is None or window.model != self.outcome.id:
            return [f"it was scored by model {window.model}"]
        if window.anomaly is None:
            return []  # gaps in it, say; the board has said so
        expected = self._model.score(window.acceleration).anomaly
        if expected is None or abs(window.anomaly - expected) > TOLERANCE * max(1, abs(expected)):
            return [f"the board's score is {window.anomaly}, the host's {expected}"]
        if (window.anomaly > self.outcome.threshold) != (window.trigger == SCORE_TRIGGER):
            near = np.isclose(window.anomaly, self.outcome.threshold, rtol=TOLERANCE, atol=TOLERANCE)
            return [] if near else [f"a score of {window.anomaly} made trigger {window.trigger}"]
        return []


def _service(bench: Bench) -> Service:
    source = bench.lis3dh.source
    assert isinstance(source, Service)  # noqa: S101  # the demo gave it
    return source
