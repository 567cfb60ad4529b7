"""The prepared drive: MicroPython's own FAT finds its files, and the firmware's ring.bin is on it on every runtime."""

import textwrap

import pytest

from judder.board import RING_BYTES, RING_FILE, Tree, tree
from judder.emulator import fat
from judder.emulator.clock import VirtualClock
from judder.emulator.flash import BLOCK_BYTES, BLOCKS, BLOCKS_PER_PAGE, ERASE_NS, PAGE_BYTES, PROGRAM_NS, Flash, Torn
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import Swan, Timing

FILES = {"one.txt": b"1", "empty.txt": b"", RING_FILE: bytes(range(256)) * 30, "last.bin": b"x" * 10_000}


def with_ring(clock=None):
    flash = Flash(clock)
    flash.load(fat.volume({RING_FILE: b"\xff" * RING_BYTES}))
    return flash


def run(program, flash, folder, name="cpython", clock=None):
    """What a program prints that runs on the board until it ends or the power does."""
    try:
        runtime = RUNTIMES[name]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    (folder / "main.py").write_text(textwrap.dedent(program) + "\nprint('end')\n")
    clock = clock or VirtualClock()
    timing = Timing(clock_read_ns=0, bus_call_ns=0, gc_collect_ns=0, stall_probability=0)
    firmware = Tree(folder, tree().boot)
    with Swan(clock, I2CBus(clock), timing=timing, firmware=firmware, runtime=runtime, flash=flash) as swan:
        swan.run(lambda: "end" in swan.lines or not swan.has_power)
        return [line for line in swan.lines if not line.startswith(("boot", "normal mode"))]


def test_files_lie_where_find_says():
    flash = Flash()
    flash.load(fat.volume(FILES))
    for name in (RING_FILE, "last.bin"):
        block, size = fat.find(flash, name)
        assert flash.read(block, -(-size // BLOCK_BYTES))[:size] == FILES[name]
    assert fat.find(flash, "other.bin") is None
    assert fat.find(Flash(), RING_FILE) is None
    assert flash.steps == 0


def test_the_ring_does_not_begin_with_a_page_and_without_boot_sector_it_is_gone():
    flash = with_ring()
    block, size = fat.find(flash, RING_FILE)
    assert block % BLOCKS_PER_PAGE
    assert size == RING_BYTES
    flash.pages[0][:] = b"\xff" * PAGE_BYTES
    assert fat.find(flash, RING_FILE) is None


def test_what_is_more_than_the_flash_holds_is_refused():
    with pytest.raises(ValueError, match="not the whole flash"):
        Flash().load(fat.volume({"a": bytes(BLOCKS * BLOCK_BYTES)}))


def test_micropython_s_fat_has_the_same_files(tmp_path):
    flash = Flash()
    flash.load(fat.volume(FILES))
    lines = run(
        """
        import os, vfs
        from flashbdev import bdev
        vfs.mount(vfs.VfsFat(bdev), "/drive")
        for name in os.listdir("/drive"):
            with open("/drive/" + name, "rb") as file:
                print(name.lower(), hash(file.read()))
        print([hash(content) for content in (b"1", b"", bytes(range(256)) * 30, b"x" * 10000)])
        """,
        flash,
        tmp_path,
        "micropython",
    )
    *found, hashes, _ = lines
    assert [line.split()[0] for line in found] == list(FILES)
    assert str([int(line.split()[1]) for line in found]) == hashes
    assert flash.steps == 0


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_firmware_s_file_is_on_the_flash_behind_cache_and_stalls(tmp_path, name):
    clock = VirtualClock()
    flash = with_ring(clock)
    lines = run(
        """
        import os
        file = open("ring.bin", "r+b")
        print(file.seek(0, 2))
        file.seek(5120)
        file.write(b"a" * 512)
        file.write(b"b" * 1024)
        buffer = bytearray(1000)
        file.seek(5600)
        print(file.readinto(buffer), bytes(buffer) == b"a" * 32 + b"b" * 968)
        os.sync()
        """,
        flash,
        tmp_path,
        name,
        clock,
    )
    assert lines == [str(RING_BYTES), "1000 True", "end"]
    block, _ = fat.find(flash, RING_FILE)
    flash.power_up()
    assert flash.read(block + 9, 5) == b"".join(letter * BLOCK_BYTES for letter in (b"\xff", b"a", b"b", b"b", b"\xff"))
    assert clock.now_ns() >= flash.steps // 2 * (ERASE_NS + PROGRAM_NS) > 0
    assert sum(flash.erases[: block // BLOCKS_PER_PAGE]) == 0  # neither table nor directory


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_cut_takes_the_power_and_the_flash_is_found_as_it_was(tmp_path, name):
    flash = with_ring()
    flash.cut_at, flash.torn = 2, Torn.erased
    program = """
        import os
        file = open("ring.bin", "r+b")
        for number in range(3):
            file.seek(4096 + 4096 * number)
            file.write(bytes([number]) * 512)
            os.sync()
            print("synced", number)
        """
    assert run(program, flash, tmp_path, name) == []
    flash.cut_at = None
    reads = """
        file = open("ring.bin", "r+b")
        file.seek(4096)
        buffer = bytearray(512)
        print(file.readinto(buffer), set(buffer))
        """
    assert run(reads, flash, tmp_path, name) == ["512 {255}", "end"]


def test_without_fat_what_it_would_do_for_a_file_is_refused(tmp_path):
    lines = run(
        """
        import os
        print(os.listdir(), os.stat("ring.bin")[6])
        file = open("ring.bin", "r+b")
        def refused(call, *arguments):
            try:
                call(*arguments)
            except ValueError as error:
                print(error)
        refused(file.write, bytes(100))
        file.seek(0, 2)
        refused(file.write, bytes(512))
        refused(file.close)
        refused(open, "ring.bin", "wb")
        """,
        with_ring(),
        tmp_path,
    )
    assert lines == [
        "['ring.bin', 'settings.toml'] 262144",
        "part of a sector goes through the file system's own buffer",
        "the file would grow, which changes directory and table",
        "to flush or close the file changes the directory; os.sync writes what is cached",
        "ring.bin is opened with wb, which is not modelled",
        "end",
    ]
