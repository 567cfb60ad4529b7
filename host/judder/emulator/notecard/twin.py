"""What Notehub holds for one Notecard, and has received from it: the other end of a sync."""

import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from judder.emulator.notecard.binary_store import md5
from judder.emulator.notecard.line import Fields

EVENTS = 10_000


@dataclass(frozen=True)
class Event:
    """A note as Notehub has received it."""

    file: str
    body: Fields | None = None
    payload: bytes = b""
    note: str = ""
    deleted: bool = False


@dataclass(frozen=True)
class Inbound:
    """A note on its way to the card; `note` is the ID in a database Notefile."""

    file: str
    body: Fields | None = None
    payload: bytes = b""
    note: str = ""


@dataclass(frozen=True)
class Firmware:
    """Host firmware offered to the card: `name` is the file's, as uploaded."""

    name: str
    data: bytes
    version: str = ""
    created_s: int = 0
    info: Fields = field(default_factory=dict)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What dfu.status tells about it."""
        return {
            "crc32": zlib.crc32(self.data),
            "created": self.created_s,
            "modified": self.created_s,
            "info": {**self.info, **({"version": self.version} if self.version else {})},
            "length": len(self.data),
            "md5": md5(self.data),
            "name": self.name,
            "source": self.name,
            "type": "firmware",
        }


class Twin:
    """Change it as somebody at Notehub would; the card hears of it at its next sync."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self._now_ns = now_ns
        self.environment: dict[str, str] = {}
        self.inbound: deque[Inbound] = deque()
        self.firmware: Firmware | None = None
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self.host_version: object = None  # as the card reported it last
        self.host_status = ""  # of the last update, as the host put it
        self.phases: list[tuple[int, str, str]] = []  # of updates: UTC in seconds, dfu.status' mode and its text
        self.waiting_since_ns: int | None = None  # since when there is something the card has not heard of

    def set_environment(self, variables: dict[str, str | None]) -> None:
        """Set variables, or take away those whose value is None."""
        for name, text in variables.items():
            self.environment.pop(name, None)
            if text is not None:
                self.environment[name] = text
        self._changed()

    def send_note(self, note: Inbound) -> None:
        """Queue a note for the card."""
        self.inbound.append(note)
        self._changed()

    def offer(self, firmware: Firmware) -> None:
        """Make it download this."""
        self.firmware = firmware
        self._changed()

    def _changed(self) -> None:
        if self.waiting_since_ns is None:
            self.waiting_since_ns = self._now_ns()
