"""The server: takes windows in and delivers them, one process, one event loop."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from judder.background import background as on_thread
from judder.background import new_loop
from judder.config import Config
from judder.forwarder import Forwarder
from judder.ingest import Ingest
from judder.metrics import Metrics
from judder.queue import Queue, wall_us
from judder.records import State

DRAIN_S = 10.0
LINGER_S = 1.0  # how long a refused body is read on, so that its sender gets to see the answer


@dataclass
class Server:
    """A server that listens."""

    url: str
    queue: Queue
    forwarder: Forwarder | None


@asynccontextmanager
async def running(config: Config, now_us: Callable[[], int] = wall_us) -> AsyncIterator[Server]:
    """The server, listening and delivering. Leaving finishes the requests under way. Raises QueueError, OSError.

    `now_us` is the store's clock: when things were received, and when to ask for what is missing.
    """
    with Queue(config.data, quarantine_limit_bytes=config.quarantine_limit_bytes, now_us=now_us) as queue:
        forwarder = None
        if projects := config.delivery():
            forwarder = Forwarder(
                queue, projects, default_label=config.default_label, connections=config.edge_impulse_connections
            )
        ingest = Ingest(config, queue, Metrics(queue, forwarder))
        runner = web.AppRunner(
            ingest.app(), access_log=None, shutdown_timeout=DRAIN_S, lingering_time=LINGER_S, keepalive_timeout=60
        )
        await runner.setup()
        try:
            async with _tasks(
                *([forwarder.run()] if forwarder else []),
                _close_idle(runner, ingest.busy, config.connection_limit, config.idle_timeout_s),
                _forget(queue, config.keep_delivered_days),
            ):
                await web.TCPSite(runner, config.host, config.port, backlog=1024).start()
                port = runner.addresses[0][1]
                host = f"[{config.host}]" if ":" in config.host else config.host
                yield Server(f"http://{host}:{port}", queue, forwarder)
        finally:
            await runner.cleanup()


@asynccontextmanager
async def _tasks(*coroutines: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run them while the block runs."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _close_idle(runner: web.AppRunner, busy: Set[object], limit: int, timeout_s: float) -> None:
    """Close connections on which no request has arrived for a while, and the oldest of too many.

    aiohttp itself waits for a first request for ever: connections that send their headers slowly, or nothing, would
    pile up.
    """
    since_s: dict[object, float] = {}
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(1.0, timeout_s / 4))
        connections = list(runner.server.connections) if runner.server is not None else []
        now_s = loop.time()
        since_s = {one: now_s if one in busy else since_s.get(one, now_s) for one in connections}
        idle = sorted((one for one in connections if one not in busy), key=lambda one: since_s[one])
        for number, connection in enumerate(idle):
            if len(connections) - number > limit or now_s - since_s[connection] > timeout_s:
                connection.force_close()


async def _forget(queue: Queue, keep_days: float) -> None:
    """Once an hour, the samples of windows that were delivered long ago, and old reports."""
    while True:
        before_us = round((time.time() - keep_days * 86400) * 1e6)
        await asyncio.wrap_future(queue.purge(State.DELIVERED, before_us))
        await asyncio.wrap_future(queue.purge_reports(before_us))
        await asyncio.sleep(3600)


def serve(config: Config, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the URL. Raises QueueError, OSError."""

    async def until_told() -> None:
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        async with running(config) as server:
            ready(server.url)
            await told.wait()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(until_told())


@contextmanager
def background(config: Config, now_us: Callable[[], int] = wall_us) -> Iterator[Server]:
    """Serve from a thread while the block runs. Raises QueueError, OSError."""
    with on_thread(lambda: running(config, now_us)) as server:
        yield server
