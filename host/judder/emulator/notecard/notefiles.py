"""Notes on the card: queues out and in, databases, and who has seen which change.

Documents: Notecard API, note and file requests; the name's ending says what kind of Notefile it is. Assumed: wording
of errors, how many bytes a template takes (its fields' types and a flags word), that syncing empties outbound queues.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from judder.emulator.notecard.line import CardError, Fields
from judder.emulator.notecard.twin import Event, Inbound

OUTBOUND = (".qo", ".qos")
INBOUND = (".qi", ".qis")
DATABASES = (".db", ".dbs", ".dbx")
LOCAL = ".dbx"
NOTES = 10_000  # assumed
TRACKERS = 100
PAYLOAD_LIMIT = 256  # bytes; notecard-schema:note.add.req

_HEADER_BYTES = 5  # of a record: flags and length


@dataclass
class Note:
    """One note; `pending` until Notehub has it, `changed` orders it among all changes on the card."""

    body: Fields | None
    payload: bytes
    time_s: int
    changed: int
    pending: bool


@dataclass
class Notefile:
    """Notes by ID, in order of arrival."""

    name: str
    notes: dict[str, Note] = field(default_factory=dict)
    template: Fields | None = None
    deleted: list[str] = field(default_factory=list)  # notes of a database that Notehub still has

    def pending(self) -> int:
        """How many changes Notehub has not heard of."""
        return sum(note.pending for note in self.notes.values()) + len(self.deleted)


class Notefiles:
    """All of them. Errors are CardErrors that name the member."""

    def __init__(self) -> None:
        self.files: dict[str, Notefile] = {}
        self._trackers: dict[str, dict[str, int]] = {}
        self._changes = itertools.count(1)
        self._ids = itertools.count(1)

    def file(self, name: str, endings: tuple[str, ...]) -> Notefile:
        """The Notefile; made if need be. Its name has to end in one of `endings`."""
        check_name(name, endings)
        return self.files.setdefault(name, Notefile(name))

    def held(self, name: str) -> Notefile:
        """As `file`, but it has to exist."""
        if name not in self.files:
            raise CardError(f"file: there is no {name} {{notefile-noexist}}")
        return self.files[name]

    def add(self, name: str, note_id: str, body: Fields | None, payload: bytes, time_s: int, most: int) -> str:
        """Add a note of the host's; returns its ID. `most`: how many the Notefile may hold, 0 for any."""
        notefile = self.file(name, OUTBOUND + DATABASES)
        if name.endswith(DATABASES) and not note_id:
            raise CardError(f"note: required for {name}, a database Notefile")
        if name.endswith(OUTBOUND) and note_id:
            raise CardError(f"note: cannot be given for {name}, a queue")
        if note_id in notefile.notes:
            raise CardError(f"note: there is a {note_id} already {{note-exists}}")
        if sum(len(one.notes) for one in self.files.values()) >= NOTES:
            raise CardError(f"file: the card holds {NOTES} notes {{too-many-notes}}")
        if most and len(notefile.notes) >= most:
            raise CardError(f"max: {name} holds {len(notefile.notes)} notes {{too-many-notes}}")
        if note_id in ("", "?"):
            note_id = self._new_id()
        _check_template(notefile.template, body)
        self._put(notefile, note_id, body, payload, time_s, pending=not name.endswith(LOCAL))
        return note_id

    def update(self, name: str, note_id: str, body: Fields | None, payload: bytes, time_s: int) -> None:
        """Replace a note of a database; made if need be."""
        notefile = self.file(name, DATABASES)
        self._put(notefile, note_id, body, payload, time_s, pending=not name.endswith(LOCAL))

    def delete(self, name: str, note_id: str) -> None:
        """Delete a note."""
        notefile = self.held(name)
        if notefile.notes.pop(note_id, None) is None:
            raise CardError(f"note: there is no {note_id} in {name} {{note-noexist}}")
        if name.endswith((".db", ".dbs")):
            notefile.deleted.append(note_id)

    def oldest(self, name: str) -> str:
        """The ID of the note that has waited longest in an inbound queue."""
        check_name(name, INBOUND)
        notefile = self.files.get(name)
        if notefile is None or not notefile.notes:
            raise CardError("no notes available in queue {note-noexist}")
        return next(iter(notefile.notes))

    def receive(self, inbound: Inbound, time_s: int) -> None:
        """A note from Notehub."""
        notefile = self.file(inbound.file, INBOUND + DATABASES)
        note_id = inbound.note or self._new_id()
        self._put(notefile, note_id, inbound.body, inbound.payload, time_s, pending=False)

    def sync(self) -> list[Event]:
        """What Notehub is told; queues are empty afterwards."""
        events = []
        for notefile in self.files.values():
            events += [Event(notefile.name, note=note_id, deleted=True) for note_id in notefile.deleted]
            notefile.deleted.clear()
            for note_id, note in list(notefile.notes.items()):
                if not note.pending:
                    continue
                queue = notefile.name.endswith(OUTBOUND)
                events.append(Event(notefile.name, note.body, note.payload, "" if queue else note_id))
                note.pending = False
                if queue:
                    del notefile.notes[note_id]
        return events

    def pending(self) -> int:
        """How many changes Notehub has not heard of."""
        return sum(notefile.pending() for notefile in self.files.values())

    def named(self, names: Iterable[str] | None) -> list[Notefile]:
        """Those of `names` that exist; all when there are no names."""
        return [notefile for name, notefile in self.files.items() if names is None or name in names]

    def unseen(self, tracker: str, notefile: Notefile) -> dict[str, Note]:
        """What has changed in a Notefile since `tracker` last looked; everything without one."""
        seen = self._trackers.get(tracker, {}).get(notefile.name, 0)
        return {note_id: note for note_id, note in notefile.notes.items() if note.changed > seen}

    def look(self, tracker: str, notefile: Notefile, notes: Mapping[str, Note]) -> None:
        """Remember that `tracker` has seen these."""
        if tracker:
            if len(self._trackers) >= TRACKERS and tracker not in self._trackers:
                del self._trackers[next(iter(self._trackers))]
            seen = self._trackers.setdefault(tracker, {})
            last = max((note.changed for note in notes.values()), default=0)
            seen[notefile.name] = max(seen.get(notefile.name, 0), last)

    def forget(self, tracker: str) -> None:
        """Start a tracker anew."""
        self._trackers.pop(tracker, None)

    def _put(
        self, notefile: Notefile, note_id: str, body: Fields | None, payload: bytes, time_s: int, *, pending: bool
    ) -> None:
        notefile.notes[note_id] = Note(body, payload, time_s, next(self._changes), pending)

    def _new_id(self) -> str:
        return f"{next(self._ids)}:{next(self._changes)}"


def check_name(name: str, endings: tuple[str, ...]) -> None:
    """Raises CardError when a Notefile's name has another ending."""
    if not name.endswith(endings):
        raise CardError(f"file: {name} must end in one of {', '.join(endings)} {{notefile-bad-name}}")


def template_bytes(body: Mapping[str, object]) -> int:
    """Bytes of a record made by this template. Raises CardError for a hint that is none (dev.blues.io, low bandwidth).

    Booleans take 1 byte; 11 to 14, 18 and 21 to 24 are integers of 1 to 4 or 8 bytes; 12.1, 14.1 and 18.1 are floats
    of 2, 4 and 8; strings take their length, or the number they spell.
    """
    try:
        return _HEADER_BYTES + sum(_hint_bytes(name, hint) for name, hint in body.items())
    except RecursionError:
        raise CardError("body: nested too deep {template-incompatible}") from None


def _hint_bytes(name: str, hint: object) -> int:
    if isinstance(hint, bool):
        return 1
    if isinstance(hint, int) and hint % 10 in (1, 2, 3, 4, 8) and hint // 10 in (1, 2):
        return hint % 10
    if isinstance(hint, float) and hint in (12.1, 14.1, 18.1):
        return int(hint) - 10
    if isinstance(hint, str):
        return int(hint) if hint.isdecimal() and len(hint) <= 4 else len(hint)
    if isinstance(hint, dict):
        return sum(_hint_bytes(f"{name}.{inner}", value) for inner, value in hint.items())
    if isinstance(hint, list):
        return sum(_hint_bytes(name, value) for value in hint)
    raise CardError(f"body: {name} is no type hint {{template-incompatible}}")


def _check_template(template: Fields | None, body: Fields | None) -> None:
    if template is None or body is None:
        return
    for name, value in body.items():
        if name not in template:
            raise CardError(f"body: {name} is not in the Notefile's template {{template-incompatible}}")
        hint = template[name]
        numbers = isinstance(hint, int | float) and isinstance(value, int | float)
        if isinstance(hint, bool) != isinstance(value, bool) or not (numbers or isinstance(value, type(hint))):
            raise CardError(f"body: {name} is of another type than in the template {{template-incompatible}}")
