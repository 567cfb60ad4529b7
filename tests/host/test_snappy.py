"""Snappy against cramjam's, in both directions, and every way a block can be damaged."""

import random

import pytest
from cramjam import DecompressionError
from cramjam import snappy as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from judder.snappy import SnappyError, compress, decompress

GOLDEN = [  # what any version has to make of it, or images are no longer the same
    (b"", "00"),
    (b"a", "010061"),
    (b"abcd" * 5, "140c616263643e0400"),
    (b"\xff" * 200, "c80100fffe0100fe0100fe01000d01"),
    (b"abcdefgh-abcdefg", "1020616263646566676" + "82d0d09"),
    (bytes(range(70)), "46f045" + bytes(range(70)).hex()),
]
REPETITIVE = st.lists(
    st.one_of(st.binary(max_size=40), st.builds(bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(1, 90)))
).map(b"".join)


def reference_compress(data):
    return bytes(reference.compress_raw(data))


def reference_decompress(block):
    return bytes(reference.decompress_raw(block))


@given(st.one_of(st.binary(max_size=300), REPETITIVE))
def test_each_reads_what_the_other_has_written(data):
    block = compress(data)
    assert reference_decompress(block) == data
    assert decompress(block) == data
    assert decompress(reference_compress(data)) == data


@pytest.mark.parametrize("length", [60, 61, 256, 257, 65536, 65537, 70_000])
def test_long_literals_and_far_copies(length):
    noise = random.Random(length).randbytes(length)
    data = noise + b"between" + noise[:100] + noise[-100:]
    block = compress(data)
    assert reference_decompress(block) == decompress(block) == data
    assert decompress(reference_compress(data)) == data


def test_it_compresses_no_worse_than_the_reference():
    text = b"".join(b"%d: the quick brown fox, line %d\n" % (number * number, number) for number in range(2000))
    assert len(compress(text)) <= len(reference_compress(text))
    noise = random.Random(1).randbytes(8192)
    assert len(compress(noise)) <= 8192 + 5


@pytest.mark.parametrize(("data", "block"), GOLDEN)
def test_the_same_data_give_the_same_block_for_ever(data, block):
    assert compress(data).hex() == block


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("", "its length"),
        ("ffffffffff", "its length"),
        ("8080808080", "its length"),
        ("01", "holds 0 bytes, of 1"),
        ("0100", "within an element"),
        ("010461", "within an element"),
        ("02006162", "copies|holds"),
        ("00006161", "more than its 0 bytes"),
        ("05006101", "within an element|copies"),
        ("050061010161", "holds|copies|element"),
        ("0500610100", "0 bytes back"),
        ("0500610102", "2 bytes back, and 1 are there"),
        ("05f4", "within an element"),
        ("05fcffffffff61", "within an element"),
        ("0a00610fffffffff", "bytes back"),
    ],
)
def test_damaged_blocks(block, reason):
    with pytest.raises(SnappyError, match=reason):
        decompress(bytes.fromhex(block))


def test_a_block_cannot_hold_more_than_it_may():
    block = compress(bytes(10_000))
    assert len(block) < 500
    assert decompress(block, 10_000) == bytes(10_000)
    with pytest.raises(SnappyError, match="10000 bytes, of at most 9999"):
        decompress(block, 9999)


def test_copies_of_four_bytes_and_of_less_than_four():
    """No compressor needs them, and the format has them."""
    assert decompress(bytes.fromhex("0808616263" + "0b03000000" + "0601" + "00")) == b"abcabccc"


@settings(max_examples=150)
@given(REPETITIVE, st.data())
def test_what_is_flipped_or_cut_is_an_error_or_as_the_reference_reads_it(data, drawn):
    block = bytearray(compress(data))
    at = drawn.draw(st.integers(0, len(block) - 1))
    block[at] ^= drawn.draw(st.integers(1, 255))
    block = bytes(block[: drawn.draw(st.integers(at, len(block)))])
    try:
        expected = reference_decompress(block) if block else None
    except DecompressionError:
        expected = None
    if expected is None:
        with pytest.raises(SnappyError):
            decompress(block, 1 << 20)
    else:
        assert decompress(block) == expected
