"""What happens to a card over time, read from a file of JSON lines.

Each line has `at_s`, seconds from the start, and one of `"offline_s": 60` (no network for so long), `"environment":
{"name": "text or null"}`, `"note": {"file": "x.qi", "body": {}, "payload": "base64"}`, `"signal": {}`, `"firmware":
"file"` (with `"version"`), `"brown_out": true`.
"""

import base64
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    FilePath,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from judder.emulator.notecard.card import Notecard
from judder.emulator.notecard.line import CardError
from judder.emulator.notecard.notefiles import DATABASES, INBOUND, check_name
from judder.emulator.notecard.twin import Firmware, Inbound

LONGEST_S = 10 * 366 * 86400.0
_KINDS = ("offline_s", "environment", "note", "signal", "firmware", "brown_out")


class ScriptError(ValueError):
    """A line that says nothing we could do; the message names file and line."""


def _inbound(name: str) -> str:
    try:
        check_name(name, INBOUND + DATABASES)
    except CardError as error:
        raise ValueError(str(error)) from None
    return name


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise ValueError("must be base64") from None


class NoteStep(BaseModel, extra="forbid"):
    """A note from Notehub; `note` is its ID in a database Notefile."""

    file: Annotated[str, AfterValidator(_inbound)]
    body: dict[str, Any] | None = None
    payload: Annotated[bytes, BeforeValidator(_decoded)] = b""
    note: str = ""


class Step(BaseModel, extra="forbid"):
    """One line."""

    at_s: float = Field(ge=0, le=LONGEST_S)
    offline_s: float | None = Field(default=None, gt=0, le=LONGEST_S)
    environment: dict[str, str | None] | None = None
    note: NoteStep | None = None
    signal: dict[str, Any] | None = None
    firmware: FilePath | None = None
    version: str = ""
    brown_out: bool | None = None
    _image: bytes = PrivateAttr(default=b"")

    def model_post_init(self, context: object) -> None:
        """Read what will be needed later, while somebody is there to be told that it cannot be read."""
        if self.firmware is not None:
            self._image = self.firmware.read_bytes()

    @model_validator(mode="after")
    def _one_kind(self) -> "Step":
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise ValueError(f"needs exactly one of {', '.join(_KINDS)}")
        return self

    def happen(self, card: Notecard) -> None:
        """Do it now."""
        if self.offline_s is not None:
            now_ns = card.agenda.now_ns()
            card.link.outages.append((now_ns, now_ns + round(self.offline_s * 1e9)))
        elif self.environment is not None:
            card.twin.set_environment(self.environment)
        elif self.note is not None:
            card.twin.send_note(Inbound(self.note.file, self.note.body, self.note.payload, self.note.note))
        elif self.signal is not None:
            card.signal(self.signal)
        elif self.firmware is not None:
            card.twin.offer(Firmware(self.firmware.name, self._image, self.version))
        else:
            card.brown_out()


def load(path: Path) -> list[Step]:
    """Read a script. Raises ScriptError, OSError."""
    steps = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            steps.append(Step.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ScriptError(f"{path}, line {number}: {where + ': ' if where else ''}{first['msg']}") from None
    return steps


def run(steps: list[Step], card: Notecard) -> None:
    """Put the steps on the card's agenda, counted from now."""
    for step in steps:
        card.agenda.at(card.agenda.now_ns() + round(step.at_s * 1e9), partial(Step.happen, step))
