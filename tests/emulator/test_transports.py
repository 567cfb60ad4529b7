"""The emulated Notecard outside of the bench: foreign programs on a pty and on the I2C socket, in real time."""

import json
import os
import re
import select
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from judder.emulator.clock import WallClock
from judder.emulator.i2c import I2CBus
from judder.emulator.notecard import ADDRESS, Notecard, NotecardI2C
from judder.emulator.notecard.link import WebResponse
from judder.emulator.notecard.vocabulary import VOCABULARY
from judder.emulator.transports import I2CSocket, Pty


class Server:
    def __init__(self):
        self.requests = []

    def send(self, request):
        self.requests.append(request)
        return WebResponse(200, b'{"stored": []}')


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def card(server):
    return Notecard(WallClock(), server.send, connect_delay_ns=0, latency_ns=0, request_ns=1_000_000)


def talk(fd, data, replies=1):
    """Write, then read until so many lines have come."""
    os.write(fd, data)
    found = b""
    while found.count(b"\r\n") < replies:
        assert select.select([fd], [], [], 10)[0], found
        found += os.read(fd, 65536)
    return found


# --- pty --------------------------------------------------------------------------------------------------------------


def test_a_pty_answers_and_survives_its_clients(card, tmp_path):
    link = tmp_path / "notecard"
    with Pty(card, link) as running:
        assert running.path == link
        for _ in range(3):
            fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
            assert talk(fd, b"\n") == b"\r\n"
            assert json.loads(talk(fd, b'{"req":"card.version"}\n'))["version"] == card.version
            os.close(fd)
    assert not link.is_symlink()


def test_on_serial_messages_follow_each_other_at_once(card):
    with Pty(card) as running:
        fd = os.open(running.path, os.O_RDWR | os.O_NOCTTY)
        lines = talk(fd, b'{"req":"echo","id":1}\n{"cmd":"echo"}\r\n{"req":"echo","id":2}\r\n', 2).splitlines()
        assert [json.loads(line)["id"] for line in lines] == [1, 2]
        os.close(fd)


def test_garbage_on_serial_is_followed_by_a_working_request(card):
    with Pty(card) as running:
        fd = os.open(running.path, os.O_RDWR | os.O_NOCTTY)
        os.write(fd, bytes(range(11, 256)) * 20)
        assert talk(fd, b"\n", 1)
        assert b'"version"' in talk(fd, b'{"req":"card.version"}\n')
        os.close(fd)


NOTE_PYTHON = """
    import sys, serial, notecard
    from notecard import binary_helpers, hub
    port = serial.Serial(sys.argv[1], 9600, timeout=10)
    card = notecard.OpenSerial(port)
    assert "version" in card.Transaction({"req": "card.version"})
    assert hub.set(card, product="com.example:x", mode="continuous") is not None
    for length in (1, 253, 254, 255, 4096, 20000):
        data = bytearray((bytes(range(256)) * 80)[:length])
        binary_helpers.binary_store_reset(card)
        binary_helpers.binary_store_transmit(card, data, 0)
        assert binary_helpers.binary_store_decoded_length(card) == length
        assert binary_helpers.binary_store_receive(card, 0, length) == data
        print(card.Transaction({"req": "web.post", "route": "ingest", "name": "/x", "binary": True})["result"])
"""


def printed_by(code, running):
    """What a program of its own prints that uses the card on the pty."""
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(running.path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


UPLOAD = """
    import sys, serial, notecard
    from notecard import upload
    card = notecard.OpenSerial(serial.Serial(sys.argv[1], 9600, timeout=10))
    data = bytearray(bytes(range(256)) * 300)
    print(upload.upload(card, data, "ingest", target="/big", max_chunk_size=30000))
"""


@pytest.mark.slow
def test_note_python_s_upload_arrives_as_one_request(server):
    card = Notecard(
        WallClock(), server.send, hub={"mode": "continuous"}, connect_delay_ns=0, latency_ns=0, request_ns=1_000_000
    )
    with Pty(card) as running:
        printed_by(UPLOAD, running)
    (request,) = server.requests
    assert (request.name, request.body) == ("/big", bytes(range(256)) * 300)


@pytest.mark.slow
def test_note_python_from_pypi_moves_binary_data_over_serial_unharmed(card, server):
    with Pty(card) as running:
        printed = printed_by(NOTE_PYTHON, running)
    assert printed.split() == ["200"] * 6
    bodies = [request.body for request in server.requests]
    assert bodies == [(bytes(range(256)) * 80)[:length] for length in (1, 253, 254, 255, 4096, 20000)]


# --- I2C socket -------------------------------------------------------------------------------------------------------


class Client:
    """A client of the socket, written from the stream's description."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(str(path))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()

    def call(self, op, address=0, written=b"", read_length=0):
        self.socket.sendall(struct.pack("<BBHH", ord(op), address, len(written), read_length) + written)
        status, length = struct.unpack("<BH", self.exactly(3))
        return status, self.exactly(length)

    def exactly(self, length):
        data = b""
        while len(data) < length:
            data += self.socket.recv(length - len(data))
        return data

    def ask(self, request):
        line = json.dumps(request).encode() + b"\n"
        for start in range(0, len(line), 250):
            part = line[start : start + 250]
            assert self.call("T", ADDRESS, bytes([len(part)]) + part) == (0, b"")
        reply, available = b"", 0
        while not reply.endswith(b"\r\n"):
            status, data = self.call("T", ADDRESS, bytes([0, available]), available + 2)
            assert status == 0
            available, reply = data[0], reply + data[2 : 2 + data[1]]
        return json.loads(reply)


@pytest.fixture
def i2c(card, tmp_path):
    bus = I2CBus(card.clock)
    bus.attach(ADDRESS, NotecardI2C(card))
    with I2CSocket(bus, tmp_path / "i2c") as running:
        yield running


def test_the_socket_speaks_the_stream(i2c, card):
    with Client(i2c.path) as client:
        assert client.call("T", ADDRESS) == (0, b"")  # a probe
        assert client.call("T", 0x18) == (1, b"")
        assert client.call("X") == (0, b"")
        assert client.call("?") == (255, b"")
        assert client.ask({"req": "card.version"})["version"] == card.version


def test_clients_that_come_and_go_or_share_the_bus_do_not_disturb_each_other(i2c):
    for _ in range(5):
        with Client(i2c.path) as half:
            half.socket.sendall(b"T")
    seen = []

    def probe():
        with Client(i2c.path) as other:
            seen.extend(other.call("T", 0x18) for _ in range(300))

    thread = threading.Thread(target=probe)
    thread.start()
    with Client(i2c.path) as one:
        for number in range(30):
            assert one.ask({"req": "echo", "id": number, "text": "x" * 300})["id"] == number
    thread.join()
    assert seen == [(1, b"")] * 300


def test_a_path_left_behind_is_taken_over_and_another_file_is_not(card, tmp_path):
    bus = I2CBus(card.clock)
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stale.bind(str(tmp_path / "i2c"))
    stale.close()
    with I2CSocket(bus, tmp_path / "i2c"):
        pass
    assert not (tmp_path / "i2c").exists()
    (tmp_path / "file").write_text("keep")
    with pytest.raises(OSError, match="in use"):
        I2CSocket(bus, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "keep"


def refusal(*arguments):
    """The one line that a wrong call is answered with."""
    ended = subprocess.run(
        [sys.executable, "-m", "judder", "emulate", "notecard", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    return ended.stderr


@contextmanager
def command(*arguments):
    """`judder emulate notecard` in a process of its own, with the path it says."""
    child = subprocess.Popen(
        [sys.executable, "-m", "judder", "emulate", "notecard", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child.stdout.readline().removeprefix("ready ").strip()
    finally:
        child.terminate()
        _, child.errors = child.communicate(timeout=10)
    assert child.returncode == 0, child.errors


def test_the_command_s_card_is_of_the_kind_asked_for(tmp_path):
    script = tmp_path / "script"
    script.write_text('{"at_s": 0, "environment": {"odr_hz": "400"}}')
    arguments = ["--version", "notecard-5.3.1", "--device", "dev:1", "--binary-max", 1000, "--connect-delay-s", 0]
    trace = tmp_path / "trace"
    arguments += ["--i2c-socket", tmp_path / "i2c", "--script", script, "--trace", trace]
    with command(*arguments) as path, Client(path) as client:
        version = client.ask({"req": "card.version"})
        assert (version["version"], version["device"]) == ("notecard-5.3.1", "dev:1")
        assert client.ask({"req": "card.binary"})["max"] == 1000
        client.ask({"req": "hub.set", "mode": "continuous"})
        assert client.ask({"req": "env.get"})["body"] == {"odr_hz": "400"}
    records = [json.loads(line) for line in trace.read_text().splitlines()]
    assert {"request", "reply", "bus", "sync"} <= {record["what"] for record in records}


def test_the_command_s_faults_strike(tmp_path):
    with (
        command("--i2c-socket", tmp_path / "i2c", "--fault", "nack:3", "--fault", "not-json:2") as path,
        Client(path) as client,
    ):
        assert [client.call("T", ADDRESS)[0] for _ in range(6)] == [0, 0, 1, 0, 0, 1]
    with command("--pty", "--link", tmp_path / "card", "--fault", "not-json:2") as path:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        lines = talk(fd, b'{"req":"echo"}\n' * 4, 4).splitlines()
        assert lines == [b"{}", b"~?!", b"{}", b"~?!"]
        os.close(fd)


@pytest.mark.parametrize("kind", ["--pty", "--i2c-socket"])
def test_the_command_says_ready_and_leaves_nothing_behind(tmp_path, kind):
    path = tmp_path / "card"
    arguments = ["--pty", "--link", str(path)] if kind == "--pty" else ["--i2c-socket", str(path)]
    child = subprocess.Popen(
        [sys.executable, "-m", "judder", "emulate", "notecard", *arguments, "--route", "ingest=http://127.0.0.1:9"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == f"ready {path}\n"
    if kind == "--pty":
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        assert b"version" in talk(fd, b'{"req":"card.version"}\n')
        os.close(fd)
    else:
        with Client(path) as client:
            assert "version" in client.ask({"req": "card.version"})
    child.terminate()
    assert child.wait(10) == 0
    child.stdout.close()
    assert not os.path.lexists(path)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "give one of --pty and --i2c-socket"),
        (("--i2c-socket", "/nowhere/card"), "No such file"),
        (("--pty", "--route", "ingest"), "give ALIAS=URL"),
        (("--pty", "--route", "ingest=http://example.org"), "is not this machine"),
        (("--pty", "--fault", "gremlins"), "gremlins is no fault of a Notecard: badbin"),
        (("--pty", "--fault", "badbin:0"), "behind the colon goes a number"),
        (("--i2c-socket", "card", "--fault", "nack:x"), "behind the colon goes a number"),
        (("--pty", "--fault", "nack"), "only an I2C bus has it; use --i2c-socket"),
        (("--pty", "--script", "/nowhere/script"), "/nowhere/script: No such file"),
        (("--pty", "--trace", "/nowhere/trace"), "/nowhere/trace: No such file"),
    ],
)
def test_a_wrong_call_is_one_line(arguments, reason):
    assert reason in refusal(*arguments)


def test_the_manual_names_every_option_and_request():
    manual = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    ended = subprocess.run(
        [sys.executable, "-m", "judder", "emulate", "notecard", "--help"],
        env=os.environ | {"COLUMNS": "300", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    options = set(re.findall(r"--[a-z0-9-]+", ended.stdout)) - {"--help"}
    assert {option for option in options if option not in manual} == set()
    (known,) = re.findall(r"\*\*What it knows\.\*\*(.*?);", manual, re.DOTALL)
    words = set(re.findall(r"[a-z.]+", known.replace("\n", "")))
    for request in VOCABULARY:
        prefix, _, name = request.partition(".")
        assert request in words or {name, f".{name.rpartition('.')[2]}"} & words, request
        assert any(word.startswith(prefix) for word in words)


# --- what a second reader broke ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["--pty", "--i2c-socket"])
def test_an_asynchronous_request_is_sent_in_real_time_too(http_server, tmp_path, kind):
    arguments = ["--pty", "--link", tmp_path / "c"] if kind == "--pty" else ["--i2c-socket", tmp_path / "c"]
    arguments += ["--connect-delay-s", 0, "--route", f"r={http_server.url}"]
    requests = [{"req": "hub.set", "mode": "continuous"}, {"req": "web.post", "route": "r", "async": True}]
    with command(*arguments) as path:
        if kind == "--pty":
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            talk(fd, b"".join(json.dumps(request).encode() + b"\n" for request in requests), 2)
        else:
            with Client(path) as client:
                assert [client.ask(request) for request in requests] == [{}, {}]
        give_up = time.monotonic() + 10
        while not http_server.requests:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        if kind == "--pty":
            os.close(fd)


def test_a_web_request_that_takes_long_stops_nobody_else_on_the_bus(tmp_path):
    server = socket.create_server(("127.0.0.1", 0))  # accepts, never answers
    routes = ["--route", f"r=http://127.0.0.1:{server.getsockname()[1]}", "--connect-delay-s", 0]
    with command("--i2c-socket", tmp_path / "i2c", *routes) as path, Client(path) as one, Client(path) as other:
        one.ask({"req": "hub.set", "mode": "continuous"})
        line = b'{"req":"web.post","route":"r","seconds":3}\n'
        one.socket.sendall(struct.pack("<BBHH", ord("T"), ADDRESS, len(line) + 1, 0) + bytes([len(line)]) + line)
        accepted, _ = server.accept()
        started = time.monotonic()
        assert other.call("T", 0x18) == (1, b"")
        assert other.call("T", ADDRESS, b"\0\0", 2) == (0, b"\0\0")  # the Notecard is busy: nothing to read
        assert time.monotonic() - started < 2
        assert one.exactly(3) == b"\0\0\0"
    accepted.close()
    server.close()


def test_a_client_that_does_not_read_stops_nobody_else(i2c):
    with Client(i2c.path) as deaf, Client(i2c.path) as other:
        deaf.socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                deaf.socket.send(struct.pack("<BBHH", ord("T"), 0x18, 0, 0) * 100)
        assert other.call("T", 0x18) == (1, b"")


def test_a_serial_client_that_does_not_read_is_heard_no_more_until_it_does(card):
    with Pty(card) as running:
        fd = os.open(running.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        line = b'{"req":"echo","text":"%s"}\n' % (b"x" * 900)
        give_up = time.monotonic() + 0.5
        sent = 0
        while time.monotonic() < give_up:
            with suppress(BlockingIOError):
                sent += os.write(fd, line[sent % len(line) :])
        assert len(running._outgoing) < 200_000
        assert len(card._messages) <= 1000
        os.close(fd)


def test_two_emulators_do_not_take_each_other_s_path(tmp_path):
    with command("--i2c-socket", tmp_path / "i2c") as path:
        assert "in use" in refusal("--i2c-socket", path)
        with Client(path) as client:
            assert "version" in client.ask({"req": "card.version"})
    with command("--pty", "--link", tmp_path / "card"):
        with command("--pty", "--link", tmp_path / "card") as second:
            pass
        assert second == str(tmp_path / "card")
    assert not os.path.lexists(tmp_path / "card")


def test_a_link_that_is_something_else_is_named(tmp_path):
    (tmp_path / "file").write_text("keep")
    for path, reason in ((tmp_path / "file", "File exists"), (tmp_path / ("x" * 120), "too long")):
        option = "--link" if path.name == "file" else "--i2c-socket"
        kind = ["--pty"] if option == "--link" else []
        errors = refusal(*kind, option, path)
        assert str(path) in errors
        assert reason in errors
    assert (tmp_path / "file").read_text() == "keep"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_card_that_cannot_go_on_ends_the_command_and_says_why(tmp_path):
    arguments = ["--pty", "--link", tmp_path / "c", "--trace", "/dev/full"]
    child = subprocess.Popen(
        [sys.executable, "-m", "judder", "emulate", "notecard", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child.stdout.readline()
    fd = os.open(tmp_path / "c", os.O_RDWR | os.O_NOCTTY)
    os.write(fd, b'{"req":"card.version"}\n')
    _, errors = child.communicate(timeout=20)
    os.close(fd)
    assert child.returncode == 1
    assert "the emulated Notecard ended" in errors
    assert "No space left" in errors


def test_the_same_program_run_again_is_no_repetition(http_server, tmp_path):
    line = b'{"req":"web.post","route":"r"}'
    sealed = line[:-1] + b',"crc":"0000:%08X"}\n' % zlib.crc32(line)
    with command("--pty", "--link", tmp_path / "c", "--connect-delay-s", 0, "--route", f"r={http_server.url}") as path:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        talk(fd, b'{"req":"hub.set","mode":"continuous"}\n')
        for _ in range(3):
            talk(fd, sealed)
        os.close(fd)
    assert len(http_server.requests) == 3


def test_the_manual_s_example_runs(http_server, tmp_path):
    manual = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text()
    example = re.search(r"```python\n(card = notecard\.OpenSerial.*?)```", manual, re.DOTALL)[1]
    http_server.reply = (200, b"{}")
    with command("--pty", "--link", tmp_path / "card", "--route", f"ingest={http_server.url}"):
        ended = subprocess.run(
            [sys.executable, "-c", "import time, notecard, serial\n" + example],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert [(path, body) for path, _, body in http_server.requests] == [("/hello", b'{"n":1}')]
