"""The accept path: HTTP POST -> decode -> durable queue -> an answer that names what is on disk.

POST /ingest takes frames; POST / takes frames or the article's float32 stream. The answer is JSON,
`{"stored": [[boot, sequence]...], "rejected": [[boot, sequence, reason]...]}`: a window that is named may be released,
any other has to be sent again. A body of which nothing can be named gets a 4xx with a one-line reason, and is kept in
quarantine. Content types are ignored: senders and proxies disagree about them.
"""

import asyncio
import hmac
import json
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from judder.config import Config
from judder.frame import MAGIC, decode_article, decode_each
from judder.queue import Entry, Outcome, Queue, QueueError, Refused, article_entry, entry
from judder.window import FrameError

try:
    import uvloop
except ImportError:  # not made for every platform
    uvloop = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

TOKEN_HEADER = "X-Ingest-Token"  # noqa: S105  # its name, not its value
ANSWER_LIMIT = 8192  # bytes of a body that come back through web.post
_REASON_LIMIT = 120
_RETRY_AFTER_S = "30"
_DRAIN_S = 10.0
_LINGER_S = 1.0  # how long a refused body is read on, so that its sender gets to see the answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RequestError(Exception):
    """Becomes an answer with `status` and one line of reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Ingest:
    """The handlers, their queue, and how much of other people's data is in memory."""

    def __init__(self, config: Config, queue: Queue) -> None:
        self._config = config
        self._queue = queue
        self._held_bytes = 0

    def app(self) -> web.Application:
        app = web.Application(middlewares=[_reasons])
        app.router.add_post("/ingest", self.frames)
        app.router.add_post("/", self.frames_or_article)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        return app

    async def frames(self, request: web.Request) -> web.Response:
        return await self._take(request, self._read_frames)

    async def frames_or_article(self, request: web.Request) -> web.Response:
        return await self._take(request, self._read_either)

    async def healthz(self, request: web.Request) -> web.Response:
        """The process lives."""
        return _answer(200, {"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """The store takes windows: a commit goes through."""
        await self._stored([], [])
        return _answer(200, {"status": "ok"})

    async def _take(self, request: web.Request, read: Callable[[bytes], "Content"]) -> web.Response:
        self._check_token(request)
        room = self._reserve(request)
        try:
            body = await self._body(request)
            content = read(body)
            outcomes = await self._stored(content.entries, content.unreadable)
        finally:
            self._held_bytes -= room
        return content.answer(outcomes)

    def _check_token(self, request: web.Request) -> None:
        token = self._config.ingest_token.get_secret_value().encode()
        if token and not hmac.compare_digest(token, request.headers.get(TOKEN_HEADER, "").encode()):
            raise RequestError(401, f"header {TOKEN_HEADER} is missing or wrong: set it in the Notehub route")

    def _reserve(self, request: web.Request) -> int:
        """Room for the body, before reading any of it."""
        limit = self._config.body_limit_bytes
        room = request.content_length if request.content_length is not None else limit
        if room > limit:
            raise RequestError(413, f"a body of {room} bytes is too large: at most {limit}")
        if self._held_bytes + room > self._config.memory_limit_bytes:
            raise RequestError(503, "too many bodies at once: try again later")
        self._held_bytes += room
        return room

    async def _body(self, request: web.Request) -> bytes:
        body = bytearray()
        limit = self._config.body_limit_bytes
        try:
            async with asyncio.timeout(self._config.body_timeout_s):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > limit:
                        raise RequestError(413, f"the body is too large: at most {limit} bytes")
        except TimeoutError:
            raise RequestError(408, f"the body took longer than {self._config.body_timeout_s:g} s") from None
        except (web.HTTPException, aiohttp.ClientError, aiohttp.http.HttpProcessingError) as error:
            raise RequestError(400, f"the body cannot be read: {error}") from None  # broken chunking or compression
        return bytes(body)

    def _read_frames(self, body: bytes) -> "Content":
        content = Content([], [], [], [])
        for item in decode_each(body):
            if not isinstance(item, FrameError):
                content.entries.append(entry(item, self._config.default_label))
            elif item.boot is None or item.sequence is None:
                content.damage.append(item)
            else:
                content.rejected.append([item.boot, item.sequence, item.reason[:_REASON_LIMIT]])
        problems = [*(error.reason for error in content.damage), *(str(rejected[2]) for rejected in content.rejected)]
        if problems and body:
            content.unreadable.append(Refused("; ".join(problems)[:1000], body))
        return content

    def _read_either(self, body: bytes) -> "Content":
        if MAGIC in body:
            return self._read_frames(body)
        try:
            window = decode_article(body, self._config.article_interval_s)
        except FrameError as error:
            return Content([], [], [error], [Refused(error.reason, body)] if body else [])
        return Content([article_entry(window, self._config.default_label)], [], [], [])

    async def _stored(self, entries: list[Entry], refused: list[Refused]) -> list[Outcome]:
        try:
            return await asyncio.wrap_future(self._queue.put(entries, refused))
        except QueueError as error:
            if error.full:
                raise RequestError(507, "the disk is full: keep the windows and try again later") from None
            raise RequestError(503, "the store failed: keep the windows and try again later") from None


@dataclass
class Content:
    """What a body held: windows, frames that name themselves but are refused, and damage without a name."""

    entries: list[Entry]
    rejected: list[list[int | str]]
    damage: list[FrameError]
    unreadable: list[Refused]

    def answer(self, outcomes: list[Outcome]) -> web.Response:
        stored: list[list[int | str]] = []
        for one, outcome in zip(self.entries, outcomes, strict=True):
            if outcome is Outcome.CONFLICT:
                reason = "conflict: another window is stored under this key; this one is in quarantine"
                self.rejected.append([one.boot, one.sequence, reason])
            else:
                stored.append([one.boot, one.sequence])
        if self.damage and not (stored or self.rejected):
            raise RequestError(self.damage[0].status, self.damage[0].reason)
        return _answer(200, _fitted(stored, self.rejected))


def _fitted(stored: list[list[int | str]], rejected: list[list[int | str]]) -> dict[str, list[list[int | str]]]:
    """As much as fits an answer; what is left out is sent again, and then named."""
    answer: dict[str, list[list[int | str]]] = {"stored": [], "rejected": []}
    room = ANSWER_LIMIT - 64
    for name, items in (("stored", stored), ("rejected", rejected)):
        for item in items:
            room -= len(json.dumps(item)) + 2
            if room < 0:
                return answer
            answer[name].append(item)
    return answer


def _answer(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode() + b"\n", content_type="application/json")


@web.middleware
async def _reasons(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal is one line of JSON, and ends the connection: what is left of its body is not read."""
    try:
        return await handler(request)
    except RequestError as error:
        status, reason = error.status, str(error)
    except web.HTTPException as error:
        status, reason = error.status, f"{error.reason}: POST /ingest or /, GET /healthz or /readyz"
    except FrameError as error:
        status, reason = error.status, error.reason
    log.warning("%s %s: %d %s", request.method, request.path, status, reason)
    response = _answer(status, {"reason": reason})
    if status in (503, 507):
        response.headers["Retry-After"] = _RETRY_AFTER_S
    response.force_close()
    return response


# --- running it -------------------------------------------------------------------------------------------------------


def _new_loop() -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop() if uvloop else asyncio.new_event_loop()


@asynccontextmanager
async def running(config: Config, queue: Queue) -> AsyncIterator[str]:
    """The server, listening; gives its URL. Leaving finishes the requests under way. Raises OSError."""
    runner = web.AppRunner(
        Ingest(config, queue).app(), access_log=None, shutdown_timeout=_DRAIN_S, lingering_time=_LINGER_S
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.port).start()
        port = runner.addresses[0][1]
        yield f"http://[{config.host}]:{port}" if ":" in config.host else f"http://{config.host}:{port}"
    finally:
        await runner.cleanup()


def serve(config: Config, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the URL. Raises QueueError, OSError."""

    async def until_told() -> None:
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        async with running(config, queue) as url:
            ready(url)
            await told.wait()

    queue = Queue(config.data, quarantine_limit_bytes=config.quarantine_limit_bytes)
    with queue, asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(until_told())


@dataclass
class Server:
    """A server on a thread of its own."""

    url: str
    queue: Queue


@contextmanager
def background(config: Config) -> Iterator[Server]:
    """Serve from a thread while the block runs. Raises QueueError, OSError."""
    started: Future[tuple[str, Callable[[], object]]] = Future()

    async def until_told() -> None:
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with running(config, queue) as url:
            started.set_result((url, lambda: loop.call_soon_threadsafe(told.set)))
            await told.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(until_told())
        except OSError as error:
            started.set_exception(error)

    with Queue(config.data, quarantine_limit_bytes=config.quarantine_limit_bytes) as queue:
        thread = threading.Thread(target=run, name="ingest", daemon=True)
        thread.start()
        try:
            url, stop = started.result()
            try:
                yield Server(url, queue)
            finally:
                stop()
        finally:
            thread.join()
