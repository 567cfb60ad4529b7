"""The device's signatures against RFC 4493 and against the host's, on CPython and on real VMs."""

import json
import shutil
import struct
from zlib import crc32

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from hypothesis import given
from hypothesis import strategies as st
from tests.frames import encode, golden, motor, window

import judder
from judder import window as host_window
from judder.board import Tree, tree
from judder.emulator.clock import VirtualClock
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import Swan, Timing
from judder.frame import HEADER
from judder.signature import Signatures, device_key
from judder.window import is_signed, unsigned_crc
from node import signature

RFC_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
RFC_MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
RFC_CMACS = {  # by length of the message: section 4
    0: "bb1d6929e95937287fa37d129b756746",
    16: "070a16b46b4d4144f79bdd9dd04a287c",
    40: "dfa66747de9ae63030ca32611497c827",
    64: "51f0bebf7e3b9d92fc49741779363cfe",
}
MASTER = bytes(range(16))
ON_VM = """
import json
from binascii import hexlify, unhexlify
from node import signature
print(json.dumps(["works", signature.works()]))
message = bytes([i * 7 & 255 for i in range(2500)])
if signature.works():
    for length in (0, 16, 40, 64):
        made = signature.Signer(unhexlify("%s"), "").cmac(b"", unhexlify("%s")[:length])
        print(json.dumps([str(length), hexlify(made).decode()]))
    signer = signature.Signer(bytes(range(16)), "")
    for length in %s:
        made = signer.cmac(message[:16], memoryview(message)[16:length])
        print(json.dumps(["n%%d" %% length, hexlify(made).decode()]))
print("end")
"""
LENGTHS = (17, 31, 32, 33, 271, 272, 273, 287, 288, 289, 528, 2400, 2401, 2415)


def cbc(key):
    """What `aesio` is on the board."""
    encryptor = Cipher(AES(key), CBC(bytes(16))).encryptor()

    def encrypt(source, target):
        assert len(source) == len(target)
        assert len(source) % 16 == 0
        target[:] = encryptor.update(bytes(source))

    return encrypt


@pytest.fixture(autouse=True, scope="module")
def _aes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signature, "_cbc", cbc)
        yield


def signed(frame, key):
    (found,) = judder.decode_frames(frame)
    return b"".join(map(bytes, signature.Signer(key, found.device).pieces([frame])))


def fault(frame, device="dev:1", **kwargs):
    return Signatures([MASTER], **kwargs).fault(device, frame)


@pytest.mark.parametrize("length", RFC_CMACS)
def test_the_rfc_s_vectors(length):
    assert signature.Signer(RFC_KEY, "").cmac(b"", RFC_MESSAGE[:length]).hex() == RFC_CMACS[length]
    if length >= 16:
        made = signature.Signer(RFC_KEY, "").cmac(RFC_MESSAGE[:16], memoryview(RFC_MESSAGE)[16:length])
        assert length == 16 or made.hex() == RFC_CMACS[length]


@given(st.integers(1, 400), st.integers(0, 40), st.binary(min_size=16, max_size=16))
def test_a_signed_frame_of_any_length_verifies_and_reads_the_same(samples, text, master):
    plain = encode(window(motor(samples), boot=3, sequence=samples), ["dev:1", "x" * text, "", "", "", ""])
    made = signed(plain, device_key(master, "dev:1"))
    assert len(made) == len(plain) + signature.LENGTH
    assert Signatures([master], required=True).fault("dev:1", made) is None
    (read,), (original,) = judder.decode(made), judder.decode(plain)
    assert read.counts.tolist() == original.counts.tolist()
    different = {name for name in vars(read) if str(getattr(read, name)) != str(getattr(original, name))}
    assert different <= {"frame"}
    assert read.crc == original.crc == unsigned_crc(plain)


@given(st.data())
def test_any_changed_byte_fails_though_the_crc_is_right(data):
    made = signed(encode(window(motor(40), boot=1), ["dev:1", "", "", "", "", ""]), device_key(MASTER, "dev:1"))
    forged = bytearray(made)
    forged[data.draw(st.integers(0, len(made) - 5))] ^= data.draw(st.integers(1, 255))
    forged[-4:] = struct.pack("<I", crc32(forged[:-4]))
    assert fault(bytes(forged), required=True)
    assert fault(made, required=True) is None


def test_frames_one_after_the_other_are_signed_each_if_they_are_of_the_key_s_device():
    plain = [bytes.fromhex(case["frame"]) for case in golden().values()]
    plain += [encode(window(motor(40), boot=1, sequence=i), ["dev:1", "", "", "", "", ""]) for i in range(3)]
    made = b"".join(map(bytes, signature.Signer(device_key(MASTER, "dev:1"), "dev:1").pieces(plain)))
    ours = [one for one in judder.decode(made) if one.device == "dev:1"]
    assert len(ours) >= 3
    assert len(made) == sum(map(len, plain)) + signature.LENGTH * len(ours)
    assert all(fault(one.frame, required=True) is None for one in ours)
    assert not [one for one in judder.decode(made) if one.device != "dev:1" and is_signed(one.frame)]


def test_the_shortest_report_can_be_signed():
    """30 bytes of header (docs/wire-format.md), six empty texts, no JSON."""
    header = struct.pack("<4sBBHIIIQH", b"VR\xc1\x7f", 1, 30, 0, 40, 7, 1 << 31, 0, 6) + bytes(6)
    plain = header + struct.pack("<I", crc32(header))
    made = b"".join(map(bytes, signature.Signer(device_key(MASTER, ""), "").pieces([plain])))
    assert fault(made, "") is None
    assert is_signed(made)
    assert not is_signed(plain)
    assert unsigned_crc(made) == crc32(header) == unsigned_crc(plain)


def test_either_of_two_master_keys_will_do():
    frame = encode(window(motor(8)), ["dev:1", "", "", "", "", ""])
    both = Signatures([bytes(16), MASTER])
    assert both.fault("dev:1", signed(frame, device_key(MASTER, "dev:1"))) is None
    assert both.fault("dev:1", signed(frame, device_key(bytes(16), "dev:1"))) is None
    assert "not that of 'dev:1'" in both.fault("dev:1", signed(frame, bytes(range(1, 17))))
    assert "not that of 'dev:2'" in both.fault("dev:2", signed(frame, device_key(MASTER, "dev:1")))


def test_without_a_master_key_signed_frames_are_taken_unread():
    frame = encode(window(motor(8)))
    assert Signatures().fault("", signed(frame, bytes(16))) is None
    assert Signatures().fault("", frame) is None


def test_both_sides_agree():
    assert (signature.SIGNED, signature.LENGTH) == (host_window.SIGNED, host_window.SIGNATURE_BYTES)
    assert HEADER.size >= 16  # flags and length lie in the first block


@pytest.mark.parametrize("name", RUNTIMES)
def test_vms_come_to_the_same(name, tmp_path):
    try:
        runtime = RUNTIMES[name]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    device = tmp_path / "device"
    shutil.copytree(tree().device, device)
    (device / "main.py").write_text(ON_VM % (RFC_KEY.hex(), RFC_MESSAGE.hex(), LENGTHS))
    clock = VirtualClock()
    firmware = Tree(device, tree().boot)
    with Swan(clock, I2CBus(clock), timing=Timing(stall_probability=0), firmware=firmware, runtime=runtime) as swan:
        swan.run(lambda: "end" in swan.lines)
    found = dict(json.loads(line) for line in swan.lines if line.startswith("["))
    if name == "wasm":  # has no AES
        assert found == {"works": False}
        return
    message = bytes([i * 7 & 255 for i in range(2500)])
    ours = signature.Signer(bytes(range(16)), "")
    expected = {f"n{length}": ours.cmac(b"", message[:length]).hex() for length in LENGTHS}
    assert found == {"works": True, **{str(length): mac for length, mac in RFC_CMACS.items()}, **expected}
