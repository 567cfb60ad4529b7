"""One line of the Notecard's protocol: a JSON request in, a JSON reply out, each with an optional checksum.

The checksum is the object's last member, `"crc":"SSSS:CCCCCCCC"`: a sequence number and the CRC-32 of the JSON text
without it (note-c:n_request.c, note-python:notecard/notecard.py). The Notecard echoes four digits of the sequence
number [unverified against hardware; note-c formats four].
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]

ECHO_DIGITS = 4
OBJECT_LIMIT = 8192  # bytes of one JSON object (dev.blues.io, Notecard interfaces)

_CRC = re.compile(rb'[ ,]?"crc":"([0-9A-Fa-f]{1,8}):([0-9A-Fa-f]{8})"\s*}\s*$')
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class CardError(Exception):
    """Answered with `{"err": message}`; `also` are further members of that reply."""

    def __init__(self, message: str, **also: object) -> None:
        super().__init__(message)
        self.also = also


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came in. `crc` is what identifies a repetition; `intact` is False when it does not fit."""

    name: str
    fields: Fields
    wants_reply: bool
    sequence: str | None = None
    crc: tuple[str, str] | None = None
    intact: bool = True


def parse(line: bytes, *, checksums: bool = True, echo_digits: int = ECHO_DIGITS) -> Request:
    """The request in one line. Raises CardError when the line is no JSON object.

    `echo_digits` of the sequence number come back with the reply.
    """
    try:
        fields = json.loads(line, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise CardError("request is not a JSON object {io}")
    wants_reply = "req" in fields or "cmd" not in fields
    name = fields.get("req", fields.get("cmd"))
    name = name if isinstance(name, str) else ""
    if not checksums or "crc" not in fields:
        return Request(name, fields, wants_reply)
    match = _CRC.search(line)
    if match is None:
        return Request(name, fields, wants_reply, intact=False)
    digits, crc = match[1].decode(), match[2].decode().upper()
    intact = int(crc, 16) == zlib.crc32(line[: match.start()] + b"}")
    sequence = f"{int(digits, 16):04X}"[-echo_digits:]
    return Request(name, fields, wants_reply, sequence, (digits, crc), intact)


def seal(reply: Mapping[str, object], sequence: str | None) -> bytes:
    """The reply as a line, with a checksum when the request had one. Raises CardError as `encode` does."""
    text = encode(reply)
    if sequence is None:
        return text + b"\r\n"
    # a space stands for the comma that an empty object has no use for: note-c looks for the member from there
    comma = b"," if reply else b" "
    return text[:-1] + comma + f'"crc":"{sequence}:{zlib.crc32(text):08X}"}}\r\n'.encode()


def encode(value: object) -> bytes:
    """Compact JSON. Raises CardError for 1e999 and its like, and for what is nested too deep."""
    try:
        return _ENCODER.encode(value).encode()
    except (ValueError, RecursionError):
        raise CardError("a member has no form in JSON {syntax}") from None


def decode_payload(text: str, token: str = "") -> bytes:
    """A `payload` member. Raises CardError, with a token for the client, when it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CardError(f"payload: must be base64 {token}".rstrip()) from None


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise CardError(f"{text} is beyond what a number can be {{syntax}}")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)
