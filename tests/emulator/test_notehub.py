"""Proxy routes: from a card's web request to a real HTTP request, and what comes back when that fails."""

import json
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from judder.emulator.notecard.link import WebRequest
from judder.emulator.notehub import Notehub, target


def post(body=b"abc", name="/ingest", route="ingest", **kwargs):
    return WebRequest("POST", route, name, "application/octet-stream", body, **kwargs)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_request_arrives_whole(http_server, chunked):
    hub = Notehub({"ingest": http_server.url}, chunked=chunked)
    body = bytes(range(256)) * 300
    http_server.reply = (201, b'{"stored": []}')
    response = hub.send(post(body, "/ingest?d=dev%3A1", label="x"))
    assert (response.status, response.body) == (201, b'{"stored": []}')
    ((path, headers, received),) = http_server.requests
    assert (path, received) == ("/ingest?d=dev%3A1", body)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Notecard-Label"] == "x"
    assert ("Transfer-Encoding" in headers) == chunked
    assert (hub.posts, hub.unanswered, hub.bytes_posted) == (1, 0, len(body))


def test_a_route_adds_its_headers(http_server):
    hub = Notehub()
    hub.add_route("ingest", http_server.url, {"X-Ingest-Token": "t"})
    hub.send(post())
    assert http_server.requests[0][1]["X-Ingest-Token"] == "t"


@pytest.mark.parametrize("status", [301, 401, 404, 500, 503])
def test_whatever_the_server_says_comes_back(http_server, status):
    http_server.reply = (status, b"why")
    assert Notehub({"ingest": http_server.url}).send(post()).status == status
    assert len(http_server.requests) == 1


def test_an_unknown_route_is_a_404():
    response = Notehub().send(post(route="nowhere"))
    assert response.status == 404
    assert "nowhere" in json.loads(response.body)["err"]


def test_a_server_that_is_away_is_a_502():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    hub = Notehub({"ingest": f"http://127.0.0.1:{port}"})
    assert hub.send(post()).status == 502
    assert hub.unanswered == 1


def test_a_server_that_never_answers_is_a_504():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = Notehub({"ingest": f"http://127.0.0.1:{silent.getsockname()[1]}"}, timeout_s=0.1)
        assert hub.send(post()).status == 504


def test_a_server_that_breaks_off_is_a_502():
    def hang_up(listener):
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        hub = Notehub({"ingest": f"http://127.0.0.1:{listener.getsockname()[1]}"}, timeout_s=5)
        assert hub.send(post()).status == 502
        thread.join()


@pytest.mark.parametrize("url", ["http://example.org/", "http://10.0.0.1:8080", "https://192.168.1.1"])
def test_the_bench_talks_to_this_machine_only(url):
    with pytest.raises(ValueError, match="is not this machine"):
        Notehub({"ingest": url})
    Notehub({"ingest": url}, loopback_only=False)


@pytest.mark.parametrize("url", ["ftp://localhost/", "localhost:80", "http://", ""])
def test_a_route_needs_a_url(url):
    with pytest.raises(ValueError, match="is no URL"):
        Notehub({"ingest": url})


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        ("http://x", "/ingest", "/ingest"),
        ("http://x/", "/ingest", "/ingest"),
        ("http://x/base/", "/ingest?d=1", "/base/ingest?d=1"),
        ("http://x/base", "ingest", "/base/ingest"),
        ("http://x/base", "?d=1", "/base?d=1"),
        ("http://x", "?d=1", "/?d=1"),
        ("http://x/?k=v", "/ingest", "/ingest?k=v"),
        ("http://x/?k=v", "/ingest?d=1", "/ingest?d=1&k=v"),
        ("http://x", "/a b\r\nX: y", "/a%20b%0D%0AX:%20y"),
    ],
)
def test_a_route_s_path_and_the_request_s_name_make_the_target(url, name, expected):
    assert target(urlsplit(url), name) == expected


@pytest.mark.parametrize("port", [0, 99999])
def test_a_route_needs_a_port_that_there_can_be(port):
    with pytest.raises(ValueError, match="is no URL"):
        Notehub({"ingest": f"http://127.0.0.1:{port}/"})


class Odd:
    """A server that answers by hand: bytes, with pauses in between."""

    def __init__(self, *parts):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.parts = parts
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        client, _ = self.listener.accept()
        with client, suppress(ConnectionError):
            client.recv(65536)
            for part in self.parts:
                if isinstance(part, bytes):
                    client.sendall(part)
                elif self.over.wait(part):
                    return

    def close(self):
        self.over.set()
        self.thread.join()
        self.listener.close()


@pytest.fixture
def odd():
    servers = []

    def make(*parts):
        servers.append(Odd(*parts))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def test_an_answer_that_breaks_off_is_trouble(odd):
    server = odd(HEAD % 100 + b"0123456789")
    assert Notehub({"ingest": server.url}).send(post()).status == 502


def test_large_answers_come_whole_and_larger_ones_not_at_all(http_server):
    hub = Notehub({"ingest": http_server.url})
    http_server.reply = (200, bytes(130_554))
    assert hub.send(post()).body == bytes(130_554)
    http_server.reply = (200, bytes((1 << 20) + 1))
    assert hub.send(post()).status == 502


def test_a_card_that_waits_less_than_the_route_gets_no_answer(odd):
    server = odd(30.0)
    with pytest.raises(TimeoutError):
        Notehub({"ingest": server.url}).send(post(seconds=1))


def test_a_dripping_answer_is_over_in_time(odd):
    server = odd(HEAD % 1000, *[b"x", 0.1] * 100)
    with pytest.raises(TimeoutError):
        Notehub({"ingest": server.url}).send(post(seconds=1))
    dripping = odd(HEAD % 1000, *[b"x", 0.1] * 100)
    assert Notehub({"ingest": dripping.url}, timeout_s=0.5).send(post()).status == 504
