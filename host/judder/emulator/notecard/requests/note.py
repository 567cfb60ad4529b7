"""note.* and file.*: notes in Notefiles."""

import base64
import itertools
from typing import TYPE_CHECKING

from judder.emulator.notecard.line import CardError, Fields, decode_payload
from judder.emulator.notecard.notefiles import (
    DATABASES,
    INBOUND,
    LOCAL,
    OUTBOUND,
    PAYLOAD_LIMIT,
    Note,
    Notefile,
    check_name,
    template_bytes,
)
from judder.emulator.notecard.vocabulary import answers

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard


@answers(
    "note.add",
    {
        "file": str,
        "note": str,
        "body": dict,
        "payload": str,
        "binary": bool,
        "live": bool,
        "sync": bool,
        "full": bool,
        "limit": bool,
        "verify": bool,
        "key": str,
        "max": int,
    },
    exclusive=[("binary", "payload")],
)
def _add(card: "Notecard", fields: Fields) -> Fields:
    name = fields.get("file", "data.qo")
    payload = _payload(card, fields)
    if "body" not in fields and not payload:
        raise CardError("body: required, or payload")
    note_id = fields.get("note", "")
    added = card.notefiles.add(name, note_id, fields.get("body"), payload, card.time_s(), fields.get("max", 0))
    card.attn.notify("files", name)
    notefile = card.notefiles.held(name)
    full = fields.get("max", 0) and notefile.pending() >= fields["max"]
    if not name.endswith(LOCAL) and fields.get("sync") and (full or "max" not in fields):
        card.link.want_sync(card.heard_ns, requested=True)
    reply: Fields = {"total": len(notefile.notes)}
    if note_id == "?":
        reply["note"] = added
    return reply | ({"template": True} if notefile.template is not None else {})


def _payload(card: "Notecard", fields: Fields) -> bytes:
    if fields.get("binary"):
        if not fields.get("live"):
            raise CardError("live: must be true with binary")
        return card.store.checked()
    payload = decode_payload(fields.get("payload", ""))
    if len(payload) > PAYLOAD_LIMIT:
        raise CardError(f"payload: {len(payload)} bytes are more than {PAYLOAD_LIMIT} {{too-big}}")
    return payload


@answers("note.get", {"file": str, "note": str, "delete": bool, "deleted": bool, "decrypt": bool})
def _get(card: "Notecard", fields: Fields) -> Fields:
    name = fields.get("file", "data.qi")
    check_name(name, INBOUND + DATABASES)
    if name.endswith(INBOUND):
        if "note" in fields:
            raise CardError(f"note: cannot be given for {name}, a queue")
        note_id = card.notefiles.oldest(name)
    elif "note" in fields:
        note_id = fields["note"]
    else:
        raise CardError(f"note: required for {name}, a database Notefile")
    notes = card.notefiles.held(name).notes
    if note_id not in notes:
        raise CardError(f"note: there is no {note_id} in {name} {{note-noexist}}")
    reply = _told(notes[note_id])
    if fields.get("delete"):
        card.notefiles.delete(name, note_id)
    return reply


@answers(
    "note.update",
    {"file": str, "note": str, "body": dict, "payload": str, "sync": bool, "verify": bool},
    needs=["file", "note"],
)
def _update(card: "Notecard", fields: Fields) -> Fields:
    payload = _payload(card, fields)
    card.notefiles.update(fields["file"], fields["note"], fields.get("body"), payload, card.time_s())
    card.attn.notify("files", fields["file"])
    if fields.get("sync"):
        card.link.want_sync(card.heard_ns, requested=True)
    return {}


@answers("note.delete", {"file": str, "note": str, "verify": bool}, needs=["file", "note"])
def _delete(card: "Notecard", fields: Fields) -> Fields:
    check_name(fields["file"], DATABASES)
    card.notefiles.delete(fields["file"], fields["note"])
    card.attn.notify("files", fields["file"])
    return {}


@answers(
    "note.changes",
    {
        "file": str,
        "tracker": str,
        "max": int,
        "start": bool,
        "stop": bool,
        "reset": bool,
        "delete": bool,
        "deleted": bool,
    },
    needs=["file"],
)
def _changes(card: "Notecard", fields: Fields) -> Fields:
    notefiles, tracker = card.notefiles, fields.get("tracker", "")
    if fields.get("max", 1) < 1:
        raise CardError("max: must be at least 1")
    if fields.get("start") or fields.get("reset") or fields.get("stop"):
        notefiles.forget(tracker)
        if fields.get("stop"):
            return {}
    notefile = notefiles.held(fields["file"])
    unseen = notefiles.unseen(tracker, notefile)
    taken = dict(itertools.islice(unseen.items(), fields.get("max")))
    notefiles.look(tracker, notefile, taken)
    reply: Fields = {"changes": len(unseen), "total": len(notefile.notes)}
    if taken:
        reply["notes"] = {note_id: _told(note) for note_id, note in taken.items()}
    if fields.get("delete"):
        for note_id in taken:
            notefiles.delete(notefile.name, note_id)
    return reply


@answers(
    "note.template",
    {"file": str, "body": dict, "length": int, "port": int, "format": str, "verify": bool, "delete": bool},
    needs=["file"],
)
def _template(card: "Notecard", fields: Fields) -> Fields:
    if fields.get("verify"):
        held = card.notefiles.files.get(fields["file"])
        if held is None or held.template is None:
            return {}
        return {"template": True, "body": held.template, "bytes": template_bytes(held.template)}
    size = template_bytes(fields.get("body", {})) + fields.get("length", 0)
    notefile = card.notefiles.file(fields["file"], OUTBOUND + DATABASES)
    notefile.template = fields.get("body")
    return {"bytes": size, **({"format": fields["format"]} if "format" in fields else {})}


@answers("file.changes", {"files": list, "tracker": str})
def _file_changes(card: "Notecard", fields: Fields) -> Fields:
    notefiles, tracker = card.notefiles, fields.get("tracker", "")
    info = {}
    for notefile in notefiles.named(fields.get("files")):
        changed = len(notefiles.unseen(tracker, notefile)) if tracker else 0
        info[notefile.name] = {"total": len(notefile.notes), **({"changes": changed} if changed else {})}
    return _summed(info)


@answers("file.changes.pending", {"files": list})
def _file_changes_pending(card: "Notecard", fields: Fields) -> Fields:
    pending = [notefile for notefile in card.notefiles.named(fields.get("files")) if notefile.pending()]
    info = {notefile.name: {"total": len(notefile.notes), "changes": notefile.pending()} for notefile in pending}
    return {**_summed(info), "pending": True} if pending else {}


@answers("file.stats", {"file": str})
def _file_stats(card: "Notecard", fields: Fields) -> Fields:
    notefiles: list[Notefile] = card.notefiles.named([fields["file"]] if "file" in fields else None)
    changes = sum(notefile.pending() for notefile in notefiles)
    total = sum(len(notefile.notes) for notefile in notefiles)
    return {"total": total, "changes": changes, "sync": changes > 0}


@answers("file.delete", {"files": list}, needs=["files"])
def _file_delete(card: "Notecard", fields: Fields) -> Fields:
    for name in fields["files"]:
        card.notefiles.files.pop(str(name), None)
    return {}


@answers("file.clear", {"file": str}, needs=["file"])
def _file_clear(card: "Notecard", fields: Fields) -> Fields:
    check_name(fields["file"], OUTBOUND)
    card.notefiles.held(fields["file"]).notes.clear()
    return {}


def _told(note: Note) -> Fields:
    reply: Fields = {} if note.body is None else {"body": note.body}
    if note.payload:
        reply["payload"] = base64.b64encode(note.payload).decode()
    return reply | {"time": note.time_s}


def _summed(info: dict[str, dict[str, int]]) -> Fields:
    reply: Fields = {"total": sum(one["total"] for one in info.values())}
    changes = sum(one.get("changes", 0) for one in info.values())
    return ({"changes": changes} if changes else {}) | reply | ({"info": info} if info else {})
