"""COBS as the Notecard wants it, against an independent implementation and against note-python's own."""

import importlib.util

import pytest
from cobs import cobs as reference
from hypothesis import given
from hypothesis import strategies as st

from judder.board import tree
from node import cobs


def note_python():
    path = tree().device / "lib" / "notecard" / "cobs.py"
    spec = importlib.util.spec_from_file_location("note_python_cobs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def encoded(data):
    out = bytearray(cobs.max_length(len(data)))
    return bytes(out[: cobs.encode(data, out)])


# runs around the block length, zeros at both ends, and the byte that becomes a newline
lengths = st.sampled_from([0, 1, 2, 253, 254, 255, 256, 507, 508, 509, 1024])
data = st.binary(max_size=600) | lengths.map(lambda n: b"\x01" * n) | lengths.map(lambda n: bytes(n) + b"\n" * n)


@given(data)
def test_it_is_cobs_with_every_byte_xored_and_a_newline_behind(body):
    packet = encoded(body)
    assert packet[-1:] == b"\n"
    assert b"\n" not in packet[:-1]
    assert reference.decode(bytes(byte ^ 0x0A for byte in packet[:-1])) == body
    assert len(packet) <= cobs.max_length(len(body))


@given(data)
def test_it_is_note_python_s_own_encoding(body):
    theirs = note_python()
    assert encoded(body) == bytes(theirs.cobs_encode(bytearray(body), 0x0A)) + b"\n"
    assert bytes(theirs.cobs_decode(bytearray(encoded(body)[:-1]), 0x0A)) == body


def test_too_little_room_is_an_error():
    with pytest.raises(ValueError, match="room"):
        cobs.encode(b"abc", bytearray(4))
