"""The ring's file on MicroPython's real FAT over the flash model: the power goes at any step of spill and release."""

import itertools
import shutil
from binascii import crc32

import pytest

from judder.board import Tree, tree
from judder.emulator.clock import VirtualClock
from judder.emulator.flash import Flash, Torn
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import Swan, Timing

FIRST_FILES_PAGE = 5  # before it: boot sector and table (page 0), root directory
PREPARE = """
import os, vfs
from flashbdev import bdev
vfs.VfsFat.mkfs(bdev)
vfs.mount(vfs.VfsFat(bdev), "/drive")
for name, length in (("main.py", 700), ("ring.bin", 40960), ("safemode.py", 700)):
    with open("/drive/" + name, "wb") as file:
        for _ in range(length // 100):
            file.write(b"\\xff" * 100)
        file.write(b"\\xff" * (length % 100))
vfs.umount("/drive")
os.sync()
"""
BOOT = """
import os, vfs
from binascii import crc32
from flashbdev import bdev
from node.ring import Ring
vfs.mount(vfs.VfsFat(bdev), "/drive")
for name in ("main.py", "safemode.py"):
    with open("/drive/" + name, "rb") as file:
        print("intact" if file.read() == b"\\xff" * 700 else "torn", name)
ring = Ring(16384, open("/drive/ring.bin", "r+b"), os.sync)
ring.recover()
for key, frame in ring.oldest(1000000):
    print("found", key[1], len(frame), crc32(frame))
"""
LIVE = """
def frame(sequence):
    return bytes([(sequence * 31 + i * 7) & 255 for i in range(700 + 900 * (sequence % 4))])
for first in range(0, 16, 4):
    for sequence in range(first, first + 4):
        ring.put((7, sequence), frame(sequence))
    if ring.spill() == 4:
        for sequence in range(first, first + 4):
            print("kept", sequence)
    for sequence in (first - 1, first, first + 1, first + 2):
        print("released", sequence)
        ring.release((7, sequence))
"""


def frame(sequence):
    return bytes((sequence * 31 + i * 7) & 255 for i in range(700 + 900 * (sequence % 4)))


@pytest.fixture
def run(tmp_path):
    """Runs a program beside the firmware's modules until it ends or the power goes; gives its lines as words."""
    try:
        runtime = RUNTIMES["micropython"]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    shutil.copytree(tree().device / "node", tmp_path / "node")

    def run_program(flash, *parts):
        (tmp_path / "main.py").write_text("".join(parts) + "print('end')\n")
        clock = VirtualClock()
        firmware = Tree(tmp_path, tree().boot)
        timing = Timing(stall_probability=0)
        with Swan(clock, I2CBus(clock), timing=timing, firmware=firmware, runtime=runtime, flash=flash) as swan:
            swan.run(lambda: "end" in swan.lines or not swan.has_power)
            return [line.split() for line in swan.lines]

    return run_program


def copy(flash):
    other = Flash(seed=flash.steps)
    other.pages = [bytearray(page) for page in flash.pages]
    other.steps = flash.steps
    return other


def numbers(lines, word):
    return [int(line[1]) for line in lines if line[0] == word]


@pytest.mark.slow
def test_a_cut_at_any_step_loses_nothing_confirmed_and_the_drive_stays_whole(run):
    prepared = Flash()
    run(prepared, PREPARE)
    whole = copy(prepared)
    lines = run(whole, BOOT, LIVE)
    assert numbers(lines, "kept") == list(range(16))
    assert sum(whole.erases[:FIRST_FILES_PAGE]) == 0  # neither table nor directory
    steps = whole.steps - prepared.steps
    assert steps > 40
    for step, torn in itertools.product(range(1, steps + 1), (Torn.erased, Torn.garbage)):
        flash = copy(prepared)
        flash.cut_at, flash.torn = flash.steps + step, torn
        before = run(flash, BOOT, LIVE)
        assert ["end"] not in before
        flash.cut_at = None
        after = run(flash, BOOT)
        assert [line for line in after if line[0] == "intact"] == [["intact", "main.py"], ["intact", "safemode.py"]]
        found = numbers(after, "found")
        assert found == sorted(set(found))
        assert set(numbers(before, "kept")) - set(numbers(before, "released")) <= set(found)
        assert len(set(numbers(before, "released")) & set(found)) <= 3
        for _, sequence, length, crc in (line for line in after if line[0] == "found"):
            expected = frame(int(sequence))
            assert (int(length), int(crc)) == (len(expected), crc32(expected))
