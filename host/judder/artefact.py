"""What a release brings to boards, told from the first bytes of a file: an image, or an update of model or code."""

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from zlib import crc32

from judder.binpack import MARKER, is_binpack
from judder.code import ENDING
from judder.inspection import NOTECARDS
from judder.update import Kind, Update, UpdateError, is_update

MODEL = b"VM\xc1\x7f"
"""Of a bare model file (judder.model.file, which would bring numpy and more)."""
MOST_BYTES = NOTECARDS["cellular"]
_INFO = re.compile(rb"^INFO: %s(\{.*\})\r?$" % MARKER.encode(), re.MULTILINE)
_HEAD_BYTES = 65536


class ArtefactError(ValueError):
    """A file that no board takes, in a line."""


@dataclass(frozen=True)
class Artefact:
    """`data` is what Notehub is to keep, under a name that ends in `suffix`. `model`: its id, "" for code."""

    data: bytes
    version: str
    suffix: str
    model: str = ""

    @property
    def md5(self) -> str:
        """In hex, as Notehub tells it of a file."""
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


def recognise(data: bytes, version: str | None = None) -> Artefact:
    """What the content of a file is. `version` goes with a binpack that does not say. Raises ArtefactError."""
    if len(data) > MOST_BYTES:
        raise ArtefactError(f"{len(data)} bytes are too many: a Notecard takes up to {MOST_BYTES}")
    if is_update(data):
        return _of_update(data, version)
    if is_binpack(data):
        return Artefact(data, _version_of_binpack(data, version), ".binpack")
    if data.startswith(MODEL):
        return _of_update(_wrapped(data), version)
    raise ArtefactError(
        "no file that boards take: give a binpack of judder image build, an update file, or a model of judder model"
    )


def _version_of_binpack(data: bytes, asked: str | None) -> str:
    """Notehub tells it from the same line."""
    head = data[:_HEAD_BYTES].partition(b"\0")[0]
    said = ""
    if found := _INFO.search(head):
        try:
            said = str(json.loads(found[1])["version"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ArtefactError("the line INFO of the binpack names no version: build it again") from None
    if asked and said and asked != said:
        raise ArtefactError(f"the binpack is version {said}, boards will report that: leave --version {asked} out")
    if not (said or asked):
        raise ArtefactError("the binpack does not say its version: give --version as its firmware reports it")
    return said or asked or ""


def _of_update(data: bytes, asked: str | None) -> Artefact:
    try:
        update = Update.parse(data)
    except UpdateError as error:
        raise ArtefactError(str(error)) from None
    if asked and asked != update.version:
        raise ArtefactError(f"the file is version {update.version}: leave --version {asked} out")
    if update.kind is Kind.CODE:
        return Artefact(data, update.version, ENDING)
    if update.content[:4] != MODEL or update.version != _model_id(update.content):
        raise ArtefactError(f"the update file says model {update.version} and holds something else: build it again")
    return Artefact(data, update.version, ENDING, update.version)


def _wrapped(model: bytes) -> bytes:
    """As an update file; only a whole model."""
    if len(model) < 8 or crc32(model[:-4]) != struct.unpack_from("<I", model, len(model) - 4)[0]:
        raise ArtefactError("the model file is damaged: its CRC-32 is wrong")
    return Update(Kind.MODEL, _model_id(model), model).to_bytes()


def _model_id(model: bytes) -> str:
    return f"{struct.unpack_from('<I', model, len(model) - 4)[0]:08x}" if len(model) >= 8 else ""
