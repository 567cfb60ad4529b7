"""Signatures: AES-128-CMAC (RFC 4493) over a frame, its first 8 bytes (docs/wire-format.md).

Frames are signed when they are sent, not when they are captured: what waits in the ring goes out under the key of
today, so that a wrong key holds windows up but never spoils one.

The key is FRAME_KEY of settings.toml. An update may wipe that, so the Notecard keeps the key as well.
"""

import struct
from binascii import crc32, unhexlify

from node.settings import is_key
from node.uplink import RefusedError

SIGNED = 16  # flag
LENGTH = 8
NOTE = "key"  # on the Notecard; main.py looks for it there
_BLOCK = 16
_PART = 256  # encrypted in one call: what the CBC mode makes of a frame is needed only at its end
_RFC_KEY = "2b7e151628aed2a6abf7158809cf4f3c"
_RFC_MESSAGE = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411"
_RFC_CMAC = "dfa66747de9ae63030ca32611497c827"

try:
    import aesio
except ImportError:
    aesio = None
try:
    import cryptolib  # pyright: ignore[reportMissingImports]  # MicroPython's
except ImportError:
    cryptolib = None


class Signer:
    """Signs frames of `device` under a key of 16 bytes; others go as they are, since the key is none of theirs."""

    def __init__(self, key, device):
        self._key = key
        self._device = device.encode()
        self._part = memoryview(bytearray(_PART))
        zero = bytearray(_BLOCK)
        _cbc(key)(bytes(_BLOCK), zero)
        self._whole = _doubled(zero)
        self._padded = _doubled(self._whole)

    def pieces(self, frames):
        """Gives the frames signed, each in three pieces: a copy of one would need as much memory again."""
        for frame in frames:
            at = frame[5]  # the header's length; the device is the first text
            if bytes(frame[at + 1 : at + 1 + frame[at]]) != self._device:
                yield frame
                continue
            flags, length = struct.unpack_from("<HI", frame, 6)
            head = bytearray(frame[:_BLOCK])
            struct.pack_into("<HI", head, 6, flags | SIGNED, length + LENGTH)
            rest = memoryview(frame)[_BLOCK : length - 4]
            tag = self.cmac(head, rest)[:LENGTH]
            crc = crc32(tag, crc32(rest, crc32(head))) & 0xFFFFFFFF
            yield head
            yield rest
            yield tag + struct.pack("<I", crc)

    def cmac(self, head, rest):
        """Of `head`, one block or nothing, and what follows it."""
        encrypt = _cbc(self._key)
        if head:
            encrypt(head, self._part[:_BLOCK])
        last = max(0, len(rest) - 1) // _BLOCK * _BLOCK
        for start in range(0, last, _PART):
            end = min(start + _PART, last)
            encrypt(rest[start:end], self._part[: end - start])
        block = bytearray(rest[last:])
        subkey = self._whole
        if len(block) < _BLOCK:
            subkey = self._padded
            block += b"\x80" + bytes(_BLOCK - 1 - len(block))
        for i in range(_BLOCK):
            block[i] ^= subkey[i]
        encrypt(block, self._part[:_BLOCK])
        return bytes(self._part[:_BLOCK])


def _cbc(key):
    """AES in CBC mode, as a function (from, to) that goes on where its last call ended."""
    if aesio:
        return aesio.AES(key, aesio.MODE_CBC, bytes(_BLOCK)).encrypt_into
    return cryptolib.aes(key, 2, bytes(_BLOCK)).encrypt  # pyright: ignore[reportOptionalMemberAccess]  # see works


def _doubled(block):
    """Twice the block in GF(2^128), as RFC 4493 makes its subkeys."""
    number = int.from_bytes(block, "big") << 1
    if number >> 128:
        number ^= 1 << 128 | 0x87
    return number.to_bytes(_BLOCK, "big")


def works():
    """Whether this runtime comes to the RFC's example: it has AES, and CBC goes on from one call to the next."""
    try:
        return Signer(unhexlify(_RFC_KEY), "").cmac(b"", unhexlify(_RFC_MESSAGE)) == unhexlify(_RFC_CMAC)
    except Exception:  # no AES, or one that is used in another way: no reason to send nothing
        return False


def find_signer(uplink, given):
    """A Signer under `given`, the setting FRAME_KEY, or under the key in the Notecard; None when frames go unsigned.

    What is wrong is added to the uplink's complaints. Raises LinkError when the Notecard does not answer: to go on
    without a key that it may hold would have the server refuse every window.
    """
    if not works():
        if given:
            uplink.complaints.append("FRAME_KEY is set, but this runtime has no AES that works: frames go unsigned")
        return None
    key = _kept(uplink, given.lower())
    return Signer(unhexlify(key), uplink.device) if key else None


def _kept(uplink, given):
    """The key to use, once the Notecard has it too."""
    held = _held(uplink)
    if not given or given == held:
        return held
    try:
        uplink.keep_note(NOTE, {"key": given})
    except RefusedError as error:
        uplink.complaints.append("%s: FRAME_KEY has to be set again after an update that wipes settings.toml" % error)
    return given


def _held(uplink):
    """The key in the Notecard; empty when it has none."""
    try:
        key = uplink.note(NOTE)["key"]
        return key if is_key(key) else ""
    except (KeyError, TypeError):
        return ""
