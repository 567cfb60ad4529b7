"""The server under load: one server process, one client process, loopback. Ratios hold within one run only."""

import asyncio
import json
import logging
import random
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import numpy as np
from tests.frames import encode, motor, window

from judder.config import Config
from judder.edge_impulse import document
from judder.group_commit import GroupCommit
from judder.queue import Queue
from judder.records import Outcome, State
from judder.server import background

WINDOWS = 2000
ROUNDS = 3
TEXTS = ["dev:864475040000001", "judder 0.1.0", "", "5b1f00c2", "demo", "emulated"]


# --- the client, a process of its own ---------------------------------------------------------------------------------


async def send(url, windows, connections, seed):
    """Post distinct frames; prints windows a second and p50 and p99 of the answers in milliseconds."""
    filled = window(motor(1024), interval_ns=744048, boot=seed)
    bodies = []
    for sequence in range(windows):
        filled.sequence = sequence
        filled.counts[0] = sequence % 500
        bodies.append(encode(filled, TEXTS))
    waiting, times_s = iter(bodies), []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one_connection():
            for body in waiting:
                before = time.perf_counter()
                async with session.post(f"{url}/ingest", data=body) as answer:
                    assert answer.status == 200
                    assert len((await answer.json())["stored"]) == 1
                times_s.append(time.perf_counter() - before)

        started = time.perf_counter()
        await asyncio.gather(*(one_connection() for _ in range(connections)))
        rate = windows / (time.perf_counter() - started)
    print(json.dumps([rate, *(1000 * np.percentile(times_s, [50, 99]))]))


def load(url, connections=64, windows=WINDOWS):
    command = [sys.executable, "-m", "tests.bench.bench_server", url, str(windows), str(connections)]
    command.append(str(random.SystemRandom().randrange(2**32)))
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@contextmanager
def serving(**options):
    with (
        tempfile.TemporaryDirectory() as folder,
        background(Config(data=Path(folder), port=0, free_disk_bytes=0, **options)) as server,
    ):
        yield server


# --- what is compared -------------------------------------------------------------------------------------------------


@contextmanager
def no_store():
    """The same server with a queue that keeps nothing."""

    def keep_nothing(queue, entries, refused=()):
        done = Future()
        done.set_result(([Outcome.STORED for _ in entries], []))
        return done

    original, Queue.put_and_ask = Queue.put_and_ask, keep_nothing
    try:
        with serving() as server:
            yield server
    finally:
        Queue.put_and_ask = original


@contextmanager
def commit_per_request():
    """The same server, each request in a transaction of its own."""

    def one_by_one(self, operations):
        return [result for operation in operations for result in original(self, [operation])]

    original, GroupCommit._commit = GroupCommit._commit, one_by_one
    try:
        with serving() as server:
            yield server
    finally:
        GroupCommit._commit = original


def store():
    ways = {"group commit": serving, "commit per request": commit_per_request, "no store": no_store}
    rates = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            with way() as server:
                rates[name].append(load(server.url)[0])
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print(f"accepted windows/s, 64 connections, median of {ROUNDS} interleaved rounds, synchronous=FULL")
    for name, rate in medians.items():
        print(f"  {name:20} {rate:6.0f}   {rate / medians['group commit']:.2f} of group commit")
    print(f"  store on / off: {medians['group commit'] / medians['no store']:.2f}")


def connections():
    print("answers with the durable store, by connections")
    for number in (1, 64, 256):
        with serving() as server:
            rate, p50_ms, p99_ms = load(server.url, number, WINDOWS if number > 1 else WINDOWS // 6)
            per_commit = server.queue.counts()[State.WAITING] / max(1, server.queue.commits)
        print(
            f"  {number:3} connections: {rate:5.0f} windows/s, p50 {p50_ms:5.1f} ms, p99 {p99_ms:5.1f} ms, "
            f"{per_commit:.1f} windows a commit"
        )


@contextmanager
def service(mode):
    """The emulated Edge Impulse in a process of its own, so that it takes no time from the server's."""
    command = [sys.executable, "-m", "judder", "emulate", "edge-impulse", "--port", "0", "--mode", mode]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield child.stdout.readline().split()[1]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def forwarding():
    print("accepting while delivering, 32 connections (the emulated service shares the 2 cores)")
    keys = {"edge_impulse_api_key": "k", "edge_impulse_hmac_key": "0123456789abcdef0123456789abcdef"}
    with serving() as server:
        alone = load(server.url, 32)[0]
    for mode in ("ok", "slow:2", "hang", "status:500", "status:401", "status:429", "rate:300", "reset"):
        with service(mode) as url, serving(edge_impulse_url=url, **keys) as server:
            accepted = load(server.url, 32)[0]
            delivered = server.queue.counts()[State.DELIVERED]
            requests = sum(server.forwarder.destinations["default"].answers.values())
            line = (
                f"  {mode:10} accepted {accepted:5.0f}/s, {accepted / alone:.2f} of no delivery; {delivered} delivered"
            )
            if mode == "ok":
                before, started = delivered, time.perf_counter()
                while server.queue.counts()[State.WAITING]:
                    time.sleep(0.01)
                after = time.perf_counter() - started
                line += f" meanwhile, then {(WINDOWS - before) / max(after, 1e-9):.0f}/s"
            print(f"{line}, {requests} requests")


def building():
    acceleration = np.array(motor(1024), np.float32).reshape(-1, 3) * np.float32(0.0392266)
    taken = datetime(2026, 5, 4, tzinfo=UTC)

    def plain():
        return json.dumps({"values": acceleration.tolist()})

    def ours():
        return document(acceleration, 744048e-9, "dev:1", taken, "0123456789abcdef0123456789abcdef")

    plain_us, ours_us = (min(timeit.repeat(call, number=50, repeat=5)) / 50 * 1e6 for call in (plain, ours))
    print(
        f"JSON of a window: {ours_us:.0f} us signed, {len(ours())} bytes; json.dumps of tolist(): {plain_us:.0f} us, "
        f"{len(plain())} bytes: {plain_us / ours_us:.1f} times slower, {len(plain()) / len(ours()):.1f} times larger"
    )


def main():
    logging.getLogger("judder").setLevel(logging.CRITICAL)  # pauses are what is wanted here
    building()
    store()
    connections()
    forwarding()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], *map(int, sys.argv[2:])))
