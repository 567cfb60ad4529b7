"""env.*: environment variables, mostly set at Notehub."""

from typing import TYPE_CHECKING

from judder.emulator.notecard.line import CardError, Fields
from judder.emulator.notecard.notefiles import template_bytes
from judder.emulator.notecard.vocabulary import answers

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard


@answers("env.get", {"name": str, "names": list, "time": int}, exclusive=[("name", "names")])
def _get(card: "Notecard", fields: Fields) -> Fields:
    environment = card.environment
    modified = {"time": environment.modified_s} if environment.modified_s else {}
    if "time" in fields and environment.modified_s <= fields["time"]:
        raise CardError("environment hasn't been modified {env-not-modified}")
    if "name" in fields:
        found = environment.get(fields["name"])
        return {"text": found[1], **modified} if found else modified
    if "names" not in fields:
        return {"body": environment.all(), **modified}
    wanted = [environment.get(name) for name in fields["names"] if isinstance(name, str)]
    return {"body": dict(found for found in wanted if found), **modified}


@answers("env.modified", {"time": int})
def _modified(card: "Notecard", fields: Fields) -> Fields:
    return {"time": card.environment.modified_s} if card.environment.modified_s else {}


@answers("env.default", {"name": str, "text": str, "sync": bool}, needs=["name"])
def _default(card: "Notecard", fields: Fields) -> Fields:
    if card.environment.set_default(fields["name"], fields.get("text", ""), card.time_s()):
        card.attn.notify("env")
    if fields.get("sync"):
        card.link.want_sync(card.heard_ns, requested=True)
    return {}


@answers("env.set", {"name": str, "text": str}, needs=["name"])
def _set(card: "Notecard", fields: Fields) -> Fields:
    if card.environment.set_local(fields["name"], fields.get("text", ""), card.time_s()):
        card.attn.notify("env")
    return {"time": card.environment.modified_s} if card.environment.modified_s else {}


@answers("env.template", {"body": dict})
def _template(card: "Notecard", fields: Fields) -> Fields:
    return {"bytes": template_bytes(fields.get("body", {}))}
