"""Emulated Edge Impulse ingestion service: takes what real clients send, and misbehaves on demand.

Interface: docs.edgeimpulse.com, ingestion service; what clients send was read from edge-impulse-cli 1.39.2 and PyPI
edgeimpulse 1.0.20. The server's own behaviour beyond its documentation is assumed: a repeat is told by the hash of
the message and is a failed file inside a 200. Unlike the real one it refuses a wrong signature.
"""

import asyncio
import hashlib
import hmac
import io
import json
import logging
import math
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import multipart
from aiohttp import web

log = logging.getLogger(__name__)

CATEGORIES = ("training", "testing", "anomaly", "split")
BODY_LIMIT = 100 * 1024 * 1024
SPLIT_TESTING = 0.2
_CBOR_SIGNATURE = re.compile(rb"signature\x78\x40([0-9a-f]{64})")  # a text of 64 characters behind its key
_PART_LIMIT = 1000


@dataclass
class Mode:
    """How the service behaves: `name` is ok, slow, status, rate, hang, reset or file; `value` is its number.

    slow: seconds until the answer. status: the HTTP status instead of one. rate: requests a second, above which
    there are 429s with Retry-After. file: every so manieth file fails inside a 200.
    """

    name: str = "ok"
    value: float = 0.0
    retry_after_s: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Mode":
        """From `slow:2`, `status:503` and the like. Raises ValueError."""
        name, _, value = text.partition(":")
        wants_value = name in ("slow", "status", "rate", "file")
        if name not in ("ok", "slow", "status", "rate", "hang", "reset", "file") or bool(value) != wants_value:
            raise ValueError(f"mode {text!r}: give ok, slow:S, status:CODE, rate:PER_S, hang, reset or file:EVERY")
        try:
            return cls(name, float(value or 0))
        except ValueError:
            raise ValueError(f"mode {text!r}: {value!r} is not a number") from None


@dataclass(frozen=True)
class Accepted:
    """A sample in the dataset."""

    name: str
    category: str
    label: str
    metadata: dict[str, str]
    body: bytes


class BadFileError(ValueError):
    """The file is not taken, with the reason."""


@dataclass
class EdgeImpulse:
    """The service. With `api_key` others are refused, with `hmac_key` every signature is checked."""

    api_key: str = ""
    hmac_key: str = ""
    mode: Mode = field(default_factory=Mode)
    keep_bodies: bool = True
    accepted: list[Accepted] = field(default_factory=list)
    requests: int = 0
    repeats: int = 0  # refused because the message was there already
    doubled: int = 0  # taken although the message was there: the client did not ask for a check
    refused: Counter[str] = field(default_factory=Counter)
    url: str = ""
    _hashes: dict[str, str] = field(default_factory=dict)
    _allowance: float = 0.0
    _since_s: float = 0.0
    _files: int = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post("/api/{category}/{kind:files|data}", self.take)
        app.router.add_get("/", self.status)
        return app

    async def status(self, request: web.Request) -> web.Response:
        """What has been received, for people and scripts."""
        counts = Counter(sample.category for sample in self.accepted)
        return web.json_response(
            {
                "accepted": len(self.accepted),
                "categories": counts,
                "labels": Counter(sample.label for sample in self.accepted),
                "requests": self.requests,
                "repeats": self.repeats,
                "doubled": self.doubled,
                "refused": self.refused,
            }
        )

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        misbehaviour = await self._misbehave(request)
        if misbehaviour is not None:
            return misbehaviour
        category = request.match_info["category"]
        if category not in CATEGORIES:
            return _error(404, f"no category {category}")
        if not request.headers.get("x-api-key") or (self.api_key and request.headers["x-api-key"] != self.api_key):
            self.refused["api key"] += 1
            return _error(401, "Invalid API key")
        body = await request.read()
        if request.match_info["kind"] == "data":
            return self._take_data(request, category, body)
        return self._take_files(request, category, body)

    def _take_data(self, request: web.Request, category: str, body: bytes) -> web.Response:
        name = unquote(request.headers.get("x-file-name", ""))
        if not name:
            return _error(421, "Missing header x-file-name")
        try:
            self._keep(request, category, name, body)
        except BadFileError as error:
            return _error(400, str(error))
        return web.Response(text=name)

    def _take_files(self, request: web.Request, category: str, body: bytes) -> web.Response:
        try:
            files = _files(request.headers.get("Content-Type", ""), body)
        except ValueError as error:
            self.refused["multipart"] += 1
            return _error(400, str(error))
        results = []
        for name, content in files:
            result: dict[str, Any] = {"fileName": name, "projectId": 1}
            try:
                result |= {"success": True, "sampleId": self._keep(request, category, name, content)}
            except BadFileError as error:
                result |= {"success": False, "error": str(error)}
            results.append(result)
        return web.json_response({"success": all(result["success"] for result in results), "files": results})

    def _keep(self, request: web.Request, category: str, name: str, body: bytes) -> int:
        """Add a sample; returns its number. Raises BadFileError."""
        self._files += 1
        if self.mode.name == "file" and self._files % int(self.mode.value) == 0:
            self.refused["mode"] += 1
            raise BadFileError("Failed to store the file, try again")
        self._check_signature(body)
        if body.lstrip()[:1] == b"{":
            _check_document(body)
        digest = hashlib.sha256(body).hexdigest()
        if digest in self._hashes:
            if request.headers.get("x-disallow-duplicates"):
                self.repeats += 1
                raise BadFileError(f"A sample with this hash already exists: {self._hashes[digest]}")
            self.doubled += 1
        self._hashes.setdefault(digest, name)
        label = unquote(request.headers.get("x-label", "")) or re.split(r"[^a-zA-Z0-9\s_-]", name, maxsplit=1)[0]
        if category == "split":
            category = "testing" if int(digest[:8], 16) / 2**32 < SPLIT_TESTING else "training"
        self.accepted.append(Accepted(name, category, label, _metadata(request), body if self.keep_bodies else b""))
        return len(self.accepted)

    def _check_signature(self, body: bytes) -> None:
        if not self.hmac_key:
            return
        found = _CBOR_SIGNATURE.search(body)
        if found is None and body.lstrip()[:1] == b"{":
            try:
                document = json.loads(body)
                signature, algorithm = str(document["signature"]), document["protected"]["alg"]
            except (ValueError, KeyError, TypeError):
                raise BadFileError("No signature") from None
            if algorithm == "none":
                return
            at = body.rfind(signature.encode())
        elif found is not None:
            if b"HS256" not in body[: found.start()] + body[found.end() :]:
                return
            signature, at = found[1].decode(), found.start(1)
        else:
            return  # images and the like carry none
        unsigned = body[:at] + b"0" * 64 + body[at + 64 :]
        expected = hmac.new(self.hmac_key.encode(), unsigned, hashlib.sha256).hexdigest()
        if len(signature) != 64 or not hmac.compare_digest(signature, expected):
            self.refused["signature"] += 1
            raise BadFileError("Invalid signature")

    async def _misbehave(self, request: web.Request) -> web.StreamResponse | None:
        mode = self.mode
        if mode.name == "slow":
            await asyncio.sleep(mode.value)
        elif mode.name == "hang":
            await asyncio.sleep(3600)
        elif mode.name == "reset":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # to nobody
        elif mode.name == "status":
            self.refused[f"{mode.value:.0f}"] += 1
            return _error(int(mode.value), "as told", mode.retry_after_s)
        elif mode.name == "rate" and not self._allowed(mode.value):
            self.refused["429"] += 1
            return _error(429, "Too many requests", mode.retry_after_s or 1)
        return None

    def _allowed(self, per_s: float) -> bool:
        now_s = asyncio.get_running_loop().time()
        self._allowance = min(per_s, self._allowance + (now_s - self._since_s) * per_s)
        self._since_s = now_s
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


def _files(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Name and content of every part called `data`. Raises ValueError."""
    kind, options = multipart.parse_options_header(content_type)
    if kind != "multipart/form-data" or not options.get("boundary"):
        raise ValueError("not multipart/form-data with a boundary")
    try:
        limits = {"part_limit": _PART_LIMIT, "memory_limit": BODY_LIMIT, "spool_limit": BODY_LIMIT}
        parts = list(multipart.MultipartParser(io.BytesIO(body), options["boundary"], **limits))
    except multipart.MultipartError as error:
        raise ValueError(f"bad multipart body: {error}") from None
    files = [(unquote(part.filename or ""), part.raw) for part in parts if part.name == "data"]
    if not files or not all(name for name, _ in files):
        raise ValueError("no file in a part called data")
    return files


def _check_document(body: bytes) -> None:
    """A JSON acquisition document as documented. Raises BadFileError."""
    try:
        document = json.loads(body)
        payload = document["payload"]
        if document["protected"]["ver"] != "v1" or not payload["device_type"]:
            raise BadFileError("protected.ver or payload.device_type is wrong")
        interval_ms, sensors, values = float(payload["interval_ms"]), payload["sensors"], payload["values"]
        if not (0 < interval_ms < math.inf and sensors and values):
            raise BadFileError("interval_ms, sensors and values have to be there")
        if not all(sensor["name"] and sensor["units"] for sensor in sensors):
            raise BadFileError("sensors need name and units")
        rows = values if isinstance(values[0], list) else [[value] for value in values]
        if not all(len(row) == len(sensors) and all(map(math.isfinite, row)) for row in rows):
            raise BadFileError("values have to be finite, one a sensor")
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadFileError(f"Invalid message: {error}") from None


def _metadata(request: web.Request) -> dict[str, str]:
    try:
        found = json.loads(request.headers.get("x-metadata", "{}"))
    except ValueError:
        raise BadFileError("x-metadata is not JSON") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise BadFileError("x-metadata has to be an object of texts")
    return found


def _error(status: int, reason: str, retry_after_s: float | None = None) -> web.Response:
    headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
    return web.json_response({"success": False, "error": reason}, status=status, headers=headers)


@asynccontextmanager
async def running(service: EdgeImpulse, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[EdgeImpulse]:
    """The service, listening at its `url`. Raises OSError."""
    async with listening(service.app(), host, port) as service.url:
        yield service


@asynccontextmanager
async def listening(app: web.Application, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Any such service; gives where it is. Raises OSError."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
