"""Signatures of frames: AES-128-CMAC under a key for each device (docs/wire-format.md).

A device's key is the CMAC of its DeviceUID under the server's one master key, so that no list of keys has to be kept.
"""

import hmac
import secrets
from collections.abc import Iterable

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from judder.window import SIGNATURE_BYTES, is_signed

KEY_BYTES = 16
_END = SIGNATURE_BYTES + 4  # signature and CRC


class Signatures:
    """What frames are held to. Those that are signed have to be so under one of the master keys, if there are any."""

    def __init__(self, master_keys: Iterable[bytes] = (), *, required: bool = False) -> None:
        self._master_keys = tuple(master_keys)
        self.required = required

    def fault(self, device: str, frame: bytes) -> str | None:
        """Why `frame` is not taken for one of `device`; None when it is."""
        if not is_signed(frame):
            return f"{device!r} has not signed it: set FRAME_KEY on the board" if self.required else None
        given = frame[-_END:-4]
        right = [hmac.compare_digest(given, signature(device_key(key, device), frame)) for key in self._master_keys]
        if any(right) or not right:
            return None
        return f"the signature is not that of {device!r}: set FRAME_KEY on the board to what `judder key` prints"


def device_key(master_key: bytes, device: str) -> bytes:
    """The key of the device with this DeviceUID."""
    return _cmac(master_key, device.encode())


def signature(key: bytes, frame: bytes) -> bytes:
    """What a signed frame's signature has to be."""
    return _cmac(key, frame[:-_END])[:SIGNATURE_BYTES]


def new_master_key() -> bytes:
    """One that nobody can guess."""
    return secrets.token_bytes(KEY_BYTES)


def _cmac(key: bytes, message: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(message)
    return mac.finalize()
