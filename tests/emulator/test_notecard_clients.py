"""Unmodified note-python, three releases of it, over serial and I2C, with and without checksums, in real time.

Each runs `clients/note_python.py` in a process of its own; what counts is what arrives at the HTTP server.
"""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.emulator.clients.pattern import SIZES, pattern

from judder import emulate

CURRENT = importlib.metadata.version("note-python")
OLDER = Path(sys.prefix) / "note-python"  # where `make setup` puts them
PROGRAM = Path(__file__).parent / "clients" / "note_python.py"


def search_path(version):
    if version == CURRENT:
        return os.environ.get("PYTHONPATH", "")
    folder = OLDER / version
    assert folder.is_dir(), f"note-python {version} is not in {folder}: run `make setup`"
    (found,) = folder.glob("note_python-*.dist-info")
    assert found.name == f"note_python-{version}.dist-info"
    return str(folder)


@pytest.fixture
def script(tmp_path):
    """What Notehub has for the card from the start."""
    (tmp_path / "firmware.bin").write_bytes(pattern(20_001))
    steps = [
        {"at_s": 0, "environment": {"odr_hz": "400"}},
        {"at_s": 0, "note": {"file": "capture.qi", "body": {"id": 1}}},
        {"at_s": 0, "firmware": str(tmp_path / "firmware.bin"), "version": "2.0.0"},
    ]
    path = tmp_path / "script.jsonl"
    path.write_text("\n".join(map(json.dumps, steps)))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("crc", [True, False], ids=["crc", "no-crc"])
@pytest.mark.parametrize("transport", ["pty", "i2c"])
@pytest.mark.parametrize("version", ["2.5.1", "2.4.1", "2.3.3"])
def test_note_python_does_everything_unharmed(http_server, tmp_path, script, version, transport, crc):
    http_server.reply = (200, b'{"a": 1}')
    card = emulate.Card(connect_delay_s=0, crc=crc, script=script, trace=tmp_path / "trace.jsonl")
    routes = emulate.notehub([f"ingest={http_server.url}"], chunked=crc)
    place = {"link": tmp_path / "card"} if transport == "pty" else {"i2c_socket": tmp_path / "card"}
    with emulate.notecard(card, routes, **place) as running:
        ended = subprocess.run(
            [sys.executable, str(PROGRAM), transport, str(running.path)],
            env=os.environ | {"PYTHONPATH": search_path(version), "NOTECARD_SERIAL_LOCK_PATH": str(tmp_path / "lock")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"crc": crc, "update": 20_001}
    bodies = {path: body for path, _, body in http_server.requests}
    assert bodies == {
        **{f"/binary/{size}": pattern(size) for size in SIZES},
        "/chunked/100000": pattern(100_000),
        "/upload/150000": pattern(150_000),
        "/get": b"",
        "/body": b'{"b":[1,2]}',
        "/payload": pattern(500),
    }
    assert len(http_server.requests) == len(bodies)
    events = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert [event["body"] for event in events if event["what"] == "event"] == [{"rms": 0.5, "n": 7}]
