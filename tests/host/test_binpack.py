"""Binpacks: written and read back, those of others too; whatever is damaged is said to be."""

import hashlib
import re
import struct
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cramjam import snappy as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from judder.binpack import MARKER, Binpack, BinpackError, Part, pack, read_header, unpack

WHEN = datetime(2026, 5, 4, 12, 0, 1, tzinfo=UTC)
PACK = Binpack(
    WHEN,
    "stm32",
    [
        Part("interpreter", 0x08010000, bytes(range(256)) * 100, 25_600),
        Part("filesystem", 0x08100000, hashlib.shake_128(b"noise").digest(9000), 9000),
    ],
    MARKER + '{"version":"2.1.0"}',
)
GOLDEN = "25850fc3b71b613fddd7ee229cbcc1cffd8a5b738bb12cde1a481476a52186ea"  # SHA-256


def md5(data):
    return hashlib.md5(data).hexdigest()


def headed(lines, body=b""):
    """A pack as its text lines say."""
    return "".join(f"{line}\n" for line in ("/// BINPACK ///", *lines, "/// BINPACK ///")).encode() + b"\0" + body


def framed(data, *, stored=False):
    """Frames as another packer would make them."""
    frames = []
    for at in range(0, len(data), 8192):
        frame = data[at : at + 8192]
        block = bytes(reference.compress_raw(frame))
        is_stored = stored or len(block) >= len(frame)
        frames.append(
            struct.pack("<I", 1 << 31 | len(frame)) + frame if is_stored else struct.pack("<I", len(block)) + block
        )
    return b"".join(frames)


def load(name, address, data, packed):
    return f"LOAD: {name},{address},{len(data)},{len(data)},{len(packed)},{md5(data)}"


# --- our own ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=300).map(lambda some: some * 60), max_size=3, min_size=1))
def test_what_is_packed_comes_back(contents):
    parts = [Part(f"part {number}", number << 20, content) for number, content in enumerate(contents)]
    packed = pack(Binpack(WHEN, "stm32", parts))
    assert unpack(packed) == Binpack(WHEN, "stm32", [replace(part, region=len(part.data)) for part in parts])


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 16384, 30_000])
def test_sizes_around_a_frame(size):
    data = hashlib.shake_128(b"any").digest(size)
    binpack = Binpack(WHEN, "stm32", [Part("a", 0, data, 7)], "")
    packed = pack(binpack)
    assert unpack(packed) == binpack
    header = read_header(packed)
    assert header.loads[0].packed_bytes == size + 4 * -(-size // 8192)  # noise is stored
    assert header.length == len(packed)


def test_the_header_is_as_notehub_reads_it():
    text, _, _ = pack(PACK).partition(b"\0")
    lines = text.decode().split("\n")
    assert lines[0] == lines[-2] == "/// BINPACK ///"
    assert lines[-1] == ""
    assert lines[1:4] == ["WHEN: 2026-05-04 12:00:01 UTC", "HOST: stm32", "SNAP: 8192"]
    data = PACK.parts[0].data
    assert re.fullmatch(f"LOAD: interpreter,134283264,25600,25600,[0-9]+,{md5(data)}", lines[4])
    assert lines[6] == 'INFO: firmware::info:{"version":"2.1.0"}'
    assert len(lines) == 9
    assert unpack(pack(PACK)) == PACK


def test_progress_and_time_zones():
    heard = []
    berlin = replace(PACK, when=WHEN.astimezone(timezone(timedelta(hours=2))))
    assert pack(berlin, lambda done, total: heard.append((done, total))) == pack(PACK)
    assert heard == sorted(heard)
    assert heard[0] == (8192, 34_600)
    assert heard[-1] == (34_600, 34_600)


def test_the_same_parts_give_the_same_bytes_for_ever():
    assert hashlib.sha256(pack(PACK)).hexdigest() == GOLDEN


@pytest.mark.parametrize(
    "binpack", [replace(PACK, info="a\nb"), replace(PACK, host="a\0"), replace(PACK, parts=[Part("\n", 0, b"")])]
)
def test_what_would_spoil_the_header_is_refused(binpack):
    with pytest.raises(BinpackError, match="control characters"):
        pack(binpack)


def test_commas_in_names_are_left_out():
    assert unpack(pack(replace(PACK, parts=[Part("a,b", 0, b"1")]))).parts[0].name == "ab"


# --- those of others --------------------------------------------------------------------------------------------------

OTHER = b"of another packer " * 2000


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("info", [[], ["INFO: firmware::info:{", '  "version": "7.3.3"', "}"]])
def test_packs_of_others(stored, info):
    frames = framed(OTHER, stored=stored)
    loads = [load("boot.bin", 1, b"tiny", framed(b"tiny")), load("app.bin", 0x8000000, OTHER, frames)]
    data = headed(
        ["WHEN: 2022-06-01 00:00:00 UTC", "HOST: nrf52840", "SNAP: 8192", *loads, *info], framed(b"tiny") + frames
    )
    found = unpack(data)
    assert (found.host, found.when.year) == ("nrf52840", 2022)
    assert [part.data for part in found.parts] == [b"tiny", OTHER]
    assert found.info == "\n".join(info).removeprefix("INFO: ")


def test_packs_of_2022_are_not_compressed_and_fill_words():
    loads = [f"LOAD: a.bin,0,5,5,{md5(b'12345')}", f"LOAD: b.bin,8,4,4,{md5(b'6789')}"]
    data = headed(["WHEN: 2022-05-01 00:00:00 UTC", "HOST: stm32", *loads], b"12345\0\0\0" + b"6789")
    assert [part.data for part in unpack(data).parts] == [b"12345", b"6789"]
    assert read_header(data).frame_bytes == 0
    with pytest.raises(BinpackError, match="its header describes"):
        unpack(data[:-1])


# --- what is damaged --------------------------------------------------------------------------------------------------

HEAD = ["WHEN: 2026-01-01 00:00:00 UTC", "HOST: stm32", "SNAP: 8192"]
TINY = load("a", 0, b"tiny", framed(b"tiny"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no binpack"),
        (b"/// BINPACK ///\n", "no binpack"),
        (b"/// BINPACK ///\nWHEN\0", "does not end with"),
        (b"/// BINPACK ///\n\xff\n/// BINPACK ///\n\0", "byte 16 of the header is no text"),
        (headed([]), "line 2 of the header is not understood"),
        (headed(HEAD), "has no line LOAD"),
        (headed(HEAD[1:]), "has no line WHEN"),
        (headed([*HEAD, "HOST: esp32", TINY]), "line 5 of the header is not understood"),
        (headed([*HEAD, "LOUD: 1", TINY]), "line 5"),
        (headed(["WHEN: yesterday", *HEAD[1:], TINY]), "'yesterday' is no time"),
        (headed([*HEAD[:2], "SNAP: 0", TINY]), "SNAP"),
        (headed([*HEAD[:2], "SNAP: x", TINY]), "SNAP: 'x'"),
        (headed([*HEAD, "LOAD: a,0,4,4," + md5(b"tiny")]), "LOAD of a has 5 fields, and 6 are due"),
        (headed([*HEAD[:2], TINY]), "LOAD of a has 6 fields, and 5 are due"),
        (headed([*HEAD, TINY[:-1]]), "no MD5"),
        (headed([*HEAD, TINY.replace(",4,8", ",-4,8")]), "LOAD of a: '-4'"),
        (headed([*HEAD, TINY.replace(",4,8", ",99999999,8")]), "no host has a flash like that"),
        (headed([*HEAD, TINY]), "its header describes"),
        (headed([*HEAD, TINY], framed(b"tiny") + b"x"), "its header describes"),
        (headed([*HEAD, TINY], framed(b"tinY")), "part a is damaged: its MD5"),
        (headed([*HEAD, TINY], struct.pack("<I", 1 << 31 | 5) + b"tiny"), "frame 0: has 5 bytes, and 4 are there"),
        (headed([*HEAD, TINY], struct.pack("<I", 4) + b"tiny"), "frame 0: the block"),
        (headed([*HEAD, load("a", 0, b"tiny!", framed(b"tiny"))], framed(b"tiny")), "holds 4 bytes, and 5 are due"),
        (
            headed([*HEAD, load("a", 0, bytes(99), framed(bytes(100)))], framed(bytes(100))),
            "says it holds 100 bytes, of at most 99",
        ),
        (headed([*HEAD, load("a", 0, b"tiny", framed(b"tiny") + bytes(4))], framed(b"tiny") + bytes(4)), "frame 1"),
        (
            headed([*HEAD, load("a", 0, b"tiny", framed(b"tiny") + b"xy")], framed(b"tiny") + b"xy"),
            "ends within its length",
        ),
        (headed([*HEAD, load("a", 0, b"tiny", b"")]), "holds 0 bytes, of 4"),
        (
            headed([*HEAD, load("a", 0, OTHER[:9000], framed(OTHER[:9000])[:-1])], framed(OTHER[:9000])[:-1]),
            "frame 1: has",
        ),
    ],
)
def test_damaged_packs(data, reason):
    with pytest.raises(BinpackError, match=reason) as error:
        unpack(data)
    assert "\n" not in str(error.value)


PACKED = pack(PACK)


@settings(max_examples=150)
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_no_flip_gives_other_contents_without_a_word(at, mask):
    """The format has no checksum over its header: what is flipped in WHEN, HOST, a name or INFO is other text.

    And a copy from another place may copy the same.
    """
    flipped = bytearray(PACKED)
    flipped[at] ^= mask
    with suppress(BinpackError):
        assert [part.data for part in unpack(bytes(flipped)).parts] == [part.data for part in PACK.parts]


@given(st.integers(0, len(PACKED) - 1))
def test_no_cut_unpacks(length):
    with pytest.raises(BinpackError):
        unpack(PACKED[:length])
