"""Windows accepted a second, with the durable store and without: one server process, one client process, loopback."""

import asyncio
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path

import aiohttp
from tests.frames import encode, motor, window

from judder.config import Config
from judder.queue import Outcome, Queue
from judder.server import background

WINDOWS = 4000
CONNECTIONS = 64
ROUNDS = 3


def keep_nothing(queue, entries, refused=()):
    """In place of Queue.put: says that everything is stored."""
    done = Future()
    done.set_result([Outcome.STORED for _ in entries])
    return done


async def send(url, windows, connections, offset):
    """Post `windows` distinct frames; prints the rate."""
    filled = window(motor(1024), interval_ns=744048)
    texts = ["dev:864475040000001", "judder 0.1.0", "", "5b1f00c2", "demo", "emulated"]
    bodies = []
    for sequence in range(windows):
        filled.sequence = offset + sequence
        bodies.append(encode(filled, texts))
    waiting = iter(bodies)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as session:

        async def one_connection():
            for body in waiting:
                async with session.post(f"{url}/ingest", data=body) as answer:
                    assert answer.status == 200
                    assert len((await answer.json())["stored"]) == 1

        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(*(one_connection() for _ in range(connections)))
        print(windows / (loop.time() - started))


def rate(url, offset):
    command = [sys.executable, "-m", "tests.bench.bench_server", url, str(WINDOWS), str(CONNECTIONS), str(offset)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def without_store(offset):
    """The same server, in the same kind of thread, with nothing behind it."""
    original = Queue.put
    Queue.put = keep_nothing
    try:
        with tempfile.TemporaryDirectory() as folder, background(Config(data=Path(folder), port=0)) as server:
            return rate(server.url, offset)
    finally:
        Queue.put = original


def with_store(offset):
    with tempfile.TemporaryDirectory() as folder, background(Config(data=Path(folder), port=0)) as server:
        result = rate(server.url, offset)
        commits = server.queue.commits
    return result, commits


def main():
    on, off, grouped = [], [], []
    for number in range(ROUNDS):
        off.append(without_store(number * WINDOWS))
        accepted, commits = with_store(number * WINDOWS)
        on.append(accepted)
        grouped.append(WINDOWS / commits)
    on_rate, off_rate = statistics.median(on), statistics.median(off)
    print(f"{CONNECTIONS} connections, frames of 1024 samples, median of {ROUNDS} rounds, client on the other core")
    print(f"  store on  {on_rate:6.0f} windows/s, {statistics.median(grouped):.1f} windows a commit (synchronous=FULL)")
    print(f"  store off {off_rate:6.0f} windows/s")
    print(f"  on / off  {on_rate / off_rate:.2f}")


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], *map(int, sys.argv[2:])))
