"""The board that these tests run on: the emulated one, or with `--board usb` (make hil) the real one on USB.

For the real one the environment says JUDDER_HIL_PORT if there are several boards, and JUDDER_HIL_DATA, the folder of
the `judder serve` that its Notehub route leads to. Put CAPTURE_EVERY_S = 10 into its settings.toml.
"""

import os
from pathlib import Path

import pytest
from tests.desk import full_desk

from judder import usb
from judder.config import Config
from judder.emulator.notehub import Notehub
from judder.server import background


class Board:
    """`port` of a board, and the folder where its windows arrive."""

    def __init__(self, port, data):
        self.port = port
        self.data = data


@pytest.fixture
def board(request, tmp_path):
    if request.config.getoption("--board") == "usb":
        yield real_board()
        return
    drive = tmp_path / "drive"
    drive.mkdir()
    (drive / "settings.toml").write_text("CAPTURE_EVERY_S = 10\n")
    data = tmp_path / "data"
    with background(Config(data=data, port=0)) as server:
        hub = Notehub({"ingest": server.url})
        with full_desk(tmp_path, drive=drive, send=hub.send) as desk:
            yield Board(str(desk.wait_for_port()), data)
        assert desk.error is None


def real_board():
    try:
        port = os.environ.get("JUDDER_HIL_PORT") or usb.find(usb.look())
    except usb.BoardError as error:
        pytest.skip(str(error))
    data = os.environ.get("JUDDER_HIL_DATA")
    return Board(port, Path(data) if data else None)
