"""The accept path over real HTTP: what is answered, what is kept, and how bad senders are borne."""

import http.client
import json
import os
import random
import resource
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from zlib import crc32

import pytest
from tests.frames import encode, encode_report, motor, window

from judder import decode
from judder.background import background as on_thread
from judder.config import Config, ConfigError
from judder.emulator import edge_impulse
from judder.emulator.edge_impulse import EdgeImpulse
from judder.ingest import ANSWER_LIMIT
from judder.queue import FILE
from judder.records import State
from judder.server import background
from judder.signature import device_key, signature
from judder.window import SIGNATURE_BYTES, SIGNED


@pytest.fixture
def server(tmp_path):
    with background(Config(data=tmp_path, port=0, body_timeout_s=0.4)) as running:
        yield running


def frame(sequence=1, boot=7, seed=1, samples=8):
    return encode(window(motor(samples, seed=seed), boot=boot, sequence=sequence), ["dev:1", "", "", "", "", ""])


def report(number=0, boot=7, **members):
    return encode_report(members, ["dev:1", "", "", "", "", ""], boot, (1 << 31) + number)


def request(server, body=b"", path="/ingest", method="POST", headers=None, chunked=False):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    try:
        if chunked:
            body = iter([body[i : i + 7] for i in range(0, len(body), 7)])
        connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def stored(server):
    return [(found.boot, found.sequence) for found in server.queue.windows()]


def raw(server, data):
    """Send bytes as they are; what the server says until it hangs up."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(data)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


# --- what is answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ingest", "/", "/ingest?d=dev%3A1"])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "text/plain", "application/json", "x"])
def test_frames_are_stored_whatever_the_path_and_headers(server, path, chunked, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    status, answer = request(server, frame(1) + frame(2), path, headers=headers, chunked=chunked)
    assert (status, answer) == (200, {"stored": [[7, 1], [7, 2]], "rejected": []})
    assert stored(server) == [(7, 1), (7, 2)]


def test_a_repeat_is_named_again_and_stored_once(server):
    for _ in range(3):
        assert request(server, frame(1))[1] == {"stored": [[7, 1]], "rejected": []}
    assert stored(server) == [(7, 1)]


def test_a_conflict_is_rejected_and_in_quarantine(server):
    request(server, frame(1, seed=1))
    status, answer = request(server, frame(1, seed=2) + frame(2))
    assert status == 200
    assert answer["stored"] == [[7, 2]]
    assert answer["rejected"][0][:2] == [7, 1]
    assert "conflict" in answer["rejected"][0][2]
    assert [found.frame for found in server.queue.windows()] == [frame(1, seed=1), frame(2)]
    assert server.queue.quarantined()[0][1] == frame(1, seed=2)


def test_a_bad_frame_does_not_hide_its_neighbours(server):
    damaged = bytearray(frame(2))
    damaged[70] ^= 1
    body = frame(1) + bytes(damaged) + frame(3)
    status, answer = request(server, body)
    assert (status, answer) == (200, {"stored": [[7, 1], [7, 3]], "rejected": []})
    ((reason, kept),) = server.queue.quarantined()
    assert "CRC" in reason
    assert kept == body


def test_a_frame_that_makes_no_sense_is_rejected_by_name(server):
    senseless = bytearray(frame(9))
    senseless[52] = 7  # codec
    senseless[-4:] = struct.pack("<I", __import__("zlib").crc32(bytes(senseless[:-4])))
    status, answer = request(server, bytes(senseless))
    assert status == 200
    assert answer["stored"] == []
    assert answer["rejected"][0][:2] == [7, 9]
    assert "codec 7" in answer["rejected"][0][2]


def test_an_answer_fits_what_the_notecard_returns_and_repeats_finish_the_rest(server):
    body = b"".join(frame(0xFFFF0000 + i, boot=0xFFFFFFFF, samples=1) for i in range(900))
    waiting = set(range(900))
    rounds = 0
    while waiting:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        body = b"".join(frame(0xFFFF0000 + i, boot=0xFFFFFFFF, samples=1) for i in sorted(waiting))
        connection.request("POST", "/ingest", body)
        answer = connection.getresponse().read()
        connection.close()
        assert len(answer) <= ANSWER_LIMIT
        named = {sequence - 0xFFFF0000 for _, sequence in json.loads(answer)["stored"]}
        assert named
        waiting -= named
        rounds += 1
    assert rounds < 10
    assert len(stored(server)) == 900


def test_the_article_s_stream_is_held_with_or_without_its_interval(tmp_path):
    body = struct.pack("<6f", 0.1, 0.2, 9.8, 0.3, 0.1, 9.7)
    with background(Config(data=tmp_path / "a", port=0)) as server:
        status, answer = request(server, body, "/")
        assert status == 200
        assert len(answer["stored"]) == 1
        (found,) = server.queue.windows()
        assert found.interval_s is None
        assert found.frame == body
        assert request(server, body, "/")[0] == 200
        assert len(stored(server)) == 1
    with background(Config(data=tmp_path / "b", port=0, article_interval_ms=2.5)) as server:
        request(server, body, "/")
        assert next(server.queue.windows()).interval_s == 0.0025


# --- reports, and what is missing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ingest", "/"])
def test_reports_are_kept_and_named_like_windows(server, path):
    body = report(0, captured=2) + frame(0) + report(1, captured=2)
    for _ in range(2):
        status, answer = request(server, body, path)
        assert status == 200
        assert answer == {"stored": [[7, 1 << 31], [7, 0], [7, (1 << 31) + 1]], "rejected": []}
    assert stored(server) == [(7, 0)]
    assert [one.captured for one in server.queue.reports()] == [2, 2]
    assert request(server, report(2), path)[1] == {"stored": [[7, (1 << 31) + 2]], "rejected": []}


def test_a_report_that_makes_no_sense_or_is_another_is_rejected_by_name(server):
    request(server, report(0, captured=2))
    status, answer = request(server, report(0, captured=3) + report(1, captured=-3) + frame(1))
    assert status == 200
    assert answer["stored"] == [[7, 1]]
    reasons = {sequence - (1 << 31): reason for _, sequence, reason in answer["rejected"]}
    assert reasons[0].startswith("conflict")
    assert "captured is no whole number" in reasons[1]
    assert len(server.queue.quarantined()) == 2
    assert server.queue.accounts()[0].captured == 2


class Clock:
    us = 1_790_000_000_000_000

    def __call__(self):
        return self.us


def test_what_is_missing_is_asked_for_until_it_comes_or_is_gone(tmp_path):
    clock = Clock()
    with background(Config(data=tmp_path, port=0), now_us=clock) as server:
        answer = request(server, frame(0) + frame(3) + frame(9))[1]
        assert answer.keys() == {"stored", "rejected"}
        clock.us += 600_000_000
        assert request(server, frame(10))[1]["resend"] == [[7, 1, 2], [7, 4, 8]]
        assert "resend" not in request(server, frame(11))[1]
        clock.us += 4 * 600_000_000
        assert request(server, frame(1) + frame(2) + frame(5) + report(0))[1]["resend"] == [[7, 4, 4]]
        clock.us += 360_000_000
        assert request(server, frame(12) + report(1, lost=[[7, 4, 4, "gone"]]))[1]["resend"] == [[7, 6, 8]]
        clock.us += 16 * 600_000_000
        assert request(server, frame(13))[1]["resend"] == [[7, 6, 8]]
        clock.us += 600_000_000
        assert "resend" not in request(server, frame(14))[1]
        (account,) = server.queue.accounts()
        assert (account.captured, account.stored, account.lost) == (15, 11, {"gone": 1})
        assert account.missing_ranges == ((6, 8),)


def test_nothing_is_asked_for_where_the_answer_may_have_no_room(tmp_path):
    """And a request that does not go out does not count."""
    clock = Clock()
    with background(Config(data=tmp_path, port=0), now_us=clock) as server:
        request(server, b"".join(frame(2 * i, boot=0xFFFFFFFF, samples=1) for i in range(20)))
        for i in range(4):
            clock.us += 600_000_000
            frames = (frame(0xFFFF0000 + 1000 * i + j, boot=0xFFFFFFFF, samples=1) for j in range(300))
            assert "resend" not in request(server, b"".join(frames))[1]
        conflicts = b"".join(frame(0xFFFF0000 + j, boot=0xFFFFFFFF, samples=1, seed=2) for j in range(39))
        body = conflicts + frame(0xFFFFFFFF, boot=0xFFFFFFFF, samples=1)
        status, text = request_raw(server, body)
        assert status == 200
        assert len(text) <= ANSWER_LIMIT
        answer = json.loads(text)
        assert (len(answer["rejected"]), len(answer["resend"])) == (39, 8)


def request_raw(server, body):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    try:
        connection.request("POST", "/ingest", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# --- bad senders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/ingest", b"", 400, "empty"),
        ("/", b"", 400, "empty"),
        ("/ingest", bytes(13), 400, "magic"),
        ("/", bytes(13), 400, "13 bytes"),
        ("/", bytes(9131), 400, "9131 bytes"),
        ("/", struct.pack("<3f", 1, float("nan"), 2), 422, "sample 0 has y = nan"),
        ("/ingest", struct.pack("<3f", 1, 2, 3), 400, "magic"),
        ("/ingest", frame()[:-1], 400, "cut off"),
        ("/ingest", bytes(10_000_000), 413, "too large"),
        ("/elsewhere", b"x", 404, "Not Found"),
    ],
)
def test_what_cannot_be_used_gets_a_4xx_and_one_line(server, path, body, status, reason):
    answer = raw(
        server, f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:300_000]
    )
    head, _, content = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"application/json" in head
    assert content.count(b"\n") == 1
    assert reason in json.loads(content)["reason"]
    assert stored(server) == []
    assert request(server, frame())[0] == 200


def test_what_is_refused_is_kept_to_be_looked_at(server):
    request(server, bytes(13))
    ((reason, body),) = server.queue.quarantined()
    assert body == bytes(13)
    assert "magic" in reason


def test_a_chunked_body_without_end_is_cut_off_at_the_limit(server):
    head = b"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    host, port = server.url.removeprefix("http://").split(":")
    sent = 0
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head)
        try:
            while sent < 20_000_000_000:
                connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                sent += 65536
        except OSError:
            pass
    assert sent < 20_000_000_000
    assert request(server, frame())[0] == 200


def test_a_compressed_bomb_is_cut_off_at_the_limit(server):
    import gzip

    body = gzip.compress(bytes(100_000_000))
    status, answer = request(server, body, headers={"Content-Encoding": "gzip"})
    assert status == 413
    assert "too large" in answer["reason"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_does_not_decompress_is_an_error_of_the_sender(server, encoding):
    status, answer = request(server, b"hello, this is not compressed", headers={"Content-Encoding": encoding})
    assert status == 400
    assert "cannot be read" in answer["reason"]
    assert request(server, frame())[0] == 200


def test_broken_chunking_is_an_error_of_the_sender(server):
    head = b"POST /ingest HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(server, head + b"zz\r\nnothing\r\n\r\n").split()[1] == b"400"
    assert stored(server) == []


def test_a_slow_sender_is_sent_away(server):
    body = frame()
    answer = raw(server, f"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:9])
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert stored(server) == []


def test_a_sender_that_hangs_up_leaves_nothing_behind(server, caplog):
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf")
    assert request(server, frame())[0] == 200
    assert stored(server) == [(7, 1)]
    assert not [record for record in caplog.records if record.exc_info], "a line, not a traceback"


def test_many_large_bodies_at_once_are_bounded(tmp_path):
    config = Config(data=tmp_path, port=0, memory_limit_bytes=1024 * 1024, body_timeout_s=5)
    with background(config) as server:
        host, port = server.url.removeprefix("http://").split(":")
        head = b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 262144\r\n\r\n"
        halves = []
        for _ in range(4):
            connection = socket.create_connection((host, int(port)), timeout=10)
            connection.sendall(head)
            halves.append(connection)
        statuses = set()
        while 503 not in statuses:
            statuses.add(request(server, bytes(200_000))[0])
        assert statuses <= {400, 503}
        for connection in halves:
            connection.close()
        while request(server, frame())[0] != 200:
            pass


def test_memory_stays_bounded_under_ten_megabyte_bodies(server):
    body = bytes(10_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def post(_):
        head = f"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            try:
                connection.sendall(head)
                connection.sendall(body)
            except OSError:
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(post, range(40)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB on Linux; 400 MB were sent


# --- safety -----------------------------------------------------------------------------------------------------------


def test_concurrent_senders_of_the_same_windows_store_each_once(server):
    frames = [frame(i) for i in range(40)]

    def send(seed):
        order = frames[:]
        random.Random(seed).shuffle(order)
        return [request(server, one)[1]["stored"][0][1] for one in order]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert all(sorted(answer) == list(range(40)) for answer in answers)
    assert sorted(stored(server)) == [(7, i) for i in range(40)]


def test_a_failing_store_is_a_503_and_a_full_disk_a_507(server):
    database = server.queue._database
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    big = b"".join(frame(i, samples=2000) for i in range(60))
    status, answer = request(server, big)
    assert status == 507
    assert "disk is full" in answer["reason"]
    database.execute("PRAGMA max_page_count = 1000000")
    assert request(server, big)[0] == 200
    server.queue.close()
    assert request(server, frame())[0] == 503
    assert request(server, path="/readyz", method="GET")[0] == 503
    assert request(server, path="/healthz", method="GET")[0] == 200


def test_health(server):
    assert request(server, path="/healthz", method="GET") == (200, {"status": "ok"})
    assert request(server, path="/readyz", method="GET") == (200, {"status": "ok"})
    assert request(server, path="/ingest", method="GET")[0] == 405


def test_a_token_is_asked_for_when_there_is_one(tmp_path):
    with background(Config(data=tmp_path, port=0, ingest_token="s3cret")) as server:
        for headers in ({}, {"X-Ingest-Token": "wrong"}, {"X-Ingest-Token": ""}):
            status, answer = request(server, frame(), headers=headers)
            assert status == 401
            assert "s3cret" not in json.dumps(answer)
        assert request(server, frame(), headers={"X-Ingest-Token": "s3cret"})[0] == 200
        assert request(server, frame(), headers={"X-Ingest-Token": b"\xff\xfe"})[0] == 401
        assert request(server, path="/healthz", method="GET")[0] == 200


def start(folder):
    child = subprocess.Popen(
        [sys.executable, "-m", "judder", "serve", "--port", "0", "--data", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    word, url = child.stdout.readline().split()
    assert word == "ready"
    return child, url


class Running:
    def __init__(self, url):
        self.url = url


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_server_keeps_what_it_answered_for(tmp_path, how):
    child, url = start(tmp_path)
    answered = []
    enough = threading.Event()

    def send(boot):
        for sequence in range(100_000):
            try:
                status, answer = request(Running(url), frame(sequence, boot=boot))
            except (OSError, http.client.HTTPException):
                return
            assert status == 200
            answered.append(tuple(answer["stored"][0]))
            if len(answered) > 150:
                enough.set()

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, boot) for boot in range(4)]
        assert enough.wait(60)
        os.kill(child.pid, how)
        for sender in senders:
            sender.result()
    assert child.wait(30) == (0 if how != signal.SIGKILL else -signal.SIGKILL)
    child.stdout.close()
    database = sqlite3.connect(tmp_path / FILE)
    held = database.execute("SELECT boot, sequence FROM windows").fetchall()
    database.close()
    assert set(answered) <= set(held)
    assert len(held) == len(set(held))
    assert len(held) <= len(answered) + 4  # stored, answer lost on the way: harmless


def test_a_taken_port_or_folder_is_one_line(tmp_path):
    with background(Config(data=tmp_path, port=0)) as server:
        for port, folder in ((server.url.rsplit(":", 1)[1], tmp_path / "other"), ("0", tmp_path)):
            ended = subprocess.run(
                [sys.executable, "-m", "judder", "serve", "--port", port, "--data", str(folder)],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert ended.returncode == 2
            assert ended.stderr.count("\n") == 1
            assert ended.stderr.startswith("judder: ")
            assert "in use" in ended.stderr


def test_decoded_windows_are_the_frames_that_were_sent(server):
    body = frame(5, samples=600)
    request(server, body)
    (found,) = server.queue.windows()
    (expected,) = decode(body)
    assert (found.counts == expected.counts).all()


# --- configuration ----------------------------------------------------------------------------------------------------


def test_an_open_address_needs_a_token(monkeypatch):
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="JUDDER_INGEST_TOKEN"):
            Config.load(host=host)
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        assert Config.load(host=host).host == host
    monkeypatch.setenv("JUDDER_INGEST_TOKEN", "x")
    assert Config.load(host="0.0.0.0").host == "0.0.0.0"


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judder.toml").write_text('port = 1000\ndefault_label = "file"\nhost = "127.0.0.9"\n')
    monkeypatch.setenv("JUDDER_PORT", "2000")
    monkeypatch.setenv("JUDDER_DEFAULT_LABEL", "environment")
    config = Config.load(port=3000, default_label=None)
    assert (config.port, config.default_label, config.host) == (3000, "environment", "127.0.0.9")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("port", "99999", "port (or JUDDER_PORT): Input should be less than or equal to 65535"),
        ("port", "http", "port (or JUDDER_PORT): Input should be a valid integer"),
        (
            "article_interval_ms",
            "0",
            "article_interval_ms (or JUDDER_ARTICLE_INTERVAL_MS): Input should be greater than 0",
        ),
        ("data", "/dev/null", "/dev/null is not a folder"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(monkeypatch, name, value, reason):
    monkeypatch.setenv(f"JUDDER_{name.upper()}", value)
    with pytest.raises(ConfigError) as caught:
        Config.load()
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_broken_file_or_an_unknown_key_in_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "judder.toml").write_text("prot = 1\n")
    with pytest.raises(ConfigError, match="prot"):
        Config.load()
    (tmp_path / "judder.toml").write_text("port 1\n")
    with pytest.raises(ConfigError, match=r"judder\.toml"):
        Config.load()


def test_the_token_is_never_shown():
    config = Config.load(ingest_token="s3cret")
    assert "s3cret" not in repr(config)
    with pytest.raises(ConfigError) as caught:
        Config.load(ingest_token="s3cret", port="x")
    assert "s3cret" not in str(caught.value)


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_token_can_be_rotated_without_a_pause(tmp_path):
    with background(Config(data=tmp_path, port=0, ingest_token="old", ingest_token_next="new")) as server:
        for token, status in (("old", 200), ("new", 200), ("older", 401), ("", 401)):
            assert request(server, frame(), headers={"X-Ingest-Token": token})[0] == status
        assert request_text(server, "/metrics", {})[0] == 401
        assert request_text(server, "/metrics", {"X-Ingest-Token": "new"})[0] == 200


def request_text(server, path, headers):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_too_many_requests_a_second_are_put_off(tmp_path):
    with background(Config(data=tmp_path, port=0, requests_per_s=5)) as server:
        statuses = [request(server, frame(i))[0] for i in range(12)]
        assert statuses[:5] == [200] * 5
        assert 429 in statuses
        assert len(stored(server)) == statuses.count(200)


def test_a_nearly_full_disk_is_a_507_before_anything_is_read(tmp_path):
    with background(Config(data=tmp_path, port=0, free_disk_bytes=1 << 60)) as server:
        status, answer = request(server, frame())
        assert status == 507
        assert "nearly full" in answer["reason"]
        assert request(server, path="/readyz", method="GET")[0] == 507
        assert request(server, path="/healthz", method="GET")[0] == 200
        assert stored(server) == []


def test_connections_that_say_nothing_or_little_are_closed_and_others_served(tmp_path):
    """Slow loris, and connections that were only opened."""
    with background(Config(data=tmp_path, port=0, idle_timeout_s=0.5)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        idle = []
        for i in range(60):
            connection = socket.create_connection((host, int(port)), timeout=10)
            if i % 2:
                connection.sendall(b"POST /ingest HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            idle.append(connection)
        assert request(server, frame())[0] == 200
        for connection in idle:
            assert connection.recv(1000) == b""
            connection.close()
        assert request(server, frame())[0] == 200


def test_a_thousand_connections_at_once_leave_room_for_the_next_client(tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit[0] < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limit[1]), limit[1]))
    with background(Config(data=tmp_path, port=0, connection_limit=100, idle_timeout_s=30)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        crowd = [socket.create_connection((host, int(port)), timeout=10) for _ in range(1000)]
        for i in range(20):
            assert request(server, frame(i))[0] == 200
        closed = 0
        for connection in crowd[:800]:
            closed += connection.recv(10) == b""
        for connection in crowd:
            connection.close()
        assert closed == 800
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 128 * 1024


def test_200_megabytes_are_refused_from_their_announcement(server):
    head = b"POST /ingest HTTP/1.1\r\nHost: x\r\nContent-Length: 200000000\r\n\r\n"
    assert raw(server, head).startswith(b"HTTP/1.1 413 ")
    assert request(server, frame())[0] == 200


def test_metrics_tell_what_happened(tmp_path):
    with background(Config(data=tmp_path, port=0)) as server:
        request(server, frame(1) + frame(2))
        request(server, frame(1))
        request(server, bytes(13))
        request(server, report(0, captured=5, lost=[[7, 0, 0, "dropped"]]))
        status, text = request_text(server, "/metrics", {})
        assert status == 200
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        assert values['judder_windows_total{outcome="stored"}'] == "2.0"
        assert values['judder_windows_total{outcome="repeated"}'] == "1.0"
        assert values['judder_refused_total{status="400"}'] == "1.0"
        assert values['judder_reports_total{outcome="stored"}'] == "1.0"
        assert values['judder_absent_windows{reason="dropped"}'] == "1.0"
        assert values['judder_absent_windows{reason="on the way"}'] == "2.0"
        assert values['judder_stored_windows{state="waiting"}'] == "2.0"
        assert float(values['judder_device_last_seen_seconds{device="dev:1"}']) > 1e9
        assert float(values["judder_oldest_waiting_seconds"]) >= 0


def test_delivered_samples_are_forgotten_after_their_time(tmp_path):
    with background(Config(data=tmp_path, port=0)) as server:
        request(server, frame(1))
        (found,) = server.queue.claim(1).result(10)
        server.queue.done(found.number).result(10)
    with background(Config(data=tmp_path, port=0, keep_delivered_days=0)) as server:
        while stored(server):
            pass
        assert request(server, frame(1))[1] == {"stored": [[7, 1]], "rejected": []}
        assert stored(server) == []


@pytest.mark.slow
def test_killed_twenty_times_under_load_nothing_answered_for_is_lost_and_nothing_delivered_twice(tmp_path):
    """SIGKILL at random moments while windows arrive and are delivered; repeats carry the same name and bytes."""
    service = EdgeImpulse(api_key="k", hmac_key="0123456789abcdef0123456789abcdef")
    rng = random.Random(7)
    answered = set()
    labelled = [
        encode(window(motor(8, seed=i), boot=1, sequence=i, interval_ns=744048), ["d", "", "", "", "x", ""])
        for i in range(4000)
    ]
    environment = os.environ | {"EDGE_IMPULSE_API_KEY": "k", "EDGE_IMPULSE_HMAC_KEY": service.hmac_key}
    following = iter(range(4000))

    def send(url):
        for sequence in following:
            try:
                status, answer = request(Running(url), labelled[sequence])
            except (OSError, http.client.HTTPException, ValueError):
                return
            assert status == 200
            answered.add(answer["stored"][0][1])

    with on_thread(lambda: edge_impulse.running(service)):
        command = [sys.executable, "-m", "judder", "serve", "--port", "0", "--data", str(tmp_path)]
        command += ["--edge-impulse-url", service.url]
        for _ in range(21):
            child = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
            )
            url = child.stdout.readline().split()[1]
            senders = [threading.Thread(target=send, args=(url,)) for _ in range(3)]
            for sender in senders:
                sender.start()
            enough = len(answered) + rng.randrange(15)  # by number: a busy machine is slower
            while len(answered) < enough:
                threading.Event().wait(0.001)
            threading.Event().wait(rng.uniform(0, 0.02))
            child.kill()
            child.wait()
            child.stdout.close()
            for sender in senders:
                sender.join()
        with background(
            Config(
                data=tmp_path,
                port=0,
                edge_impulse_url=service.url,
                edge_impulse_api_key="k",
                edge_impulse_hmac_key=service.hmac_key,
            )
        ) as server:
            while server.queue.counts()[State.WAITING]:
                threading.Event().wait(0.05)
            held = {found.sequence for found in server.queue.stored()}
            assert server.queue.counts()[State.DELIVERED] == len(held)
    assert len(answered) > 100
    assert answered <= held
    names = [sample.name for sample in service.accepted]
    assert len(names) == len(set(names)) == len(held)
    assert service.doubled == 0


# --- signatures -------------------------------------------------------------------------------------------------------

MASTER, NEXT = "00" * 15 + "01", "00" * 15 + "02"


def signed_frame(sequence=1, master=MASTER, device="dev:1", seed=1):
    """As a board makes it: flag, length, signature under its own key, CRC."""
    plain = encode(window(motor(8, seed=seed), boot=7, sequence=sequence), [device, "", "", "", "", ""])
    flags, length = struct.unpack_from("<HI", plain, 6)
    made = plain[:6] + struct.pack("<HI", flags | SIGNED, length + SIGNATURE_BYTES) + plain[12:-4]
    made += signature(device_key(bytes.fromhex(master), "dev:1"), made + bytes(12))
    return made + struct.pack("<I", crc32(made))


@pytest.fixture
def guarded(tmp_path):
    config = Config(data=tmp_path, port=0, frame_master_key=MASTER, frame_master_key_next=NEXT, require_signature=True)
    with background(config) as running:
        yield running


def test_frames_signed_under_either_master_key_are_stored(guarded):
    body = signed_frame(1) + signed_frame(2, master=NEXT)
    assert request(guarded, body) == (200, {"stored": [[7, 1], [7, 2]], "rejected": []})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (frame(), "has not signed it: set FRAME_KEY"),
        (signed_frame(master="ff" * 16), "signature is not that of 'dev:1'"),
        (signed_frame(device="dev:2"), "signature is not that of 'dev:2'"),
    ],
)
def test_a_frame_that_is_not_believed_is_neither_stored_nor_rejected(guarded, body, reason):
    """To be named in `rejected` would make the board give it up."""
    status, answer = request(guarded, body)
    assert status == 403
    assert answer.keys() == {"reason"}
    assert reason in answer["reason"]
    assert answer["reason"].startswith("frame 00000007:1: ")
    status, answer = request(guarded, body + signed_frame(2))
    assert (status, answer) == (200, {"stored": [[7, 2]], "rejected": []})
    assert stored(guarded) == [(7, 2)]
    assert [kept for why, kept in guarded.queue.quarantined() if reason in why] == [body, body + signed_frame(2)]


def test_the_article_s_stream_cannot_be_signed(guarded):
    status, answer = request(guarded, struct.pack("<3f", 0.1, 0.2, 9.8), "/")
    assert status == 403
    assert "require_signature" in answer["reason"]


def test_a_key_alone_lets_unsigned_frames_in_but_no_wrong_signature(tmp_path):
    with background(Config(data=tmp_path, port=0, frame_master_key=MASTER)) as server:
        assert request(server, frame(1))[0] == 200
        assert request(server, signed_frame(2))[0] == 200
        assert request(server, signed_frame(3, master=NEXT))[0] == 403
        assert stored(server) == [(7, 1), (7, 2)]
        assert "judder_unsigned_total 1.0" in request_text(server, "/metrics", {})[1]


def test_without_a_key_signed_frames_are_stored_unverified(server):
    assert request(server, signed_frame(1, master=NEXT))[1] == {"stored": [[7, 1]], "rejected": []}


def test_the_same_frame_under_another_signature_or_none_is_a_repeat(server):
    for body in (frame(1), signed_frame(1), signed_frame(1, master=NEXT)):
        assert request(server, body)[1] == {"stored": [[7, 1]], "rejected": []}
    assert stored(server) == [(7, 1)]
    assert request(server, signed_frame(1, seed=2))[1]["rejected"][0][:2] == [7, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frame_master_key": "secret"}, "32 hex digits"),
        ({"frame_master_key_next": "0" * 31}, "32 hex digits"),
        ({"require_signature": True}, "needs frame_master_key"),
    ],
)
def test_keys_that_are_none_are_refused_and_not_shown(options, words):
    with pytest.raises(ConfigError) as caught:
        Config.load(**options)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert MASTER not in repr(Config(frame_master_key=MASTER))
