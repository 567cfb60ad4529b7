"""The ring's file on the flash model: the power goes at any erase and any program, and nothing confirmed is lost."""

import itertools
import random
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.flash_file import flash_file

from judder.board import RING_BYTES
from judder.emulator.flash import BLOCK_BYTES, BLOCKS, PAGE_BYTES, Flash, PowerLostError, Torn
from node.records import Records
from node.report import FIRST_REPORT
from node.ring import Ring

FIRST_BLOCK = 40  # where the FAT's files begin
RAM_BYTES = 16384
KEY, OTHERS = (1, 1), b"\x5a" * BLOCK_BYTES


def frame(key, length):
    return random.Random(repr(key)).randbytes(length)


def boot(flash, first_block, size, ram_bytes=RAM_BYTES, **options):
    flash.power_up()
    ring = Ring(ram_bytes, flash_file(flash, first_block, size), flash.flush, **options)
    ring.recover()
    return ring


def contents(ring):
    """Keys and frames of all that waits, in order."""
    return [(key, bytes(one)) for key, one in ring.oldest(10**9)]


def copy(flash):
    other = Flash(seed=flash.steps)
    other.pages = [bytearray(page) for page in flash.pages]
    other.steps = flash.steps
    return other


# --- without cuts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 487, 488, 489, 1000, 2458, 4072, 4073, 12_000])
def test_what_is_spilled_is_there_after_a_reset(length):
    flash = Flash()
    ring = boot(flash, FIRST_BLOCK, RING_BYTES)
    for sequence in range(2):
        ring.put((7, sequence), frame((7, sequence), length))
        assert ring.spill() == 1
    assert ring.used_bytes == 0
    assert ring.spill() == 0
    expected = [((7, sequence), frame((7, sequence), length)) for sequence in range(2)]
    assert contents(ring) == contents(boot(flash, FIRST_BLOCK, RING_BYTES)) == expected


def test_what_is_released_is_gone_after_a_reset():
    flash = Flash()
    ring = boot(flash, FIRST_BLOCK, RING_BYTES)
    for sequence in range(5):
        ring.put((7, sequence), frame((7, sequence), 2458))
    assert ring.spill() == 5
    for sequence in range(5):
        assert ring.release((7, sequence))
        assert not ring.release((7, sequence))
    assert len(boot(flash, FIRST_BLOCK, RING_BYTES)) == 0
    assert flash.steps / 2 - (4 + 4) <= 1  # pages: four written, four marked


def test_after_the_last_generation_comes_the_first():
    flash = Flash()
    records = Records(flash_file(flash, FIRST_BLOCK, RING_BYTES))
    records._generation = 0xFFFFFFFF
    records.write(records.start, (7, 0), frame((7, 0), 100))
    flash.flush()
    ring = boot(flash, FIRST_BLOCK, RING_BYTES)
    ring.put((7, 1), frame((7, 1), 100))
    assert ring.spill() == 1
    kept = [((7, sequence), frame((7, sequence), 100)) for sequence in range(2)]
    assert contents(ring) == kept
    assert sorted(contents(boot(flash, FIRST_BLOCK, RING_BYTES))) == kept


def test_without_a_file_nothing_is_spilled():
    ring = Ring(RAM_BYTES)
    ring.recover()
    ring.put(KEY, b"abc")
    assert ring.spill() == 0
    assert contents(ring) == [(KEY, b"abc")]


def test_a_full_file_keeps_the_oldest_and_the_rest_stays_in_ram():
    flash = Flash()
    ring = boot(flash, FIRST_BLOCK + 3, 8 * PAGE_BYTES)
    for sequence in range(6):
        ring.put((7, sequence), frame((7, sequence), 2458))
    assert ring.spill() == 6
    for sequence in range(6, 12):
        ring.put((7, sequence), frame((7, sequence), 2458))
    assert ring.spill() < 6
    assert [key for key, _ in contents(ring)] == [(7, sequence) for sequence in range(12)]
    for sequence in range(6):
        ring.release((7, sequence))
    ring.spill()
    assert ring.used_bytes == 0


def test_a_full_file_may_drop_the_oldest_and_tells_which():
    flash = Flash()
    lost = []
    ring = boot(flash, FIRST_BLOCK + 3, 8 * PAGE_BYTES, drops_oldest=True, lost=lambda *what: lost.append(what))
    for sequence in range(30):
        ring.put((7, sequence), frame((7, sequence), 2458))
        assert ring.spill() == 1
    kept = [key for key, _ in contents(boot(flash, FIRST_BLOCK + 3, 8 * PAGE_BYTES))]
    assert kept == [key for key, _ in contents(ring)] == [(7, sequence) for sequence in range(30 - len(kept), 30)]
    assert lost == [((7, sequence), "dropped") for sequence in range(30 - len(kept))]
    assert len(kept) >= 2


def test_a_report_in_the_way_is_taken_along_and_not_dropped():
    flash = Flash()
    lost = []
    ring = boot(flash, FIRST_BLOCK + 3, 8 * PAGE_BYTES, drops_oldest=True, lost=lambda *what: lost.append(what))
    report = (7, FIRST_REPORT)
    ring.put(report, frame(report, 600))
    for sequence in range(30):
        ring.put((7, sequence), frame((7, sequence), 2458))
        ring.spill()
    assert report in [key for key, _ in contents(ring)]
    assert report not in [key for key, _ in lost]
    ring.spill()
    assert (report, frame(report, 600)) in contents(boot(flash, FIRST_BLOCK + 3, 8 * PAGE_BYTES))


def test_full_ram_may_drop_its_oldest():
    lost = []
    ring = Ring(1000, drops_oldest=True, lost=lambda *what: lost.append(what))
    for sequence in range(5):
        assert ring.has_room(400)
        ring.put((7, sequence), frame((7, sequence), 400))
    assert [key for key, _ in contents(ring)] == [(7, 3), (7, 4)]
    assert lost == [((7, sequence), "dropped") for sequence in range(3)]
    assert not ring.has_room(1001)


def test_a_record_that_is_spoilt_later_is_left_out_and_told():
    flash = Flash()
    lost = []
    ring = boot(flash, FIRST_BLOCK, RING_BYTES, lost=lambda *what: lost.append(what))
    for sequence in range(3):
        ring.put((7, sequence), frame((7, sequence), 2458))
        ring.spill()
    spoilt = next(page for page in flash.pages if frame((7, 1), 2458)[600:700] in page)
    spoilt[spoilt.index(frame((7, 1), 2458)[600:700])] ^= 1
    flash.power_up()
    assert [key for key, _ in contents(ring)] == [(7, 0), (7, 2)]
    assert lost == [((7, 1), "damaged")]
    assert len(boot(flash, FIRST_BLOCK, RING_BYTES)) == 2


# --- with cuts --------------------------------------------------------------------------------------------------------


def scenario(ring, done):
    """Five spills of four frames round a small file; one of each is released only after the next. Tells `done`."""
    for first in range(0, 20, 4):
        keys = [(7, sequence) for sequence in range(first, first + 4)]
        for key in keys:
            ring.put(key, frame(key, frame_bytes(key)))
        assert ring.spill() == 4
        done.update(("kept", key) for key in keys)
        for key in [(7, first - 1), *keys[:3]]:
            done.add(("released", key))
            ring.release(key)


def frame_bytes(key):
    return 700 + 900 * (key[1] % 4)


@pytest.mark.parametrize("first_block", range(FIRST_BLOCK, FIRST_BLOCK + 8))
def test_a_cut_at_any_step_loses_nothing_confirmed_and_touches_nobody_else(first_block):
    """48 to 70 erases and programs, by where in a page the file begins."""
    size = 8 * PAGE_BYTES
    start = first_block * BLOCK_BYTES
    fresh = Flash()
    fresh.write(0, OTHERS * BLOCKS)
    fresh.write(first_block, b"\xff" * size)
    fresh.flush()
    fresh_bytes = b"".join(fresh.pages)
    whole = copy(fresh)
    scenario(boot(whole, first_block, size), set())
    steps = whole.steps - fresh.steps
    assert 48 <= steps <= 70
    for step, torn in itertools.product(range(1, steps + 1), Torn):
        flash = copy(fresh)
        flash.cut_at, flash.torn = flash.steps + step, torn
        done = set()
        with pytest.raises(PowerLostError):
            scenario(boot(flash, first_block, size), done)
        flash.cut_at = None
        ring = boot(flash, first_block, size)
        found = contents(ring)
        keys = [key for key, _ in found]
        assert keys == sorted(set(keys))
        assert all(data == frame(key, len(data)) and len(data) == frame_bytes(key) for key, data in found)
        assert {key for what, key in done if what == "kept"} - {key for what, key in done if what == "released"} <= set(
            keys
        )
        repeated = set(keys) & {key for what, key in done if what == "released"}
        assert len(repeated) <= 3
        everything = b"".join(flash.pages)
        assert everything[:start] == fresh_bytes[:start]
        assert everything[start + size :] == fresh_bytes[start + size :]


class RingOnFlash(RuleBasedStateMachine):
    """The ring against a list of keys, through any number of power cuts."""

    @initialize(shift=st.integers(0, 7), pages=st.integers(4, 12), drops_oldest=st.booleans())
    def make(self, shift, pages, drops_oldest):
        self.flash = Flash(seed=shift)
        self.place = FIRST_BLOCK + shift, pages * PAGE_BYTES
        self.lost = []
        self.options = {"drops_oldest": drops_oldest, "lost": lambda key, reason: self.lost.append((key, reason))}
        self.ring = boot(self.flash, *self.place, **self.options)
        self.frames = {}
        self.waiting = []  # keys, as the ring should have them
        self.safe = set()  # confirmed by spill
        self.written = []  # in the order in which spill went about it
        self.recalled = set()  # from the file, which still has them as released

    @rule(length=st.integers(1, 5000))
    def put(self, length):
        if self.ring.has_room(length):
            key = (7, len(self.frames))
            self.frames[key] = frame(key, length)
            self.ring.put(key, self.frames[key])
            self.waiting.append(key)
            self.forget_dropped()

    @rule()
    def spill(self):
        in_ram = self.in_ram()
        self.written = [key for key in self.written if key not in in_ram] + in_ram
        if self.survives(self.ring.spill):
            self.safe.update(in_ram[: self.result])
            self.written = self.written[: len(self.written) - len(in_ram) + self.result]
            self.forget_dropped()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def release(self, data):
        key = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(key)
        self.survives(lambda: self.ring.release(key))

    @precondition(lambda self: self.waiting)
    @rule()
    def release_all(self):
        for key in list(self.waiting):
            self.waiting.remove(key)
            if not self.survives(lambda key=key: self.ring.release(key)):
                return

    @precondition(lambda self: self.frames)
    @rule(data=st.data())
    def recall(self, data):
        keys = data.draw(st.lists(st.sampled_from(sorted(self.frames)), unique=True))
        if not self.survives(lambda: self.ring.recall(keys)):
            return
        gone, before, in_ram = self.result, len(self.waiting), self.ring.in_ram()
        assert set(gone) <= set(keys) - set(self.waiting)
        found = [key for key, _ in contents(self.ring)]
        assert found[:before] == self.waiting
        assert set(found[before:]) == set(keys) - set(gone) - set(self.waiting)
        self.safe.difference_update(found[before:])
        self.recalled.update(found[before + in_ram - len(self.in_ram()) :])
        self.waiting = found

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def refuse(self, data):
        key = data.draw(st.sampled_from(self.waiting))
        assert self.ring.refuse(key)
        self.waiting.remove(key)
        self.waiting.append(key)

    @rule(step=st.integers(1, 12), torn=st.sampled_from(Torn))
    def arm(self, step, torn):
        self.flash.cut_at, self.flash.torn = self.flash.steps + step, torn

    @rule()
    def reset(self):
        self.reboot()

    def in_ram(self):
        return [key for key in self.waiting if key not in self.safe | self.recalled]

    def forget_dropped(self):
        """What the ring has dropped to make room, it tells."""
        kept = [key for key, _ in contents(self.ring)]
        gone = [key for key in self.waiting if key not in kept]
        assert not gone or self.options["drops_oldest"]
        assert self.lost == [(key, "dropped") for key in gone]
        self.lost.clear()
        self.waiting = [key for key in self.waiting if key in kept]

    def survives(self, action):
        with suppress(PowerLostError):
            self.result = action()
            return True
        self.reboot()
        return False

    def reboot(self):
        self.flash.cut_at = None
        dropped = {key for key, _ in self.lost}  # by a spill that was cut, to make room
        self.lost.clear()
        self.ring = boot(self.flash, *self.place, **self.options)
        found = contents(self.ring)
        keys = [key for key, _ in found]
        assert all(data == self.frames[key] for key, data in found)
        assert keys == [key for key in self.written if key in keys]
        lost = {key for key in self.safe & set(self.waiting) if key not in keys}
        assert lost <= dropped
        self.waiting, self.safe, self.recalled = keys, set(keys), set()

    @invariant()
    def all_that_waits_is_there_in_order(self):
        if not hasattr(self, "ring"):
            return
        assert [(key, self.frames[key]) for key in self.waiting] == contents(self.ring)
        assert self.ring.used_bytes == sum(len(self.frames[key]) for key in self.in_ram())
        assert not self.lost


TestRingOnFlash = RingOnFlash.TestCase
TestRingOnFlash.settings = settings(max_examples=150, stateful_step_count=40)


# --- a day without the link -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_block", [FIRST_BLOCK, FIRST_BLOCK + 5])
def test_a_day_s_windows_have_room_and_few_of_them_wait_in_ram(first_block):
    ring = boot(Flash(), first_block, RING_BYTES, ram_bytes=98304)
    in_ram = []
    while ring.has_room(2458):
        ring.put((7, len(in_ram)), bytes(2458))
        if ring.worth_spilling():
            ring.spill()
        in_ram.append(ring.in_ram())
    assert len(in_ram) >= 96 + 10
    assert in_ram[:14] == [0] * 14  # three and a half hours: none
    assert max(in_ram[:70]) == 7


@pytest.mark.slow
@pytest.mark.parametrize("first_block", [FIRST_BLOCK, FIRST_BLOCK + 5])
def test_a_year_with_a_day_of_outage_a_week_keeps_every_page_under_1000_erases(first_block):
    """At the default cadence, 96 windows a day; after each outage the board starts anew, which begins no new round."""
    flash = Flash()
    sequence = 0
    for _ in range(52):
        ring = boot(flash, first_block, RING_BYTES, ram_bytes=98304, drops_oldest=True)
        assert len(ring) == 0
        for _ in range(96):
            ring.put((7, sequence), frame((7, sequence), 2458))
            sequence += 1
            if ring.worth_spilling():
                ring.spill()
        ring.spill()
        while len(ring):
            for key, _ in list(ring.oldest(16384)):
                ring.release(key)
    worn = [erases for erases in flash.erases if erases]
    print(max(worn), len(worn), sorted(worn)[len(worn) // 2])
    assert max(worn) < 200
    assert len(worn) > 60
    assert max(worn) < 1.5 * sorted(worn)[len(worn) // 2]
