"""What a board has to do, real or emulated: take the firmware, find nothing wrong, deliver windows to be trusted."""

import json
import re

import pytest
from tests.host.test_cli import judder

from judder.console import Console, follow
from judder.queue import Queue

WINDOWS = 5
PATIENCE_S = 120
CAPTURED = re.compile(r"window ([0-9a-f]{8}):(\d+) captured: (\d+) samples at ([\d.]+) Hz, (\d+) lost")
STORED = re.compile(r"window ([0-9a-f]{8}):(\d+) stored")


@pytest.fixture
def deployed(board):
    judder("deploy", "--port", board.port, "--watch-s", "0")
    return board


def test_what_is_there_already_is_not_written_again(deployed):
    wait_for(deployed, "captured")
    again = json.loads(judder("deploy", "--port", deployed.port, "--watch-s", "0", "--json").stdout)
    assert again["written"] == []


def test_doctor_finds_nothing_wrong(deployed):
    wait_for(deployed, "captured")
    told = json.loads(judder("doctor", "--port", deployed.port, "--json").stdout)
    assert [finding["text"] for finding in told["findings"] if finding["ok"] is False] == []
    figures = {finding["check"]: finding["text"] for finding in told["findings"]}
    assert float(figures["odr measured"].split()[0]) == pytest.approx(float(figures["odr nominal"].split()[0]), rel=0.1)
    assert figures["samples lost"].startswith("0 of")
    assert int(figures["clock step"].split()[0]) <= 1000


def test_every_captured_window_is_stored_once_and_as_it_was_captured(deployed):
    captured, stored = windows(deployed.port, WINDOWS)
    assert len(stored) == len(set(stored))
    if deployed.data is None:
        pytest.skip("JUDDER_HIL_DATA is not set: what the server keeps was not looked at")
    kept = kept_windows(deployed.data)
    for key in stored:
        samples, rate_hz, lost = captured[key]
        (window,) = kept[key]
        assert len(window) == samples
        assert window.samples_lost == lost
        assert 1 / window.interval_s == pytest.approx(rate_hz, abs=0.01)


def test_interrupting_and_resetting_at_random_moments_leaves_a_board_that_works(deployed):
    for _ in range(3):
        wait_for(deployed, "captured")
        with Console(deployed.port) as console:
            console.needs_reset = True
    _, stored = windows(deployed.port, 1)
    assert len(stored) >= 1


def wait_for(board, text):
    for line in follow(board.port, PATIENCE_S):
        if text in line:
            return
    raise AssertionError(f"the board never printed {text!r}")


def windows(port, number):
    """Follow the console until `number` windows are stored: captured (by key) and stored (keys) as the board says."""
    captured, stored = {}, []
    for line in follow(port, PATIENCE_S):
        if match := CAPTURED.search(line):
            captured[match[1], match[2]] = int(match[3]), float(match[4]), int(match[5])
        elif (match := STORED.search(line)) and (match[1], match[2]) in captured:
            stored.append((match[1], match[2]))
        if len(stored) >= number:
            return captured, stored
    raise AssertionError(f"in {PATIENCE_S} s only {len(stored)} of {number} windows were stored")


def kept_windows(data):
    found = {}
    with Queue(data, beside=True) as queue:
        for window in queue.windows():
            found.setdefault((f"{window.boot:08x}", str(window.sequence)), []).append(window)
    return found
