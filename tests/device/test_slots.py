"""Slots: whatever is in them, and wherever a write breaks off, what is used is whole, and there is always the base."""

import os
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import slots
from judder import code
from judder.board import MODEL_FILE, SLOT_FOLDER, SLOTS
from judder.manifest import MANIFEST

SIZE = slots.CONTENT_AT + slots.GUARD_BYTES + 4096
A, B = slots.NAMES[slots.MODEL]


class CutError(Exception):
    """The power."""


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drive")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    start()


def start():
    """As after a reset: nothing is open, nothing in use."""
    for file, _ in slots._open_files.values():
        file.close()
    slots._open_files.clear()
    slots._written.clear()
    slots.running.update(dict.fromkeys(slots.running))


def empty(drive):
    start()
    for name in (A, B):
        (drive / name).write_bytes(b"\xff" * SIZE)
    (drive / MODEL_FILE).unlink(missing_ok=True)


def fetch(slot, content, state=slots.TRIAL, generation=1):
    slot.kind, slot.state, slot.tries, slot.done = slots.MODEL, slots.LOADING, 0, 0
    slot.length, slot.checksum, slot.generation = len(content), crc32(content), generation
    slot.base = slots.base(slots.MODEL)
    slot.version = f"{crc32(content):08x}"
    slot.keep()
    for at in range(0, len(content), 1024):
        slot.put(content[at : at + 1024])
        slot.keep()
    slot.state = state
    slot.keep()


def test_board_and_host_mean_the_same_files():
    assert set(SLOTS) == {name for names in slots.NAMES.values() for name in names}
    assert (MANIFEST, MODEL_FILE, f"/{SLOT_FOLDER}") == (slots.MANIFEST, slots.MODEL_FILE, slots.FOLDER)
    assert (code.HEAD_BYTES, code.GUARD_BYTES) == (slots.CONTENT_AT, slots.GUARD_BYTES)


@given(st.integers(0, 7))
def test_no_page_is_shared_wherever_in_a_page_the_file_begins(first_sector):
    begin = first_sector * slots.SECTOR_BYTES
    header, content = begin + slots.HEADER_AT, begin + slots.CONTENT_AT
    assert header // 4096 * 4096 >= begin
    assert header // 4096 < content // 4096
    end = begin + SIZE
    assert -(-(end - slots.GUARD_BYTES) // 4096) * 4096 <= end


def test_the_newest_that_is_whole_and_for_this_base_is_used_and_three_starts_are_all_it_gets(drive):
    empty(drive)
    assert slots.choose(slots.MODEL) is None
    fetch(slots.Slot(A), b"old" * 100, slots.PROVEN, 1)
    fetch(slots.Slot(B), b"new" * 100, slots.TRIAL, 2)
    for number in range(slots.TRIES):
        start()
        slots.enter(slots.MODEL)
        assert (slots.running[slots.MODEL].name, slots.running[slots.MODEL].tries) == (B, number + 1)
        assert slots.running[slots.MODEL].content().read() == b"new" * 100
        assert slots.spare(slots.MODEL).name == A
    start()
    slots.enter(slots.MODEL)
    assert slots.running[slots.MODEL].name == A
    assert slots.Slot(B).state == slots.FAILED
    (drive / MODEL_FILE).write_bytes(b"another base")
    start()
    slots.enter(slots.MODEL)
    assert slots.running[slots.MODEL] is None


def test_a_board_without_slots_uses_its_base(drive):
    empty(drive)
    (drive / A).unlink()
    (drive / B).unlink()
    slots.enter(slots.MODEL)
    assert slots.running[slots.MODEL] is None
    assert slots.spare(slots.MODEL) is None


def test_content_is_a_file_and_a_block_device(drive):
    empty(drive)
    data = bytes(range(256)) * 5
    slot = slots.Slot(A)
    fetch(slot, data)
    content = slot.content()
    assert content.seek(0, 2) == len(data)
    content.seek(1000)
    assert content.read(100) == data[1000:1100]
    assert content.read() == data[1100:]
    block = bytearray(512)
    content.readblocks(1, block)
    assert block == data[512:1024]
    assert (content.ioctl(4, 0), content.ioctl(5, 0)) == (2, 512)


def cut_at(write, length):
    """Writes of a slot, the power going in one of them."""
    count = 0

    def writing(self, at, data):
        nonlocal count
        count += 1
        if count == write:
            self._file.seek(at)
            self._file.write(bytes(data)[:length])
            self._file.flush()
            raise CutError
        original(self, at, data)

    original = slots.Slot._write
    return writing


@settings(max_examples=150)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=4000), st.integers(1, 12), st.integers(0, 511)), max_size=4))
def test_after_any_cuts_what_is_used_is_whole_or_the_base(drive, updates):
    empty(drive)
    contents = {b""}
    original = slots.Slot._write
    for number, (content, write, length) in enumerate(updates, 1):
        start()
        slots.enter(slots.MODEL)
        used = slots.running[slots.MODEL]
        assert used is None or used.content().read() in contents
        contents.add(content)
        slots.Slot._write = cut_at(write, length)
        try:
            fetch(slots.spare(slots.MODEL), content, generation=number)
            if used is not None and used.state == slots.TRIAL:
                used.end(slots.PROVEN)
        except CutError:
            pass
        finally:
            slots.Slot._write = original
    start()
    slots.enter(slots.MODEL)
    found = slots.running[slots.MODEL]
    assert found is None or found.content().read() in contents


@given(st.binary(max_size=512))
def test_a_header_of_garbage_is_an_empty_slot(drive, garbage):
    empty(drive)
    whole = bytearray(b"\xff" * SIZE)
    whole[slots.HEADER_AT : slots.HEADER_AT + len(garbage)] = garbage
    (drive / A).write_bytes(whole)
    slots.enter(slots.MODEL)
    assert slots.running[slots.MODEL] is None
    assert slots.Slot(A).state == slots.EMPTY
