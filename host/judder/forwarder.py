"""From the queue to Edge Impulse: at least once, in the same bytes under the same name, so that it counts once.

Trouble of the destination (no answer, 408, 425, 429, 5xx, a page of somebody else's) pauses the destination, not the
windows: Retry-After if given, otherwise a random time up to a bound that doubles to a minute; the first request
after a pause goes alone. 401 and 403 mean that something is configured wrong: a long pause and an alarm. Only what
the destination says about the payload itself (400, 413, 422, a file that keeps failing inside a 200) makes a window
dead. "Duplicate" means that an earlier attempt has arrived.
"""

import asyncio
import hashlib
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any

import aiohttp

from judder.dataset import NotFitError, Project, project_of, sample_of
from judder.edge_impulse import Sample
from judder.group_commit import QueueError
from judder.queue import Queue
from judder.records import LabelRule, Stored

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 60.0
LONGEST_PAUSE_S = 60.0
LONGEST_RETRY_AFTER_S = 3600.0
ALARM_PAUSE_S = 300.0
IDLE_S = 1.0  # between looks for windows that have become due
FILE_ATTEMPTS = 5
_DUPLICATE_WORDS = ("duplicate", "already exists")


class Verdict(Enum):
    """What an answer means for the window and for the destination."""

    DELIVERED = "delivered"
    DUPLICATE = "duplicate"
    BAD_FILE = "bad file"  # failed inside a success
    BAD_PAYLOAD = "bad payload"
    TROUBLE = "trouble"
    MISCONFIGURED = "misconfigured"


@dataclass(frozen=True)
class Answer:
    """A verdict, one line about it, and how long the destination wants to be left alone."""

    verdict: Verdict
    reason: str = ""
    retry_after_s: float | None = None


@dataclass
class Destination:
    """A project and the breaker in front of it."""

    project: Project
    paused_until_s: float = 0.0
    failures: int = 0
    alarm: str = ""
    in_flight: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def room(self, now_s: float, connections: int) -> int:
        """How many more requests may go out: after a failure one at a time."""
        if now_s < self.paused_until_s:
            return 0
        return max(0, (1 if self.failures else connections) - self.in_flight)

    def note(self, answer: Answer, now_s: float, jitter: random.Random) -> None:
        """Open or close the breaker."""
        self.answers[answer.verdict.value] += 1
        if answer.verdict is Verdict.TROUBLE:
            self.failures += 1
            bound_s = min(LONGEST_PAUSE_S, 2.0 ** min(self.failures, 10))
            pause_s = answer.retry_after_s if answer.retry_after_s is not None else jitter.uniform(0.1, bound_s)
            self._pause(now_s + pause_s, answer.reason)
        elif answer.verdict is Verdict.MISCONFIGURED:
            self.failures += 1
            if not self.alarm:
                log.error("project %s delivers nothing until this is put right: %s", self.project.name, answer.reason)
            self.alarm = answer.reason
            self._pause(now_s + ALARM_PAUSE_S, answer.reason)
        else:
            self.failures = 0
            self.alarm = ""

    def _pause(self, until_s: float, reason: str) -> None:
        if until_s > self.paused_until_s:
            self.paused_until_s = until_s
            log.warning("project %s pauses: %s", self.project.name, reason)


class Forwarder:
    """Delivers what the queue holds to `projects` while `run` runs. `now_s` and `sleep` are the time it lives in."""

    def __init__(
        self,
        queue: Queue,
        projects: Sequence[Project],
        *,
        default_label: str = "",
        connections: int = 8,
        timeout_s: float = TIMEOUT_S,
        now_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.destinations = {project.name: Destination(project) for project in projects}
        self._projects = tuple(projects)
        self._queue = queue
        self._default_label = default_label
        self._connections = connections
        self._timeout_s = timeout_s
        self._now_s = now_s
        self._sleep = sleep
        self._jitter = random.Random()
        self._bad_files: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled; what is in flight then is finished."""
        loop = asyncio.get_running_loop()

        def arrived() -> None:
            with suppress(RuntimeError):  # the loop may be gone already
                loop.call_soon_threadsafe(self._arrived.set)

        self._queue.on_put = arrived
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, connect=CONNECT_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            try:
                while True:
                    self._arrived.clear()
                    if not await self._start_some(session):
                        await self._wait()
            finally:
                self._queue.on_put = lambda: None
                if self._tasks:
                    await asyncio.wait(self._tasks, timeout=self._timeout_s)

    async def _start_some(self, session: aiohttp.ClientSession) -> int:
        """Claim what may go out now and start it; returns how much that was."""
        free = self._free()
        if not free:
            return 0
        try:
            claimed = await asyncio.wrap_future(self._queue.claim(free))
            rules = self._queue.labels() if claimed else []
        except QueueError as error:
            log.warning("%s", error)
            return 0
        started = 0
        for stored in claimed:
            started += await self._start(session, stored, rules)
        return started

    def _free(self) -> int:
        now_s = self._now_s()
        return sum(one.room(now_s, self._connections) for one in self.destinations.values())

    async def _start(self, session: aiohttp.ClientSession, stored: Stored, rules: Sequence[LabelRule]) -> int:
        project = project_of(stored.device, self._projects)
        if project is None:
            await self._settled(self._queue.hold(stored.number, "no project takes windows of this device"))
            return 1
        destination = self.destinations[project.name]
        now_s = self._now_s()
        if not destination.room(now_s, self._connections):
            await self._settled(self._queue.retry(stored.number, max(IDLE_S, destination.paused_until_s - now_s)))
            return 0
        try:
            sample = sample_of(stored, project, rules, self._default_label)
        except NotFitError as error:
            await self._settled(self._queue.hold(stored.number, str(error)))
            return 1
        except ValueError as error:
            await self._settled(self._queue.dead(stored.number, str(error)))
            return 1
        destination.in_flight += 1
        task = asyncio.create_task(self._deliver(session, destination, stored.number, sample))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return 1

    async def _deliver(
        self, session: aiohttp.ClientSession, destination: Destination, number: int, sample: Sample
    ) -> None:
        try:
            answer = await send(session, destination.project, sample)
        finally:
            destination.in_flight -= 1
            self._arrived.set()
        destination.note(answer, self._now_s(), self._jitter)
        if answer.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
            self._bad_files.pop(number, None)
            await self._settled(self._queue.done(number))
        elif answer.verdict is Verdict.BAD_PAYLOAD:
            await self._settled(self._queue.dead(number, answer.reason))
        elif answer.verdict is Verdict.BAD_FILE:
            self._bad_files[number] += 1
            if self._bad_files[number] >= FILE_ATTEMPTS:
                await self._settled(self._queue.dead(number, answer.reason))
            else:
                await self._settled(self._queue.retry(number, 2.0 ** self._bad_files[number]))
        else:
            await self._settled(self._queue.retry(number))

    async def _settled(self, future: Any) -> None:
        try:
            await asyncio.wrap_future(future)
        except QueueError as error:  # it is handed out again later; repeats are harmless
            log.warning("%s", error)

    async def _wait(self) -> None:
        """Until something arrives or ends, or something may have become due."""
        pauses = [one.paused_until_s - self._now_s() for one in self.destinations.values()]
        sleeping = asyncio.ensure_future(self._sleep(max(IDLE_S, min(pauses))))
        arriving = asyncio.ensure_future(self._arrived.wait())
        try:
            await asyncio.wait((sleeping, arriving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            arriving.cancel()


async def send(session: aiohttp.ClientSession, project: Project, sample: Sample) -> Answer:
    """One attempt. Whatever happens is an answer."""
    # a boundary from the content, so that a repeat is the same request to the last byte
    boundary = hashlib.sha256(sample.body).hexdigest()[:32]
    with aiohttp.MultipartWriter("form-data", boundary) as form:
        part = form.append(sample.body, {"Content-Type": "application/json"})
        part.set_content_disposition("form-data", name="data", filename=sample.name)
    url = f"{project.url.rstrip('/')}/api/{sample.category}/files"
    try:
        async with session.post(
            url, data=form, headers=sample.headers(project.api_key), allow_redirects=False
        ) as response:
            return judge(response.status, await response.read(), response.headers.get("Retry-After"))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Answer(Verdict.TROUBLE, f"no answer from {project.url} ({type(error).__name__})")


def judge(status: int, body: bytes, retry_after: str | None) -> Answer:
    """What an answer of the ingestion service means."""
    text = body[:200].decode("utf-8", "replace").replace("\n", " ")
    if status == 200:
        return _judge_success(body, text)
    reason = f"Edge Impulse answered {status}: {text}"
    if is_trouble(status):
        return Answer(Verdict.TROUBLE, reason, retry_after_s(retry_after))
    if status in (400, 413, 415, 422):
        if _says_duplicate(text):
            return Answer(Verdict.DUPLICATE)
        return Answer(Verdict.BAD_PAYLOAD, reason)
    return Answer(Verdict.MISCONFIGURED, reason)


def _judge_success(body: bytes, text: str) -> Answer:
    """Success is said twice: for the request and for the file."""
    try:
        found = json.loads(body)
        files = found["files"]
        succeeded = found["success"] is True and len(files) == 1 and files[0]["success"] is True
        error = str(files[0].get("error", "") if files else found.get("error", ""))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return Answer(Verdict.TROUBLE, f"this is no answer of Edge Impulse: {text}")
    if succeeded:
        return Answer(Verdict.DELIVERED)
    if _says_duplicate(error):
        return Answer(Verdict.DUPLICATE)
    return Answer(Verdict.BAD_FILE, f"Edge Impulse refused the file: {error[:200]}")


def _says_duplicate(text: str) -> bool:
    return any(word in text.lower() for word in _DUPLICATE_WORDS)


def is_trouble(status: int) -> bool:
    """Of the destination, and to be tried again: nothing is wrong with what was asked."""
    return status in (408, 425, 429) or status >= 500


def retry_after_s(retry_after: str | None) -> float | None:
    """Retry-After as seconds; it may also be a date. Nonsense counts as not given."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else None  # NaN
