"""Emulated Notehub: proxy routes that turn a card's web request into a real HTTP request.

How Notehub joins a route's URL and the request's `name`, and what it says about a server that does not answer, is
assumed [unverified]: base path kept, 502 when the server cannot be reached or breaks off, 504 when it takes longer than
the route allows. A card that waits less long than that gets no answer (TimeoutError). Redirects are not followed.
"""

import http.client
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, urlsplit

from judder.emulator.notecard.link import WebRequest, WebResponse

TIMEOUT_S = 10.0  # wall time: the server is a real one
RESPONSE_LIMIT = 1 << 20
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CHUNK = 4096


@dataclass(frozen=True)
class Route:
    """A proxy route: where it leads, and headers of its own (a token, say)."""

    url: SplitResult
    headers: Mapping[str, str] = field(default_factory=dict)


class Notehub:
    """Routes by alias; `send` is what a Notecard is given to reach them, from any thread.

    `chunked` sends bodies without Content-Length, as Notehub may. Only loopback addresses unless `loopback_only` is
    False.
    """

    def __init__(
        self,
        routes: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        timeout_s: float = TIMEOUT_S,
        loopback_only: bool = True,
    ) -> None:
        self.routes: dict[str, Route] = {}
        self.chunked = chunked
        self.timeout_s = timeout_s
        self.loopback_only = loopback_only
        self.posts = 0  # HTTP requests made
        self.unanswered = 0  # of these, without an answer
        self.bytes_posted = 0
        self.recent: deque[tuple[WebRequest, WebResponse]] = deque(maxlen=100)
        self._lock = threading.Lock()
        for alias, url in (routes or {}).items():
            self.add_route(alias, url)

    def add_route(self, alias: str, url: str, headers: Mapping[str, str] | None = None) -> None:
        """Make `alias` lead to `url`. Raises ValueError for a URL that is none or leads elsewhere than allowed."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _port_is_right(parts):
            raise ValueError(f"route {alias!r}: {url!r} is no URL: give one like http://127.0.0.1:8080/")
        if self.loopback_only and parts.hostname not in LOOPBACK:
            raise ValueError(
                f"route {alias!r}: {parts.hostname} is not this machine: pass loopback_only=False for that"
            )
        self.routes[alias] = Route(parts, dict(headers or {}))

    def send(self, request: WebRequest) -> WebResponse:
        """Send the request along its route and return the answer; whatever goes wrong is an answer, too."""
        route = self.routes.get(request.route)
        if route is None:
            response = _trouble(404, f"no proxy route with alias {request.route!r}")
        else:
            response = self._forward(route, request)
        self.recent.append((request, response))
        return response

    def _forward(self, route: Route, request: WebRequest) -> WebResponse:
        answered = False
        try:
            response = self._exchange(route, request)
            answered = True
        except TimeoutError:
            if request.seconds < self.timeout_s:
                raise
            response = _trouble(504, f"no answer from {route.url.netloc} within {self.timeout_s} s")
        except (OSError, http.client.HTTPException) as error:
            response = _trouble(502, f"{route.url.netloc}: {error or type(error).__name__}")
        finally:
            with self._lock:
                self.posts += 1
                self.unanswered += not answered
                self.bytes_posted += len(request.body)
        return response

    def _exchange(self, route: Route, request: WebRequest) -> WebResponse:
        secure = route.url.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        timeout_s = min(self.timeout_s, request.seconds)
        deadline_s = time.monotonic() + timeout_s
        connection = connect(route.url.hostname or "", route.url.port, timeout=timeout_s)
        headers = {"Content-Type": request.content, **route.headers}
        if request.label:
            headers["X-Notecard-Label"] = request.label
        body = _chunks(request.body) if self.chunked else request.body
        try:
            connection.request(request.method, target(route.url, request.name), body, headers)
            answer = connection.getresponse()
            return WebResponse(answer.status, _read(connection, answer, deadline_s))
        finally:
            connection.close()


def _read(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, deadline_s: float) -> bytes:
    """The body. Raises TimeoutError at the deadline, HTTPException when it breaks off or is too long."""
    body = b""
    while not answer.isclosed():
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left_s)
        part = answer.read1(_CHUNK)
        body += part
        if len(body) > RESPONSE_LIMIT:
            raise http.client.HTTPException(f"the answer exceeds {RESPONSE_LIMIT} bytes")
        if not part:
            break
    if answer.length:
        raise http.client.IncompleteRead(body, answer.length)
    return body


def _port_is_right(url: SplitResult) -> bool:
    try:
        return url.port != 0
    except ValueError:
        return False


def target(url: SplitResult, name: str) -> str:
    """Path and query of a request: the route's path, then the request's name."""
    base = url.path.rstrip("/")
    path = base + name if name.startswith(("/", "?")) else f"{base}/{name}"
    if name.startswith("?") and not base:
        path = "/" + path
    if url.query:
        path += ("&" if "?" in path else "?") + url.query
    return quote(path, safe="/?&=%:+,;@!$'()*~[]", errors="replace")


def _chunks(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _CHUNK):
        yield body[start : start + _CHUNK]


def _trouble(status: int, reason: str) -> WebResponse:
    return WebResponse(status, json.dumps({"err": reason}).encode())
