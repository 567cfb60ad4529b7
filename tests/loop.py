"""One bench and the real server that it posts to."""

from judder.emulator.bench import Bench
from judder.emulator.machine import Machine
from judder.emulator.notehub import Notehub


class Loop:
    """One bench, the server it posts to, and what its console said."""

    def __init__(self, server, **kwargs):
        settings = {"CAPTURE_EVERY_S": 60} | kwargs.pop("settings", {})
        self.server = server
        self.lines = []
        self.notehub = Notehub({"ingest": server.url})
        send = kwargs.pop("send", self.notehub.send)
        source = kwargs.pop("source", Machine.demo())
        self.bench = Bench(source, send, settings=settings, on_line=lambda _, line: self.lines.append(line), **kwargs)

    def stored(self):
        return {(found.boot, found.sequence): found for found in self.server.queue.windows()}

    def check_nothing_lost_or_doubled(self):
        stored = self.stored()
        assert stored.keys() == self.bench.captured.keys() == self.bench.acknowledged
        assert len(list(self.server.queue.windows())) == len(stored)
        for key, window in stored.items():
            truth = self.bench.captured[key]
            assert truth.repeated == 0
            assert abs((window.samples_lost or 0) - truth.lost) <= 2
            assert window.device == self.bench.device

    def said(self, text):
        return [line for line in self.lines if text in line]
