"""The prepared drive: MicroPython's own FAT finds its files, and the firmware's ring.bin is on it on every runtime."""

import textwrap
from binascii import crc32
from pathlib import PurePosixPath

import pytest

from judder import fat12
from judder.board import RING_BYTES, RING_FILE, SETTINGS_FILE, Tree, tree
from judder.emulator.clock import VirtualClock
from judder.emulator.flash import BLOCK_BYTES, BLOCKS, BLOCKS_PER_PAGE, ERASE_NS, PAGE_BYTES, PROGRAM_NS, Flash, Torn
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import Swan, Timing
from judder.fat12 import Fat12Error

FILES = {
    "one.txt": b"1",
    "empty.txt": b"",
    "lib/a module with a long name.py": b"import this\n" * 100,
    "LIB.TXT": b"y" * 512,
    "lib/emptiness/": b"",
    ".Trashes": b"",
    "a longer name 1.txt": b"1",
    "a longer name 2.txt": b"2",
    "+,;=[] .{}.t x t": b"z" * 513,
    RING_FILE: bytes(range(256)) * 30,
    "last.bin": b"x" * 10_000,
}


def with_ring(clock=None):
    flash = Flash(clock)
    flash.load(fat12.volume({SETTINGS_FILE: b"\n"}, last={RING_FILE: b"\xff" * RING_BYTES}))
    return flash


def find(flash, name):
    return fat12.locate(b"".join(flash.pages), name)


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


def test_files_lie_where_locate_says():
    flash = Flash()
    flash.load(fat12.volume(FILES))
    for name in (RING_FILE, "last.bin", "lib/a module with a long name.py"):
        block, size = find(flash, name)
        assert flash.read(block, -(-size // BLOCK_BYTES))[:size] == FILES[name]
    assert find(flash, "other.bin") is None
    assert flash.steps == 0


def test_the_ring_does_not_begin_with_a_page_and_without_boot_sector_it_is_gone():
    flash = with_ring()
    block, size = find(flash, RING_FILE)
    assert block % BLOCKS_PER_PAGE
    assert size == RING_BYTES
    flash.pages[0][:] = b"\xff" * PAGE_BYTES
    with pytest.raises(Fat12Error):
        find(flash, RING_FILE)


def test_an_image_of_another_size_than_the_flash_is_refused():
    with pytest.raises(ValueError, match="not the whole flash"):
        Flash().load(fat12.volume({}, sectors=BLOCKS // 2))


READS = """
import os, vfs
from binascii import crc32
def tell(folder):
    for name in os.listdir(folder or "/"):
        path = folder + "/" + name
        if os.stat(path)[0] & 0x4000:
            print(path + "/")
            tell(path)
        else:
            with open(path, "rb") as file:
                content = file.read()
            print(path, len(content), crc32(content))
"""
FROM_FLASH = """
from flashbdev import bdev
vfs.mount(vfs.VfsFat(bdev), "/drive")
tell("/drive")
"""
FROM_FILE = """
class Blocks:
    def readblocks(self, block, buffer):
        image.seek(block * 512)
        image.readinto(buffer)
    def writeblocks(self, block, buffer):
        raise OSError(30)
    def ioctl(self, op, argument):
        return {4: SECTORS, 5: 512}.get(op, 0)
image = open("IMAGE", "rb")
vfs.mount(vfs.VfsFat(Blocks()), "/drive")
tell("/drive")
"""


def told(files):
    """What READS prints of a volume with them, in some order."""
    folders = {parent for path in files for parent in PurePosixPath(path + "x").parents} - {PurePosixPath()}
    contents = {path: content for path, content in files.items() if not path.endswith("/")}
    lines = [f"/drive/{path} {len(content)} {crc32(content)}" for path, content in contents.items()]
    return sorted([*lines, *(f"/drive/{folder}/" for folder in folders), "end"])


def test_micropython_s_fat_has_the_same_files(tmp_path):
    flash = Flash()
    flash.load(fat12.volume(FILES))
    assert sorted(run(READS + FROM_FLASH, flash, tmp_path, "micropython")) == told(FILES)
    assert flash.steps == 0


@pytest.mark.parametrize("sectors", [64, 320, 2048])
def test_micropython_s_fat_mounts_volumes_of_other_sizes_from_a_file(tmp_path, sectors):
    files = FILES if sectors > 64 else {"one.txt": b"1", "a folder/two.txt": b"2" * 513}
    image = tmp_path / "image"
    image.write_bytes(fat12.volume(files, sectors=sectors))
    program = READS + FROM_FILE.replace("IMAGE", str(image)).replace("SECTORS", str(sectors))
    assert sorted(run(program, None, tmp_path, "micropython")) == told(files)


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
    block, _ = find(flash, RING_FILE)
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
