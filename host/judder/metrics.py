"""What the server counts, for Prometheus (GET /metrics)."""

import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from judder.forwarder import Forwarder
from judder.queue import Queue
from judder.records import State

DEVICES = 1000  # whose last sign of life is remembered; the longest silent are forgotten first


class Metrics:
    """One server's counters; each has its own registry, so that several servers fit one process."""

    def __init__(self, queue: Queue, forwarder: Forwarder | None) -> None:
        self.registry = CollectorRegistry()
        self.windows = Counter("judder_windows", "Windows by outcome", ["outcome"], registry=self.registry)
        self.reports = Counter("judder_reports", "Reports by outcome", ["outcome"], registry=self.registry)
        self.unsigned = Counter("judder_unsigned", "Frames taken without a signature", registry=self.registry)
        self.refused = Counter("judder_refused", "Requests refused, by status", ["status"], registry=self.registry)
        self.received_bytes = Counter("judder_received_bytes", "Bytes of bodies", registry=self.registry)
        self.commit_seconds = Histogram(
            "judder_commit_seconds",
            "From body to commit",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
            registry=self.registry,
        )
        self._last_seen: dict[str, float] = {}
        self.registry.register(_Now(queue, forwarder, self._last_seen))

    def saw(self, devices: Iterable[str]) -> None:
        """These devices have just sent something."""
        for device in devices:
            self._last_seen.pop(device, None)
            self._last_seen[device] = time.time()
        while len(self._last_seen) > DEVICES:
            del self._last_seen[next(iter(self._last_seen))]

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


class _Now(Collector):
    """What is read at the moment of asking."""

    def __init__(self, queue: Queue, forwarder: Forwarder | None, last_seen: dict[str, float]) -> None:
        self._queue = queue
        self._forwarder = forwarder
        self._last_seen = last_seen

    def collect(self) -> Iterator[Metric]:
        backlog = GaugeMetricFamily("judder_stored_windows", "Windows in the store, by state", labels=["state"])
        for state, number in self._queue.counts().items():
            backlog.add_metric([state], number)
        yield backlog
        absent = GaugeMetricFamily("judder_absent_windows", "Windows lost, by reason, or missing", labels=["reason"])
        for reason, number in self._queue.absent().items():
            absent.add_metric([reason], number)
        yield absent
        oldest_us = self._queue.oldest_us(State.WAITING)
        yield GaugeMetricFamily(
            "judder_oldest_waiting_seconds",
            "Age of the oldest window that waits for delivery",
            value=0 if oldest_us is None else max(0.0, time.time() - oldest_us / 1e6),
        )
        yield GaugeMetricFamily("judder_commits", "Commits so far", value=self._queue.commits)
        seen = GaugeMetricFamily("judder_device_last_seen_seconds", "When a device last sent", labels=["device"])
        for device, at_s in list(self._last_seen.items()):
            seen.add_metric([device], at_s)
        yield seen
        yield from self._delivery()

    def _delivery(self) -> Iterator[Metric]:
        answers = GaugeMetricFamily("judder_delivery_answers", "Answers so far", labels=["project", "verdict"])
        paused = GaugeMetricFamily("judder_delivery_failing", "Failures in a row of a project", labels=["project"])
        alarm = GaugeMetricFamily("judder_delivery_alarm", "1: configured wrong", labels=["project"])
        for name, destination in (self._forwarder.destinations if self._forwarder else {}).items():
            for verdict, number in destination.answers.items():
                answers.add_metric([name, verdict], number)
            paused.add_metric([name], destination.failures)
            alarm.add_metric([name], 1 if destination.alarm else 0)
        yield from (answers, paused, alarm)
