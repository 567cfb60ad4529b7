"""Benches, Notehub, the real server and Edge Impulse in one, and what became of each window that was captured."""

from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr

from judder import demo
from judder.background import background as on_thread
from judder.config import Config
from judder.emulator import edge_impulse
from judder.emulator.bench import Bench
from judder.emulator.edge_impulse import EdgeImpulse
from judder.emulator.machine import Machine
from judder.emulator.notehub import Notehub
from judder.server import background

SETTINGS = {
    "SAMPLES": 64,
    "CAPTURE_EVERY_S": 300,
    "LABEL": "test",
    "REPORT_EVERY_S": 3600,
    "LISTEN_EVERY_S": 3600,
}


@dataclass
class Figures:
    """Of the windows captured: how many are stored, delivered, delivered twice; what became of the others."""

    runs: int = 0
    captured: int = 0
    stored: int = 0
    delivered: int = 0
    twice: int = 0
    reported: dict[str, int] = field(default_factory=dict)
    """Lost, by the reason that the server's account gives."""
    tail: int = 0
    """Lost in a tail that the account calls unknown."""
    unreported: int = 0

    def add(self, other):
        self.runs += other.runs
        for name in ("captured", "stored", "delivered", "twice", "tail", "unreported"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for reason, number in other.reported.items():
            self.reported[reason] = self.reported.get(reason, 0) + number


class Chain:
    """The server and what is around it; benches are made with `bench`."""

    def __init__(self, service, queue, notehub):
        self.service = service
        self.queue = queue
        self.notehub = notehub
        self.lines = []
        self.benches = []

    def bench(self, *, settings=None, send=None, **options):
        bench = Bench(
            Machine.demo(),
            send or self.notehub.send,
            settings=SETTINGS | (settings or {}),
            on_line=lambda _, line: self.lines.append(line),
            **options,
        )
        self.benches.append(bench)
        return bench

    def said(self, text):
        return [line for line in self.lines if text in line]

    def figures(self):
        """Once all that is stored has been delivered."""
        demo._wait_for_delivery(self.queue)
        found = Figures(runs=1)
        stored = {(one.device, one.boot, one.sequence) for one in self.queue.stored()}
        delivered = [
            (known["device"], int(known["boot"], 16), int(known["sequence"]))
            for known in (sample.metadata for sample in self.service.accepted)
        ]
        found.stored, found.delivered = len(stored), len(set(delivered))
        found.twice = len(delivered) - len(set(delivered))
        captured = {(bench.device, *key) for bench in self.benches for key in bench.captured}
        found.captured = len(captured)
        assert stored <= captured
        fate = demo.fate(captured - stored, self.queue.accounts())
        found.reported, found.tail, found.unreported = dict(fate.reported), fate.tail, fate.unreported
        return found


@contextmanager
def chain(data, **config):
    """A chain whose server keeps its store in folder `data`."""
    service = EdgeImpulse(api_key=demo.API_KEY, hmac_key=demo.HMAC_KEY)
    with (
        on_thread(lambda: edge_impulse.running(service)),
        background(server_config(data, service, **config)) as server,
    ):
        yield Chain(service, server.queue, Notehub({"ingest": server.url}))


def server_config(data, service, **config):
    return Config.model_construct(
        data=data,
        port=0,
        edge_impulse_url=service.url,
        edge_impulse_api_key=SecretStr(demo.API_KEY),
        edge_impulse_hmac_key=SecretStr(demo.HMAC_KEY),
        **config,
    )
