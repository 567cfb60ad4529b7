"""Anything that may come in on the server's port: bytes as they are, and bodies in requests that are well-formed."""

import atexit
import http.client
import json
import logging
import re
import socket
import sqlite3
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from tests.fuzz import decode
from tests.fuzz.decode import sealed

from judder import FrameError, decode_each
from judder.config import Config
from judder.ingest import ANSWER_LIMIT
from judder.logs import _calmly
from judder.server import background

AS_IT_COMES, ARTICLE, CHUNKED, SEALED = 1, 2, 4, 8  # bits of the first byte
PATIENCE_S = 5

# aiohttp 3.14 answers an expectation that is no UTF-8 with a 500, before anything of ours is asked
_EXPECT = re.compile(rb"expect(?!: 100-continue\r\n)", re.IGNORECASE)
_FRAME = decode.SEEDS[1]
_POST = b"POST /ingest HTTP/1.1\r\nHost: x\r\n"
SEEDS = [bytes([how]) + body for how in (0, SEALED, CHUNKED, ARTICLE) for body in decode.SEEDS[:3] + decode.SEEDS[7:10]]
SEEDS += [
    bytes([AS_IT_COMES]) + request
    for request in (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Ingest-Token: t\r\n\r\n",
        b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        _POST + b"Content-Length: %d\r\n\r\n" % len(_FRAME) + _FRAME,
        _POST + b"Content-Length: 2\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
        _POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(_FRAME) + _FRAME + b"\r\n0\r\n\r\n",
        _POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        _POST + b"Content-Length: 99999999\r\n\r\n",
        _POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    )
]
WORDS = [
    *(b"GET ", b"POST ", b"PUT ", b"HEAD ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n\r\n", b"/ingest", b"/metrics"),
    *(b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: ", b"gzip", b"deflate", b"br"),
    *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Host: x\r\n", b"X-Ingest-Token: ", b"?d=", b"%00"),
    *decode.WORDS,
]


@cache
def server():
    """One for all inputs, with little room for bodies: what is not given back is missed soon."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="judder-fuzz-")))
    config = Config(
        data=folder,
        port=0,
        free_disk_bytes=0,
        body_limit_bytes=1 << 16,
        memory_limit_bytes=1 << 20,
        quarantine_limit_bytes=1 << 20,
    )
    logging.getLogger("judder").setLevel(logging.CRITICAL)  # it says why it refuses, and does so all the time here
    bugs = _Bugs(logging.ERROR)
    bugs.addFilter(_calmly)
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).addHandler(bugs)
    return stack.enter_context(background(config))


class _Bugs(logging.Handler):
    """What nobody handled: the client may be gone before it sees the 500."""

    found: ClassVar = []

    def emit(self, record):
        if record.levelno >= logging.ERROR:  # still, after the filter
            self.found.append(self.format(record))


def run(data):
    how, content = data[0] if data else 0, data[1:]
    if how & AS_IT_COMES:
        check_bytes(_EXPECT.sub(b"expected", content))
    else:
        check_body(sealed(content) if how & SEALED else content, "/" if how & ARTICLE else "/ingest", how & CHUNKED)
    assert asked("GET", "/healthz") == (200, {"status": "ok"})
    assert not _Bugs.found, _Bugs.found.pop()


def asked(method, path, body=None, chunked=False):
    address = server().url.removeprefix("http://")
    with closing(http.client.HTTPConnection(address, timeout=PATIENCE_S)) as connection:
        headers = {"Transfer-Encoding": "chunked"} if chunked else {}
        pieces = (body[i : i + 999] for i in range(0, len(body), 999)) if chunked else body
        connection.request(method, path, pieces, headers, encode_chunked=bool(chunked))
        answer = connection.getresponse()
        content = answer.read()
        assert len(content) <= ANSWER_LIMIT
        return answer.status, json.loads(content)


def check_body(body, path, chunked):
    status, answer = asked("POST", path, body, chunked)
    if status != 200:
        assert 400 <= status < 500
        assert answer["reason"].isprintable()
        return
    named = [tuple(key) for key in answer["stored"]] + [tuple(key[:2]) for key in answer["rejected"]]
    assert len(set(map(tuple, answer["stored"]))) or answer["rejected"]
    assert all(kept(key) for key in map(tuple, answer["stored"]))
    if decode.MAGIC.search(body):
        items = [item for item in decode_each(body) if not isinstance(item, FrameError) or item.boot is not None]
        assert len(items) == len(named) or len(json.dumps(answer)) > ANSWER_LIMIT - 512
        assert set(named) <= {(item.boot, item.sequence) for item in items}
        for window in items:
            if (
                not isinstance(window, FrameError)
                and (window.boot, window.sequence) not in named[len(answer["stored"]) :]
            ):
                assert window.frame in kept((window.boot, window.sequence)) or len(items) > len(named)


def kept(key):
    """What is on disk under a key, of any device."""
    path = server().queue.path
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=PATIENCE_S)) as database:
        return [body for (body,) in database.execute("SELECT body FROM windows WHERE boot = ? AND sequence = ?", key)]


def check_bytes(content):
    """What is answered before readyz has been is all that will be: the store answers in turn."""
    host, port = server().url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        try:
            connection.sendall(content)
            assert asked("GET", "/readyz")[0] == 200
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # it has hung up already
            pass
        answers = b""
        try:
            while chunk := connection.recv(65536):
                answers += chunk
        except ConnectionError:
            pass
    while answers:
        answers = check_answer(answers, bodiless=b"HEAD" in content)


_HEAD = re.compile(rb"HTTP/\d\.\d (\d{3}) [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n")
_LENGTH = re.compile(rb"^Content-Length: (\d+)\r$", re.MULTILINE)


def check_answer(answers, bodiless):
    """The first of them; returns the others."""
    head = _HEAD.match(answers)
    assert head, answers[:200]
    status = int(head[1])
    assert status < 500, answers[:500]
    length = _LENGTH.search(head[0])
    following = answers[head.end() :]
    if length is None or (bodiless and (not following or following.startswith(b"HTTP/"))):
        return following
    body = following[: int(length[1])]
    assert len(body) == int(length[1])
    if b"Content-Type: application/json" in head[0]:
        assert len(body) <= ANSWER_LIMIT
        answer = json.loads(body)
        assert all(kept(tuple(key)) for key in answer.get("stored", ()))
    else:
        assert status == 400 or b"judder_windows_total" in body  # aiohttp's own words for what is no HTTP; or /metrics
    return following[len(body) :]
