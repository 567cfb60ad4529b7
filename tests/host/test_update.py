"""The update file, and what a release takes for what."""

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleet import binpack, model_file

from judder.artefact import MOST_BYTES, ArtefactError, recognise
from judder.update import HEADER, LEAD, VERSION_BYTES, Kind, Update, UpdateError

VERSIONS = st.text("0aZ.-+ \u00e9\u2713", min_size=1, max_size=VERSION_BYTES).filter(
    lambda text: len(text.encode()) <= VERSION_BYTES
)


@given(st.sampled_from(Kind), VERSIONS, st.binary(max_size=100))
def test_what_was_written_is_read(kind, version, content):
    update = Update(kind, version, content)
    data = update.to_bytes()
    assert len(data) == len(LEAD) + 64 + len(content)
    assert Update.parse(data) == update


def test_the_layout_is_as_documented():
    data = Update(Kind.MODEL, "5b1f00c2", b"abc").to_bytes()
    lead = b"/// BINPACK ///\nHOST: judder\n/// BINPACK ///\n\0"
    head = b"\x56\x55\xc1\x7f" + b"\x01\x01" + b"\x40\x00" + b"\x03\0\0\0" + struct.pack("<I", crc32(b"abc"))
    head += b"5b1f00c2" + bytes(36)
    assert data == lead + head + struct.pack("<I", crc32(head)) + b"abc"


def test_any_flipped_bit_is_found():
    data = Update(Kind.CODE, "1.2.3", b"content").to_bytes()
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UpdateError):
            Update.parse(bytes(damaged))


def test_any_missing_or_additional_byte_is_found():
    data = Update(Kind.CODE, "1.2.3", b"content").to_bytes()
    for other in (*(data[:length] for length in range(len(data))), data + b"\0"):
        with pytest.raises(UpdateError):
            Update.parse(other)


@pytest.mark.parametrize("version", ["", "x" * 45, "\u00e9" * 23, "a\nb", "a\0b"])
def test_versions_that_do_not_fit(version):
    with pytest.raises(UpdateError, match="printable"):
        Update(Kind.CODE, version, b"")


def sealed(*members):
    head = HEADER.pack(*members, 0)[:-4]
    return LEAD + head + struct.pack("<I", crc32(head))


def test_headers_of_other_times():
    for members, why in (
        ((b"VU\xc1\x7f", 2, 1, 64, 0, 0, b"1"), "version 2"),
        ((b"VU\xc1\x7f", 1, 3, 64, 0, 0, b"1"), "no version of ours means"),
        ((b"VU\xc1\x7f", 1, 1, 64, 0, 0, b"\xff"), "no version of ours means"),
        ((b"VU\xc1\x7f", 1, 1, 68, 0, 0, b"1"), "not known"),
    ):
        with pytest.raises(UpdateError, match=why):
            Update.parse(sealed(*members))


# --- artefacts --------------------------------------------------------------------------------------------------------


def test_a_binpack_says_its_version():
    found = recognise(binpack("2.1.0"))
    assert (found.version, found.suffix, found.model, found.data) == ("2.1.0", ".binpack", "", binpack("2.1.0"))
    assert recognise(binpack("2.1.0"), "2.1.0") == found
    assert recognise(binpack(info=False), "7").version == "7"


def test_a_bare_model_becomes_an_update_file():
    model = model_file(3)
    found = recognise(model)
    assert found.suffix == ".judder"
    assert found.version == found.model == f"{struct.unpack('<I', model[-4:])[0]:08x}"
    assert Update.parse(found.data) == Update(Kind.MODEL, found.model, model)
    assert recognise(found.data) == found


def test_an_update_of_code_is_what_it_says():
    data = Update(Kind.CODE, "3.0", b"files").to_bytes()
    found = recognise(data)
    assert (found.version, found.suffix, found.model, found.data) == ("3.0", ".judder", "", data)
    assert len(found.md5) == 32


@pytest.mark.parametrize(
    ("data", "version", "why"),
    [
        (b"", None, "no file that boards take"),
        (b"PK\x03\x04", None, "no file that boards take"),
        (b"/// BINPACK /// of old", "1", "no file that boards take"),
        (binpack(info=False), None, "give --version"),
        (binpack("1"), "2", "boards will report that"),
        (b"/// BINPACK ///\nINFO: firmware::info:{\n\0", None, "give --version"),
        (b"/// BINPACK ///\nINFO: firmware::info:{1}\n\0", None, "names no version"),
        (model_file()[:-1] + b"x", None, "damaged"),
        (b"VM\xc1\x7f", None, "damaged"),
        (Update(Kind.CODE, "1", b"").to_bytes()[:-1] + b"x", None, "damaged"),
        (Update(Kind.CODE, "1", b"").to_bytes(), "2", "leave --version"),
        (Update(Kind.MODEL, "00000000", model_file()).to_bytes(), None, "holds something else"),
        (Update(Kind.MODEL, "00000000", b"code").to_bytes(), None, "holds something else"),
        (bytes(MOST_BYTES + 1), None, "too many"),
    ],
)
def test_what_is_refused(data, version, why):
    with pytest.raises(ArtefactError, match=why) as raised:
        recognise(data, version)
    assert "\n" not in str(raised.value)
