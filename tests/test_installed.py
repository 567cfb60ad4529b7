"""A board as judder deploy leaves it: nothing that the firmware imports is missing, and updates by file build upon it.

The selftest runs on the same files in tests/host/test_doctor.py.
"""

import pytest
from tests.test_update import FAST, in_order, of_code, offer, until

from judder.board import SLOTS, Tree
from judder.deploy import base, carry_out, deploy, plan
from judder.drive import FolderDrive


@pytest.fixture
def drive(tmp_path):
    """A drive with the firmware, by deploy."""
    folder = tmp_path / "CIRCUITPY"
    folder.mkdir()
    (folder / "boot_out.txt").write_text("Adafruit CircuitPython 10.3.1 on 2026-01-01; Swan\nBoard ID:swan_r5\n")
    deploy(FolderDrive(folder), on_plan=lambda intended: lambda written: None)
    return folder


def test_code_by_file_builds_upon_what_is_deployed_and_another_deploy_ends_it(loop, drive, tmp_path):
    assert {name: (drive / name).stat().st_size for name in SLOTS} == SLOTS
    running = loop(settings=FAST, firmware=Tree(drive, drive / "boot.py"), drive=drive)
    with running.bench as bench:
        bench.run(2)
        offer(bench, of_code(tmp_path))
        until(running, "update: 0.2.0 is in use")
        bench.run(len(bench.captured) + 2)
        assert in_order(running)[-1].firmware == "judder 0.2.0"
        bench.swan.power_off()
        carry_out(FolderDrive(drive), plan(FolderDrive(drive), base("0.3.0")))
        bench.swan.power_on()
        bench.run(len(bench.captured) + 2)
    running.check_nothing_lost_or_doubled()
    assert in_order(running)[-1].firmware == "judder 0.3.0"


def test_stock_transfer_finds_all_it_needs(loop, drive):
    settings = {"TRANSFER": "stock", "CAPTURE_EVERY_S": 60}
    running = loop(settings=settings, firmware=Tree(drive, drive / "boot.py"), drive=drive)
    with running.bench as bench:
        bench.run(3)
    running.check_nothing_lost_or_doubled()
    assert running.said("stored")
