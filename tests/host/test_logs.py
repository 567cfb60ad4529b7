"""What the server writes to stderr: JSON lines, without secrets and samples, and calm about nonsense."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from tests.frames import encode, motor, window


def test_every_line_is_json_and_tells_no_secret_nor_sample(tmp_path):
    environment = os.environ | {"JUDDER_INGEST_TOKEN": "hush-hush", "EDGE_IMPULSE_API_KEY": "ei_quiet"}
    child = subprocess.Popen(
        [
            *f"{sys.executable} -m judder serve --port 0 --edge-impulse-url http://127.0.0.1:9 --data".split(),
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    url = child.stdout.readline().split()[1]
    filled = window(motor(8), interval_ns=744048)
    body = encode(filled, ["d", "", "", "", "x", ""])
    for token, data in (("wrong", body), ("hush-hush", b"junk"), ("hush-hush", body)):
        request = urllib.request.Request(f"{url}/ingest", data, {"X-Ingest-Token": token})
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            error.close()
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Big: " + b"a" * 20000 + b"\r\n\r\n")
        assert b"400" in connection.recv(1000)
    head = b"POST /ingest HTTP/1.1\r\nHost: x\r\nX-Ingest-Token: hush-hush\r\n"
    head += b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    for _ in range(9):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head + b"\x1fPOST \x8b")
            connection.shutdown(socket.SHUT_WR)  # before the answer
            connection.recv(1000)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=30)
    lines = [json.loads(line) for line in errors.splitlines()]
    messages = [line["message"] for line in lines]
    assert any("401" in message for message in messages)
    assert any("magic" in message for message in messages)
    assert any("bad HTTP request" in message for message in messages)
    assert any("Can not decode content-encoding: gzip" in message for message in messages)
    assert not any("exception" in line for line in lines)
    assert "hush-hush" not in errors
    assert "ei_quiet" not in errors
    assert not any(str(count) in message for message in messages for count in filled.counts if abs(count) > 200)


@pytest.mark.parametrize("text", ["one\ntwo", '"quoted"', "Läuft"])
def test_a_message_stays_one_line(text):
    import logging

    from judder.logs import JsonLines

    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (text,), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"] == text
