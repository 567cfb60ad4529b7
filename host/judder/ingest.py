"""The accept path: HTTP POST -> decode -> durable queue -> an answer that names what is on disk.

POST /ingest takes frames; POST / takes frames or the article's float32 stream. The answer is JSON,
`{"stored": [[boot, sequence]...], "rejected": [[boot, sequence, reason]...]}`: a frame that is named may be released,
any other has to be sent again. `"resend": [[boot, first, last]...]` may stand beside them: windows that are missing
here. A body of which nothing can be named gets a 4xx with a one-line reason, and is kept in quarantine. Content types
are ignored: senders and proxies disagree about them.
"""

import asyncio
import hmac
import json
import logging
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from judder.account import Range
from judder.config import Config
from judder.frame import ANY_MAGIC, decode_article, decode_frames
from judder.group_commit import QueueError
from judder.metrics import Metrics
from judder.queue import Queue
from judder.records import Entry, Outcome, Refused, article_entry, entry
from judder.report import Report
from judder.signature import Signatures
from judder.window import FrameError, is_signed

log = logging.getLogger(__name__)

TOKEN_HEADER = "X-Ingest-Token"  # noqa: S105  # its name, not its value
ANSWER_LIMIT = 8192  # bytes of a body that come back through web.post
REPORTS_AT_ONCE = 16  # of one body: what they say of losses may touch thousands of rows each
_REASON_LIMIT = 120
_FRAMES_BESIDE_RESEND = 40  # in a body; each takes at most 160 bytes of the answer, a request to resend 40
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

    def __init__(self, config: Config, queue: Queue, metrics: Metrics) -> None:
        self._config = config
        self._queue = queue
        self._metrics = metrics
        self.busy: set[object] = set()  # connections with a request under way
        self._held_bytes = 0
        self._signatures = Signatures(config.master_keys, required=config.require_signature)
        self._allowance = config.requests_per_s
        self._allowed_s = time.monotonic()
        tokens = (config.ingest_token, config.ingest_token_next)
        self._tokens = [token.get_secret_value().encode() for token in tokens if token.get_secret_value()]

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._reasons])
        app.router.add_post("/ingest", self.frames)
        app.router.add_post("/", self.frames_or_article)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def frames(self, request: web.Request) -> web.Response:
        return await self._take(request, self._read_frames)

    async def frames_or_article(self, request: web.Request) -> web.Response:
        return await self._take(request, self._read_either)

    async def healthz(self, request: web.Request) -> web.Response:
        """The process lives."""
        return _answer(200, {"status": "ok"})

    async def readyz(self, request: web.Request) -> web.Response:
        """The store takes windows: there is room, and a commit goes through. Edge Impulse may be down meanwhile."""
        self._check_disk()
        await self._stored(Content([], [], [], []))
        return _answer(200, {"status": "ok"})

    async def metrics(self, request: web.Request) -> web.Response:
        self._check_token(request)
        return web.Response(body=self._metrics.text(), content_type="text/plain", charset="utf-8")

    async def _take(self, request: web.Request, read: Callable[[bytes], "Content"]) -> web.Response:
        self._check_token(request)
        self._check_rate()
        self._check_disk()
        room = self._reserve(request)
        try:
            body = await self._body(request)
            self._metrics.received_bytes.inc(len(body))
            content = read(body)
            with self._metrics.commit_seconds.time():
                outcomes, missing = await self._stored(content)
        finally:
            self._held_bytes -= room
        for one, outcome in zip(content.entries, outcomes, strict=True):
            counter = self._metrics.windows if one.report is None else self._metrics.reports
            counter.labels(outcome.value).inc()
        self._metrics.windows.labels("rejected").inc(len(content.rejected) + len(content.damage))
        self._metrics.saw({entry.device for entry in content.entries})
        return content.answer(outcomes, missing)

    def _check_token(self, request: web.Request) -> None:
        given = request.headers.get(TOKEN_HEADER, "").encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(token, given) for token in self._tokens]  # all: time must tell nothing
        if matches and not any(matches):
            raise RequestError(401, f"header {TOKEN_HEADER} is missing or wrong: set it in the Notehub route")

    def _check_rate(self) -> None:
        """At most requests_per_s on average, and as many in one burst."""
        limit = self._config.requests_per_s
        if not limit:
            return
        now_s = time.monotonic()
        self._allowance = min(max(limit, 1), self._allowance + (now_s - self._allowed_s) * limit)
        self._allowed_s = now_s
        if self._allowance < 1:
            raise RequestError(429, "too many requests: try again later")
        self._allowance -= 1

    def _check_disk(self) -> None:
        """Stop before SQLite has to: there is still room to deliver and to note that."""
        if shutil.disk_usage(self._config.data).free < self._config.free_disk_bytes:
            raise RequestError(507, "the disk is nearly full: keep the windows and try again later")

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
        except (
            web.RequestPayloadError,
            aiohttp.ClientError,
            aiohttp.http.HttpProcessingError,
            ConnectionError,
        ) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RequestError(400, f"the body cannot be read: {reason[:_REASON_LIMIT]}") from None
        return bytes(body)

    def _read_frames(self, body: bytes) -> "Content":
        content = Content([], [], [], [])
        reports = 0
        for item in decode_frames(body):
            if isinstance(item, Report):
                reports += 1
                if reports > REPORTS_AT_ONCE:
                    continue  # not named, so it is sent again
            if not isinstance(item, FrameError):
                self._take_or_leave(content, entry(item))
            elif item.boot is None or item.sequence is None:
                content.damage.append(item)
            else:
                content.rejected.append([item.boot, item.sequence, item.reason[:_REASON_LIMIT]])
        problems = [*(error.reason for error in content.damage), *(str(rejected[2]) for rejected in content.rejected)]
        if problems and body:
            content.unreadable.append(Refused("; ".join(problems)[:1000], body))
        return content

    def _take_or_leave(self, content: "Content", one: Entry) -> None:
        """A frame that is not to be believed is not named: its board has to keep it until its key is put right."""
        fault = self._signatures.fault(one.device, one.body)
        if fault is None:
            self._metrics.unsigned.inc(not is_signed(one.body))
            content.entries.append(one)
        else:
            content.damage.append(FrameError(f"frame {one.boot:08x}:{one.sequence}: {fault}", 403))

    def _read_either(self, body: bytes) -> "Content":
        if ANY_MAGIC.search(body):
            return self._read_frames(body)
        try:
            self._check_article()
            window = decode_article(body, self._config.article_interval_s)
        except FrameError as error:
            return Content([], [], [error], [Refused(error.reason, body)] if body else [])
        return Content([article_entry(window)], [], [], [])

    def _check_article(self) -> None:
        if self._signatures.required:
            raise FrameError("the article's stream cannot be signed, and require_signature is set", 403)

    async def _stored(self, content: "Content") -> tuple[list[Outcome], list[Range]]:
        """What became of the entries; and what to ask for again, if the answer has room for that."""
        try:
            if content.is_long:
                return await asyncio.wrap_future(self._queue.put(content.entries, content.unreadable)), []
            return await asyncio.wrap_future(self._queue.put_and_ask(content.entries, content.unreadable))
        except QueueError as error:
            if error.full:
                raise RequestError(507, "the disk is full: keep the windows and try again later") from None
            raise RequestError(503, "the store failed: keep the windows and try again later") from None

    @web.middleware
    async def _reasons(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every refusal is one line of JSON, and ends the connection: what is left of its body is not read."""
        self.busy.add(request.protocol)
        try:
            return await handler(request)
        except RequestError as error:
            status, reason = error.status, str(error)
        except web.HTTPException as error:
            status, reason = error.status, f"{error.reason}: POST /ingest or /, GET /healthz or /readyz"
        except FrameError as error:
            status, reason = error.status, error.reason
        finally:
            self.busy.discard(request.protocol)
        self._metrics.refused.labels(status).inc()
        log.warning("%s %s: %d %s", request.method, request.path, status, reason)
        response = _answer(status, {"reason": reason})
        if status in (429, 503, 507):
            response.headers["Retry-After"] = _RETRY_AFTER_S
        response.force_close()
        return response


@dataclass
class Content:
    """What a body held: frames to keep, others that name themselves but are refused, and damage without a name."""

    entries: list[Entry]
    rejected: list[list[int | str]]
    damage: list[FrameError]
    unreadable: list[Refused]

    @property
    def is_long(self) -> bool:
        """Its answer may leave no room to ask for anything, were all of it refused."""
        return len(self.entries) + len(self.rejected) > _FRAMES_BESIDE_RESEND

    def answer(self, outcomes: list[Outcome], missing: list[Range]) -> web.Response:
        stored: list[list[int | str]] = []
        for one, outcome in zip(self.entries, outcomes, strict=True):
            if outcome is Outcome.CONFLICT:
                reason = "conflict: another frame is stored under this key; this one is in quarantine"
                self.rejected.append([one.boot, one.sequence, reason])
            else:
                stored.append([one.boot, one.sequence])
        if self.damage and not (stored or self.rejected):
            worst = max(self.damage, key=lambda error: error.status)  # 403 before 400: it says more
            raise RequestError(worst.status, worst.reason)
        return _answer(200, _fitted(stored, self.rejected, [list(one) for one in missing]))


def _fitted(*lists: list[list[int | str]]) -> dict[str, list[list[int | str]]]:
    """As much as fits an answer; what is left out is sent again, and then named."""
    answer: dict[str, list[list[int | str]]] = {"stored": [], "rejected": []}
    room = ANSWER_LIMIT - 64
    for name, items in zip(("stored", "rejected", "resend"), lists, strict=True):
        for item in items:
            room -= len(json.dumps(item)) + 2
            if room < 0:
                return answer
            answer.setdefault(name, []).append(item)
    return answer


def _answer(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode() + b"\n", content_type="application/json")
