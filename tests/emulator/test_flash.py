"""The flash model against a plain array of blocks, and under MicroPython's real FAT."""

import itertools
import random
import textwrap
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from judder.board import Tree, tree
from judder.emulator.clock import VirtualClock
from judder.emulator.flash import (
    BLOCK_BYTES,
    BLOCKS,
    BLOCKS_PER_PAGE,
    ERASE_NS,
    FLUSH_AFTER_NS,
    PAGE_BYTES,
    PROGRAM_NS,
    Flash,
    PowerLostError,
    Torn,
)
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import Swan, Timing

PAGE_NS = ERASE_NS + PROGRAM_NS
A, B = b"a" * BLOCK_BYTES, b"b" * BLOCK_BYTES


def raw(flash):
    return b"".join(flash.pages)


# --- the model --------------------------------------------------------------------------------------------------------


def test_a_new_flash_is_erased():
    flash = Flash()
    assert flash.read(0, BLOCKS) == b"\xff" * 1024 * 1024
    assert flash.steps == 0


def test_a_page_is_written_when_another_is():
    flash = Flash()
    flash.write(0, A)
    flash.write(7, B)
    assert flash.steps == 0
    assert flash.read(0, 8) == A + b"\xff" * 6 * BLOCK_BYTES + B
    flash.write(8, A)
    assert flash.steps == 2
    assert flash.erases[:2] == [1, 0]
    assert raw(flash)[:PAGE_BYTES] == A + b"\xff" * 6 * BLOCK_BYTES + B
    flash.flush()
    assert flash.erases[:2] == [1, 1]


def test_a_read_outside_the_cached_page_writes_it_back_too():
    flash = Flash()
    flash.write(7, A)
    assert flash.read(7, 2) == A + b"\xff" * BLOCK_BYTES
    assert flash.erases[0] == 1


def test_what_the_flash_holds_already_is_not_written():
    flash = Flash()
    flash.write(3, A)
    flash.flush()
    flash.write(3, A)
    flash.flush()
    flash.write(99, b"\xff" * BLOCK_BYTES)
    flash.flush()
    assert flash.steps == 2


def test_a_page_takes_64_ms():
    clock = VirtualClock()
    flash = Flash(clock)
    flash.write(0, A * 16)
    flash.flush()
    assert clock.now_ns() == 2 * PAGE_NS
    assert pytest.approx(64e6, rel=0.01) == PAGE_NS


def test_the_background_flushes_about_a_second_after_a_write():
    clock = VirtualClock()
    flash = Flash(clock)
    flash.write(0, A)
    flash.write(1, A)
    clock.sleep(FLUSH_AFTER_NS - 1)
    flash.background()
    assert flash.steps == 0
    clock.sleep(1)
    flash.background()
    assert flash.steps == 2


def test_the_countdown_rests_while_everything_is_written():
    clock = VirtualClock()
    flash = Flash(clock)
    flash.write(0, A)
    flash.write(1, A)
    clock.sleep(FLUSH_AFTER_NS // 2)
    flash.flush()
    clock.sleep(10 * FLUSH_AFTER_NS)
    flash.write(0, B)
    flash.background()
    assert flash.steps == 2
    clock.sleep(FLUSH_AFTER_NS // 2 + 1)
    flash.background()
    assert flash.steps == 4


def test_a_write_that_goes_to_another_page_is_left_without_a_countdown():
    """So the last block of a file may wait for ever; os.sync writes it."""
    clock = VirtualClock()
    flash = Flash(clock)
    flash.write(0, A)
    flash.write(8, B)
    clock.sleep(3600 * 10**9)
    flash.background()
    assert raw(flash)[PAGE_BYTES : PAGE_BYTES + BLOCK_BYTES] == b"\xff" * BLOCK_BYTES
    flash.flush()
    assert raw(flash)[PAGE_BYTES : PAGE_BYTES + BLOCK_BYTES] == B


@pytest.mark.parametrize(("block", "data"), [(-1, A), (BLOCKS, A), (BLOCKS - 1, A + A), (0, b"abc")])
def test_other_blocks_and_parts_of_blocks_are_refused(block, data):
    with pytest.raises(ValueError, match="blocks"):
        Flash().write(block, data)


HALF = PAGE_BYTES // 2
OLD, NEW, ERASED = b"o" * HALF, b"n" * HALF, b"\xff" * HALF


@pytest.mark.parametrize(
    ("step", "torn", "first", "second"),
    [
        (1, Torn.untouched, OLD, OLD),
        (1, Torn.erased, ERASED, ERASED),
        (1, Torn.partial, ERASED, OLD),
        (1, Torn.garbage, ERASED, None),
        (2, Torn.untouched, ERASED, ERASED),
        (2, Torn.erased, ERASED, ERASED),
        (2, Torn.partial, NEW, ERASED),
        (2, Torn.garbage, NEW, None),
    ],
)
def test_a_cut_leaves_the_page_as_it_is_told_to(step, torn, first, second):
    flash = Flash(seed=5)
    flash.write(8, OLD + OLD)
    flash.flush()
    flash.cut_at, flash.torn = flash.steps + step, torn
    flash.write(8, NEW + NEW)
    with pytest.raises(PowerLostError):
        flash.flush()
    flash.power_up()
    found = flash.read(8, BLOCKS_PER_PAGE)
    assert found[:HALF] == first
    if second is None:
        assert found[HALF:] not in (OLD, NEW, ERASED)
    else:
        assert found[HALF:] == second
    assert flash.read(0, BLOCKS_PER_PAGE) == flash.read(16, BLOCKS_PER_PAGE) == ERASED + ERASED


class FlashMachine(RuleBasedStateMachine):
    """A few pages; what was written is read back, cut or not, except in the page that was torn."""

    pages = 6

    def __init__(self):
        super().__init__()
        self.clock = VirtualClock()
        self.flash = Flash(self.clock, seed=1)
        self.blocks = [b"\xff" * BLOCK_BYTES] * self.pages * BLOCKS_PER_PAGE
        self.fresh = itertools.count()

    @rule(block=st.integers(0, pages * BLOCKS_PER_PAGE - 1), count=st.integers(1, 20))
    def write(self, block, count):
        for number in range(block, min(block + count, len(self.blocks))):
            self.blocks[number] = next(self.fresh).to_bytes(4, "little") * (BLOCK_BYTES // 4)
        self.flash.write(block, b"".join(self.blocks[block : block + count]))

    @rule(block=st.integers(0, pages * BLOCKS_PER_PAGE - 1), count=st.integers(1, 20))
    def read(self, block, count):
        expected = b"".join(self.blocks[block : block + count])
        assert self.flash.read(block, len(expected) // BLOCK_BYTES) == expected

    @rule(ms=st.integers(0, 1500))
    def wait(self, ms):
        self.clock.sleep(ms * 10**6)
        self.flash.background()

    @rule()
    def sync(self):
        self.flash.flush()
        assert raw(self.flash)[: len(self.blocks) * BLOCK_BYTES] == b"".join(self.blocks)

    @rule(step=st.sampled_from([1, 2]), torn=st.sampled_from(list(Torn)))
    def lose_power(self, step, torn):
        before = raw(self.flash)
        self.flash.cut_at, self.flash.torn = self.flash.steps + step, torn
        with suppress(PowerLostError):
            self.flash.flush()
        self.flash.cut_at = None
        self.flash.power_up()
        after = raw(self.flash)
        size = len(self.blocks) * BLOCK_BYTES
        changed = [
            start
            for start in range(0, size, PAGE_BYTES)
            if before[start : start + PAGE_BYTES] != after[start:][:PAGE_BYTES]
        ]
        assert len(changed) <= 1
        self.blocks = [after[start : start + BLOCK_BYTES] for start in range(0, size, BLOCK_BYTES)]

    @invariant()
    def each_erase_took_its_time(self):
        assert self.clock.now_ns() >= (sum(self.flash.erases) - self.cuts()) * ERASE_NS

    def cuts(self):
        return 2 * sum(self.flash.erases) - self.flash.steps  # an erase that was cut has no program behind it


TestFlashMachine = FlashMachine.TestCase
TestFlashMachine.settings = settings(max_examples=60, stateful_step_count=30)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=8), st.integers(1, 30), st.sampled_from(Torn)
)
def test_a_cut_spoils_no_page_but_its_own(writes, step, torn):
    found = []
    for how in (Torn.untouched, torn):
        flash = Flash(seed=3)
        flash.cut_at, flash.torn = step, how
        with suppress(PowerLostError):
            for number, (block, count) in enumerate(writes):
                flash.write(block, bytes([number]) * BLOCK_BYTES * count)
        found.append(flash.pages)
    assert sum(a != b for a, b in zip(*found, strict=True)) <= 1


# --- under MicroPython's FAT ------------------------------------------------------------------------------------------

MOUNT = """
import os, vfs
from flashbdev import bdev
try:
    vfs.mount(vfs.VfsFat(bdev), "/drive")
    print("mounted")
except OSError as error:
    print("no file system", error.errno)
"""
FORMAT = "import vfs\nfrom flashbdev import bdev\nvfs.VfsFat.mkfs(bdev)\n" + MOUNT
LIST = """
for name in sorted(os.listdir("/drive")):
    with open("/drive/" + name, "rb") as file:
        data = file.read()
    print(name, len(data), min(data), max(data))
"""


@pytest.fixture
def swan(tmp_path):
    """Runs a program on MicroPython over a flash until it ends or the power does; gives what it printed."""
    try:
        runtime = RUNTIMES["micropython"]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))

    def run(flash, *programs, clock=None):
        program = "\n".join(textwrap.dedent(part) for part in programs)
        (tmp_path / "main.py").write_text(program + "\nprint('end')\n")
        clock = clock or VirtualClock()
        timing = Timing(clock_read_ns=0, bus_call_ns=0, gc_collect_ns=0, stall_probability=0)
        firmware = Tree(tmp_path, tree().boot)
        with Swan(clock, I2CBus(clock), timing=timing, firmware=firmware, runtime=runtime, flash=flash) as board:
            board.run(lambda: "end" in board.lines or not board.has_power)
            return [line for line in board.lines if not line.startswith("boot")]

    return run


def write(name, length, fill):
    return f"""
with open("/drive/{name}", "wb") as file:
    for _ in range({length} // 500):
        file.write(b"{fill}" * 500)
os.sync()
"""


def test_micropython_s_fat_formats_mounts_and_keeps_files(swan):
    clock = VirtualClock()
    flash = Flash(clock)
    lines = swan(flash, FORMAT, write("a.bin", 10_000, "a"), clock=clock)
    assert lines[-2:] == ["mounted", "end"]
    steps = flash.steps
    assert sum(flash.erases) == steps // 2 > 0
    assert clock.now_ns() == pytest.approx(steps // 2 * PAGE_NS)
    lines = swan(flash, MOUNT, LIST)
    assert lines[-3:] == ["mounted", "a.bin 10000 97 97", "end"]
    assert flash.steps == steps  # to mount and read changes nothing


def test_directory_and_table_are_what_wears_out(swan):
    """Page 0 holds boot sector and table, page 1 the root directory: a file rewritten 20 times wears those."""
    flash = Flash()
    swan(flash, FORMAT)
    before = list(flash.erases)
    swan(flash, MOUNT, *[write("a.bin", 500, "a")] * 20)
    worn = [after - earlier for after, earlier in zip(flash.erases, before, strict=True)]
    assert min(worn[0], worn[1]) >= 20
    assert flash.pages[0][510:512] == b"\x55\xaa"


def test_after_a_cut_at_any_step_of_a_file_write_other_files_are_there_or_nothing_mounts(swan):
    """What does not mount, CircuitPython formats. It happens when page 0 was erased and not yet programmed."""
    prepared = Flash()
    swan(prepared, FORMAT, write("old.bin", 8000, "o"))
    whole = _copy(prepared)
    swan(whole, MOUNT, write("new.bin", 6000, "n"))
    steps = whole.steps - prepared.steps
    assert steps >= 8
    fates = {}
    for step, torn in itertools.product(range(1, steps + 1), (Torn.erased, Torn.partial, Torn.garbage)):
        flash = _copy(prepared)
        flash.cut_at, flash.torn = flash.steps + step, torn
        assert "end" not in swan(flash, MOUNT, write("new.bin", 6000, "n"))
        flash.cut_at = None
        erased = flash.pages[0][:512] == b"\xff" * 512
        lines = swan(flash, MOUNT)
        assert ("mounted" in lines) == (not erased)
        if not erased and not _page_of_old_is_torn(prepared, flash):
            assert "old.bin 8000 111 111" in swan(flash, MOUNT, LIST)
        fates[step, torn] = erased
    assert any(fates.values())
    assert not all(fates.values())


def _page_of_old_is_torn(prepared, flash):
    return any(
        before[:] != after[:] and (number < 5 or b"o" * 512 in before)
        for number, (before, after) in enumerate(zip(prepared.pages, flash.pages, strict=True))
    )


def _copy(flash):
    copy = Flash(seed=random.Random(flash.steps).randrange(100))
    copy.pages = [bytearray(page) for page in flash.pages]
    copy.erases, copy.steps = list(flash.erases), flash.steps
    return copy
