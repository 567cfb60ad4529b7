"""The Swan's whole flash: pages, parts, and what boots."""

import struct

import pytest

from judder.binpack import Part
from judder.emulator.clock import VirtualClock
from judder.emulator.flash import BASE_ADDRESS, PAGE_BYTES, PAGES, Flash, PowerLostError, Torn
from judder.emulator.program import FLASH_BYTES, PROGRAM_ADDRESS, Program, is_plausible

BOOTLOADER = Part("bootloader", PROGRAM_ADDRESS, b"boot" * 500)
INTERPRETER = Part("interpreter", PROGRAM_ADDRESS + 2000, b"code" * 2000)
DRIVE = Part("fs", BASE_ADDRESS, b"file" * 100)
IMAGE = BOOTLOADER, INTERPRETER, DRIVE


@pytest.fixture
def program():
    clock = VirtualClock()
    made = Program(Flash(clock), clock)
    made.load(IMAGE)
    return made


def test_parts_may_share_a_page_which_then_comes_once(program):
    pages = program.cut_into_pages(IMAGE)
    assert [number for number, _ in pages] == [0, 1, 2, PAGES]
    assert pages[0][1] == BOOTLOADER.data + INTERPRETER.data[: PAGE_BYTES - 2000]
    assert pages[2][1].endswith(b"\xff" * (3 * PAGE_BYTES - 10_000))
    assert program.holds(IMAGE)
    assert program.boots()
    assert program.steps == 0


def test_the_drive_is_the_upper_bank(program):
    assert program.drive.read(0)[:400] == DRIVE.data
    program.erase(PAGES)
    assert program.drive.read(0) == b"\xff" * 512
    assert (program.drive.erases[0], program.drive.steps, program.steps) == (1, 0, 1)


@pytest.mark.parametrize("address", [PROGRAM_ADDRESS - 1, PROGRAM_ADDRESS + FLASH_BYTES - 1, 0])
def test_a_part_beyond_the_flash_is_refused(program, address):
    with pytest.raises(ValueError, match="are not within the flash"):
        program.load([Part("x", address, b"ab")])
    assert program.holds(IMAGE)


def test_every_byte_of_the_lower_bank_s_parts_counts_and_no_other(program):
    program.pages[100][:] = bytes(PAGE_BYTES)
    program.pages[PAGES][:] = bytes(PAGE_BYTES)
    assert program.boots()
    for at in (0, 1999, 2000, 9999):
        page = program.pages[at // PAGE_BYTES]
        page[at % PAGE_BYTES] ^= 1
        assert not program.boots()
        page[at % PAGE_BYTES] ^= 1
    assert program.boots()


def test_an_image_without_a_program_makes_nothing_boot(program):
    program.load([DRIVE, Part("nothing", PROGRAM_ADDRESS, b"")])
    assert not program.boots()
    program.load(IMAGE)
    assert program.boots()


@pytest.mark.parametrize("torn", Torn)
def test_a_cut_while_both_banks_are_erased_leaves_what_it_says(program, torn):
    before = b"".join(program.pages)
    program.cut_at, program.torn = 1, torn
    with pytest.raises(PowerLostError):
        program.erase_all()
    after = b"".join(program.pages)
    half = FLASH_BYTES // 2
    assert (after[:half] == before[:half]) is (torn is Torn.untouched)
    assert program.boots() is (torn is Torn.untouched)
    assert (after[half:] == before[half:]) is (torn in (Torn.untouched, Torn.partial))
    assert len(after) == FLASH_BYTES


@pytest.mark.parametrize(
    ("stack", "entry", "plausible"),
    [
        (0x200A0000, PROGRAM_ADDRESS + 9, True),
        (0x20000000, PROGRAM_ADDRESS + 9, True),
        (0x200A0004, PROGRAM_ADDRESS + 9, False),
        (0x1FFFFFFF, PROGRAM_ADDRESS + 9, False),
        (0x200A0000, PROGRAM_ADDRESS + 8, False),
        (0x200A0000, PROGRAM_ADDRESS + 17, False),
        (0x200A0000, 1, False),
        (0xFFFFFFFF, 0xFFFFFFFF, False),
    ],
)
def test_a_vector_table_has_a_stack_in_ram_and_an_entry_in_the_program(stack, entry, plausible):
    assert is_plausible(struct.pack("<II", stack, entry) + bytes(8)) is plausible
    assert not is_plausible(struct.pack("<II", stack, entry)[:7])
