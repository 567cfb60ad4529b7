"""The emulated Notecard over both of its transports: transactions a second, and MB a second of binary data.

The client is as plain as can be and never pauses, so the figures are the emulator's; a note-python of one's own adds
its pauses (250 ms a serial request). Ratios: against the same card called in this process, without any transport.
"""

import json
import multiprocessing
import os
import select
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from judder.emulator.clock import WallClock
from judder.emulator.controllers import RemoteBus
from judder.emulator.i2c import I2CBus, Transfer
from judder.emulator.notecard import ADDRESS, Notecard, NotecardI2C, WebResponse
from judder.emulator.notecard.binary_store import cobs_encode
from judder.emulator.transports import I2CSocket, Pty

TRANSACTIONS = 2000
DATA = bytes(range(256)) * 508  # 130,048 bytes
LINE = b'{"req":"card.version"}\n'


def card():
    return Notecard(WallClock(), lambda request: WebResponse(200), request_ns=0)


class InProcess:
    def __init__(self, card):
        self.card = card

    def write(self, data):
        self.card.feed(data)

    def read(self):
        while not self.card.available():
            pass
        return self.card.read(self.card.available())


class Serial:
    def __init__(self, fd):
        self.fd = fd

    def write(self, data):
        while data:
            data = data[os.write(self.fd, data) :]

    def read(self):
        select.select([self.fd], [], [], 10)
        return os.read(self.fd, 65536)


class I2C:
    def __init__(self, bus):
        self.bus = bus
        self.available = 0

    def write(self, data):
        for start in range(0, len(data), 253):
            part = data[start : start + 253]
            self.bus.transfer(Transfer(ADDRESS, bytes([len(part)]) + part, 0))

    def read(self):
        _, data = self.bus.transfer(Transfer(ADDRESS, bytes([0, self.available]), self.available + 2))
        self.available = data[0]
        return data[2 : 2 + data[1]]


def ask(client, line):
    """The reply, and what came right behind it."""
    client.write(line)
    received = b""
    while b"\n" not in received:
        received += client.read()
    reply, _, behind = received.partition(b"\n")
    return json.loads(reply), behind


def transactions_per_s(client):
    started = time.perf_counter()
    for _ in range(TRANSACTIONS):
        assert "version" in ask(client, LINE)[0]
    return TRANSACTIONS / (time.perf_counter() - started)


def megabytes_per_s(client, rounds=10):
    """Into the store, checked, and out again."""
    encoded = cobs_encode(DATA)
    started = time.perf_counter()
    for _ in range(rounds):
        ask(client, b'{"req":"card.binary.put","cobs":%d}\n' % len(encoded))
        client.write(encoded + b"\n")
        assert ask(client, b'{"req":"card.binary"}\n')[0]["length"] == len(DATA)
        _, received = ask(client, b'{"req":"card.binary.get"}\n')
        while not received.endswith(b"\n"):
            received += client.read()
        assert received == encoded + b"\n"
    return 2 * rounds * len(DATA) / 1e6 / (time.perf_counter() - started)


def serve(kind, path, ready, done):
    """A process of its own, as `judder emulate notecard` is."""
    bus = I2CBus(WallClock())
    bus.attach(ADDRESS, NotecardI2C(card()))
    with Pty(card(), path) if kind == "pty" else I2CSocket(bus, path):
        ready.set()
        done.wait()


@contextmanager
def running(kind):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card"
        process = context.Process(target=serve, args=(kind, path, ready, done))
        process.start()
        ready.wait()
        if kind == "pty":
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            yield Serial(fd)
            os.close(fd)
        else:
            with RemoteBus(path) as bus:
                yield I2C(bus)
        done.set()
        process.join()


def main():
    figures = {"in process": (transactions_per_s(InProcess(card())), megabytes_per_s(InProcess(card())))}
    for kind in ("pty", "I2C socket"):
        with running(kind) as client:
            figures[kind] = transactions_per_s(client), megabytes_per_s(client)
    plain, plain_mb = figures["in process"]
    for name, (transactions, megabytes) in figures.items():
        ratios = f"{transactions / plain:.2f} and {megabytes / plain_mb:.2f} of in process"
        print(f"  {name:11} {transactions:7.0f} transactions/s, {megabytes:6.2f} MB/s of binary ({ratios})")
