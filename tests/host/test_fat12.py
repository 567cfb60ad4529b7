"""FAT12: what is written reads back, here and by dosfstools and mtools; what is broken is said to be.

MicroPython's FatFs reads the same volumes in tests/emulator/test_fat.py.
"""

import hashlib
import os
import shutil
import struct
import subprocess
from contextlib import suppress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from judder import fat12
from judder.fat12 import Fat12Error, locate, read, volume

SECTOR = 512
TREE = {
    "boot.py": b"b" * 513,
    "MAIN.PY": b"",
    "lib/adafruit bus/device.py": b"d" * 512,
    "lib/empty/": b"",
    "lib/a/b/c/deep.txt": b"e" * 511,
    ".Trashes": b"",
    ".fseventsd/no_log": b"",
    "longfilename one.txt": b"1",
    "longfilename two.txt": b"2",
    "LONGFI~1.TXT": b"3",
    "+,;=[].tar.gz": b"4" * 1025,
    "Größe → 😀.bin": b"5",
    "thirteen long": b"6",
    "x" * 255: b"7",
}
ERASED = {"ring.bin": b"\xff" * 4096}
GOLDEN = [  # SHA-256 of both, on 320 and on 2048 sectors
    "68ddcfdee048c96c86aa8a13b2ee876f5b32ce559e3dd392bfcbec8ac9ff6f31",
    "28e67075ab334454e251433a9619370f3855350653844c38d10b53efdd1994cc",
]

CONTENTS = st.sampled_from([0, 1, 511, 512, 513, 1500]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


def trees(letters):
    """Of up to twelve files, whose short names collide often."""
    names = st.one_of(
        st.text(st.sampled_from(letters), min_size=1, max_size=30).map(lambda name: name.rstrip(". ") or "x"),
        st.sampled_from(["longfilea.tx", "longfileb.tx", "longfilec.txt", "LONGFI~1.TX", "LONGFI~2.TX", "longfi~3.tx"]),
    )
    return st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), CONTENTS, min_size=1, max_size=12)


def written(files):
    """A volume with room for them, unless FAT cannot hold the names."""
    try:
        return volume(files, sectors=320)
    except Fat12Error as error:
        if "full" in str(error) or "entries" in str(error):
            raise
        assume(False)


# --- round trips ------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(trees("abcXYZ019 ._-~+éß→😀"))
def test_what_is_written_reads_back_and_lies_in_one_piece(files):
    image = written(files)
    assert len(image) == 320 * SECTOR
    assert read(image) == files
    assert read(image.rstrip(b"\xff")) == files
    for path, content in files.items():
        sector, size = locate(image, path)
        assert size == len(content)
        assert not content or image[sector * SECTOR :][:size] == content


def test_a_tree_comes_back_whole_and_its_erased_end_can_be_cut_off():
    image = volume(TREE, last=ERASED)
    assert len(image) == fat12.SECTORS * SECTOR
    assert read(image) == TREE | ERASED
    cut = image.rstrip(b"\xff")
    assert len(cut) < locate(image, "ring.bin")[0] * SECTOR
    assert read(cut) == TREE | ERASED
    assert locate(image, "RING.BIN") == locate(image, "ring.bin")  # FAT does not tell capitals
    assert locate(image, "ring.bi") is None
    assert locate(image, "lib") is None
    assert locate(image, "MAIN.PY") == (0, 0)


def test_files_lie_in_the_order_given_and_the_last_at_the_end():
    image = volume({"b": b"1", "a/x": b"2", "c": b"3" * 513}, last={"0": b"4"})
    starts = [locate(image, path)[0] for path in ("b", "a/x", "c", "0")]
    assert starts == [41, 42, 43, 45]  # behind the folder


@pytest.mark.parametrize("sectors", [40, 64, 320, 2048, 4000])
def test_a_full_disk_is_full_to_the_sector(sectors):
    table = -(-((sectors * 3 + 1) // 2 + 3) // SECTOR)
    clusters = sectors - 1 - table - 32
    files = {"a": b"1" * (clusters - 1) * SECTOR, "b": b"2"}
    image = volume(files, sectors=sectors)
    assert read(image) == files
    assert not image.endswith(b"\xff" * SECTOR)
    with pytest.raises(Fat12Error, match=f"take 512 bytes more than its {clusters * SECTOR}"):
        volume(files | {"c": b"3"}, sectors=sectors)


def test_the_root_is_full_to_the_entry():
    files = {f"F{number}": b"" for number in range(511)}
    assert read(volume(files)) == files
    with pytest.raises(Fat12Error, match="root takes 513 entries and has 512"):
        volume(files | {"F511": b""})
    assert read(volume({"a/" + name: b"" for name in files})).keys() == {"a/" + name for name in files}


# --- what FAT cannot hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a?": b""}, "cannot have '?'"),
        ({"a\\b": b""}, "cannot have"),
        ({"a\n": b""}, "cannot have"),
        ({"a.": b""}, "end in a dot"),
        ({"b/a ": b""}, "end in a dot or a space"),
        ({"": b""}, "empty"),
        ({"/a": b""}, "empty"),
        ({"a//b": b""}, "empty"),
        ({"../a": b""}, "end in a dot"),
        ({"Con.txt": b""}, "device on Windows"),
        ({"lpt1": b""}, "device on Windows"),
        ({"x" * 256: b""}, "256 units"),
        ({"😀" * 128: b""}, "256 units"),
        ({"\ud800": b""}, "no text"),
        ({"a": b"", "A": b""}, "capitals"),
        ({"a/x": b"", "A/y": b""}, "capitals"),
        ({"é": b"", "É": b""}, "capitals"),
        ({"a": b"", "a/b": b""}, "a file and a folder"),
        ({"a/b": b"", "a": b""}, "a file and a folder"),
        ({"a/": b"x"}, "has content"),
    ],
)
def test_what_fat_cannot_hold_is_refused_in_a_line(files, reason):
    with pytest.raises(Fat12Error, match=f".*{reason}") as error:
        volume(files)
    assert "\n" not in str(error.value)


def test_names_that_only_look_alike_are_told_apart():
    files = {"straße": b"1", "strasse": b"2", "con1": b"3", "a.con": b"4"}
    assert read(volume(files)) == files


@pytest.mark.parametrize("options", [{"sectors": 33}, {"sectors": 5000}, {"root_entries": 500}, {"label": "circuitpy"}])
def test_no_volume_of_another_kind(options):
    with pytest.raises(Fat12Error):
        volume({}, **options)
    with pytest.raises(Fat12Error, match="is there twice"):
        volume({"a": b""}, last={"a": b""})


# --- the bytes --------------------------------------------------------------------------------------------------------


def test_the_boot_sector_is_circuitpython_s():
    """Each value as its f_mkfs writes it for the Swan's 2048 blocks; the serial number is ours."""
    image = volume({})
    fields = struct.unpack("<3s8sHBHBHHBHHHIIBBBI11s8s", image[:62])
    assert fields[:14] == (b"\xeb\xfe\x90", b"MSDOS5.0", 512, 1, 1, 1, 512, 2048, 0xF8, 7, 63, 255, 1, 0)
    assert fields[14:17] == (0x80, 0, 0x29)
    assert fields[18:] == (b"NO NAME    ", b"FAT     ")
    assert image[62:510] == bytes(448)
    assert image[510:512] == b"\x55\xaa"
    assert image[512:516] == b"\xf8\xff\xff\x00"
    assert image[8 * SECTOR : 8 * SECTOR + 12] == b"CIRCUITPY  \x08"
    assert image[40 * SECTOR :] == b"\xff" * 2008 * SECTOR


def test_the_same_files_give_the_same_bytes_for_ever():
    digests = [hashlib.sha256(volume(TREE, last=ERASED, sectors=sectors)).hexdigest() for sectors in (320, 2048)]
    assert digests == GOLDEN


# --- what is broken ---------------------------------------------------------------------------------------------------


def changed(image, at, data):
    return image[:at] + data + image[at + len(data) :]


FILES = {"A": b"1" * 512 + b"2" * 512, "B": b"3" * 512 + b"4" * 512}  # clusters 2, 3 and 4, 5
ROOT = 8 * SECTOR


@pytest.mark.parametrize(
    ("at", "data", "reason"),
    [
        (0, b"\x00", "boot sector"),
        (510, b"\x00", "boot sector"),
        (11, b"\x01", "FAT12 volume"),
        (13, b"\x03", "FAT12 volume"),
        (16, b"\x00", "FAT12 volume"),
        (19, b"\xff\xff", "clusters"),
        (19, b"\x20\x00", "clusters"),
        (22, b"\x01", "too short"),
        (512 + 3, b"\x02\xf0", "circles"),
        (512 + 3, b"\x05\xf0", "B: shares cluster 5 with A"),
        (512 + 3, b"\xda\xf7", "cluster 2010, which is not one of its 2008"),
        (512 + 3, b"\x00\xf0", "cluster 0"),
        (512 + 3, b"\xff\xff", "1024 bytes and 1 clusters"),
        (ROOT + 32 + 26, b"\x01", "cluster 1"),
        (ROOT + 32 + 26, b"\x04", "shares cluster 4 with A"),
        (ROOT + 32 + 28, b"\x01\x04", "1025 bytes and 2 clusters"),
        (ROOT + 32 + 11, b"\x10", "A/: '1.*' is no name|goes on in cluster"),
        (ROOT + 32 + 11, b"\x38", "no file and no folder"),
        (ROOT + 32, b"B", "B beside it"),
        (ROOT + 32, b"/", "is no name"),
    ],
)
def test_what_is_broken_is_said_to_be(at, data, reason):
    image = changed(volume(FILES), at, data)
    with pytest.raises(Fat12Error, match=reason) as error:
        read(image)
    assert "\n" not in str(error.value)


def test_an_image_that_ends_in_its_table_is_broken():
    image = volume(FILES)
    for length in (0, 511, 512, 4096, 40 * SECTOR - 1):
        with pytest.raises(Fat12Error):
            read(image[:length])


@given(st.data())
def test_whatever_is_flipped_reads_or_is_an_error(data):
    image = bytearray(volume(TREE, sectors=320))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, 60 * SECTOR))] ^= data.draw(st.integers(1, 255))
    with suppress(Fat12Error):
        found = read(bytes(image))
        assert sum(map(len, found.values())) <= len(image)


# --- volumes of others ------------------------------------------------------------------------------------------------


def in_pieces():
    """A spans clusters 2 and 5, B 4 and 3; between them a deleted file; short names in small letters."""
    image = volume(FILES)
    links = [0xFF8, 0xFFF, 5, 0xFFF, 3, 0xFFF]
    packed = b"".join(
        (low | high << 12).to_bytes(3, "little") for low, high in zip(links[::2], links[1::2], strict=True)
    )
    sectors = [image[at : at + SECTOR] for at in range(40 * SECTOR, 44 * SECTOR, SECTOR)]
    mixed = b"".join(sectors[number] for number in (0, 3, 2, 1))
    image = changed(changed(image, 512, packed), 40 * SECTOR, mixed)
    a, b = image[ROOT + 32 : ROOT + 64], bytearray(image[ROOT + 64 : ROOT + 96])
    b[12] = 0x08
    return changed(image, ROOT + 32, a + b"\xe5" + a[1:] + bytes(b))


def test_files_in_pieces_deleted_ones_and_small_letters():
    image = in_pieces()
    assert read(image) == {"A": FILES["A"], "b": FILES["B"]}
    with pytest.raises(Fat12Error, match="A lies in pieces"):
        locate(image, "A")


def test_a_long_name_of_another_entry_is_not_taken():
    image = bytearray(volume({"longer.name.txt": b"1"}))
    assert image[ROOT + 32 + 11] == 0x0F
    image[ROOT + 32 + 13] ^= 1  # checksum
    assert list(read(bytes(image))) == ["LONGER~1.TXT"]


# --- the tools that everybody has -------------------------------------------------------------------------------------


needs_tools = pytest.mark.skipif(
    not all(
        shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for tool in ("fsck.fat", "mkfs.fat", "mcopy")
    ),
    reason="no fsck.fat, mkfs.fat and mcopy: apt install dosfstools mtools",
)
ENVIRONMENT = os.environ | {
    "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    "LC_ALL": "C.UTF-8",
    "MTOOLSRC": os.devnull,
}
ABOUT_THE_LABEL = (  # CircuitPython names the volume in the root only
    "There is no label in boot sector, but there is volume label 'CIRCUITPY' stored in root directory",
    "  Auto-copying volume label from root directory to boot sector.",
)


def tool(*command):
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False, text=True)


def complaints(image):
    """What fsck.fat says beyond what it says of every volume."""
    _, *lines = tool("fsck.fat", "-n", str(image)).stdout.splitlines()
    silent = ("", "Leaving filesystem unchanged.", *ABOUT_THE_LABEL)
    return [line for line in lines if line not in silent and not line.startswith(f"{image}: ")]


def extracted(image, folder):
    """All files and empty folders, by mcopy."""
    folder.mkdir()
    run = tool("mcopy", "-s", "-n", "-i", str(image), "::*", str(folder))
    assert (run.returncode, run.stderr) == (0, "")
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            found[name] = path.read_bytes()
        elif not any(path.iterdir()):
            found[name + "/"] = b""
    return found


@needs_tools
@pytest.mark.parametrize("trimmed", [False, True])
def test_fsck_has_nothing_to_say_and_mtools_reads_every_file(tmp_path, trimmed):
    image, files = tmp_path / "image", {path: content for path, content in TREE.items() if "😀" not in path}
    data = volume(files, last=ERASED)
    image.write_bytes(data.rstrip(b"\xff").ljust(len(data), b"\xff") if trimmed else data)
    assert complaints(image) == []
    assert extracted(image, tmp_path / "out") == files | ERASED
    assert "Volume in drive : is CIRCUITPY" in tool("mdir", "-i", str(image), "::").stdout


@needs_tools
def test_fsck_would_have_something_to_say(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(in_pieces())
    assert complaints(image) == []
    image.write_bytes(changed(volume(FILES), 512 + 3, b"\x04\xf0"))
    assert complaints(image) != []


@needs_tools
@settings(max_examples=15)
@given(trees("abcXYZ019 ._-~+éß→"))  # mtools has no letters of two units
def test_fsck_and_mtools_agree_on_any_tree(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("tree")
    (folder / "image").write_bytes(written(files))
    assert complaints(folder / "image") == []
    assert extracted(folder / "image", folder / "out") == files


@needs_tools
@pytest.mark.parametrize(
    "arguments", [["-s", "2", "-f", "2"], ["-s", "1", "-f", "1", "-R", "4", "-r", "224"], ["-S", "1024"]]
)
def test_volumes_of_mkfs_and_mtools_are_read(tmp_path, arguments):
    image, kept = (
        tmp_path / "image",
        {path: content for path, content in TREE.items() if "😀" not in path and path[-1] != "/"},
    )
    assert tool("mkfs.fat", "-F", "12", *arguments, "-C", str(image), "1024").returncode == 0
    source = tmp_path / "in"
    for path, content in kept.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    assert tool("mcopy", "-s", "-i", str(image), *map(str, sorted(source.iterdir())), "::").returncode == 0
    assert tool("mdel", "-i", str(image), "::boot.py").returncode == 0
    assert tool("mcopy", "-i", str(image), str(source / "longfilename one.txt"), "::again.txt").returncode == 0
    assert read(image.read_bytes()) == {path: kept[path] for path in kept if path != "boot.py"} | {"again.txt": b"1"}
