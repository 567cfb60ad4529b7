"""hub.*: how the card connects, and what it knows about that."""

from typing import TYPE_CHECKING

from judder.emulator.notecard.line import CardError, Fields
from judder.emulator.notecard.link import MINUTE_NS, NEVER, OFFLINE_MODES
from judder.emulator.notecard.vocabulary import Kind, answers

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard

MODES = ("continuous", "periodic", "minimum", "off", "dfu", "dfu-completed")
SESSION_S = 300  # of hub.set on

_SETTINGS: dict[str, Kind] = {
    "product": str,
    "host": str,
    "mode": MODES,
    "sn": str,
    "outbound": int,
    "inbound": int,
    "duration": int,
    "voutbound": str,
    "vinbound": str,
    "sync": bool,
    "align": bool,
    "umin": bool,
    "uoff": bool,
    "uperiodic": bool,
    "details": str | dict,
}


@answers(
    "hub.set",
    # body: what note-python and note-c add to say who they are; the schema does not know it
    {**_SETTINGS, "on": bool, "off": bool, "seconds": int, "version": str | dict, "body": dict},
    exclusive=[("on", "off")],
)
def _set(card: "Notecard", fields: Fields) -> Fields:
    before = card.hub.get("mode", "periodic")
    given = {name: fields[name] for name in _SETTINGS if name in fields}
    if given.get("duration", 15) < 15:
        raise CardError("duration: must be at least 15 minutes")
    if given.get("mode") == "dfu" and before != "dfu":
        card.mode_before_dfu = before
    elif given.get("mode") == "dfu-completed":  # note-samples:python-dfu; the schema does not know it
        given["mode"] = card.mode_before_dfu
    card.hub |= given
    for name, value in given.items():
        if value in ("-", -1):
            del card.hub[name]
    periods = [card.hub[name] for name in ("outbound", "inbound") if card.hub.get(name, 0) > 0]
    card.link.period_ns = min(periods) * MINUTE_NS if periods else NEVER
    card.link.set_mode(card.hub.get("mode") or ("periodic" if "product" in card.hub else card.link.mode))
    if fields.get("on") or fields.get("off"):
        card.link.hold_session(fields.get("seconds", SESSION_S) if fields.get("on") else 0)
    if "version" in fields:
        card.host_version = fields["version"]
    return {}


@answers("hub.get")
def _get(card: "Notecard", fields: Fields) -> Fields:
    return {"device": card.device, **card.hub}


@answers("hub.status")
def _status(card: "Notecard", fields: Fields) -> Fields:
    if card.online():
        return {"status": "connected (session open) {connected}", "connected": True}
    return {"status": "waiting for service {wait-service}" if card.link.mode == "continuous" else "idle {idle}"}


@answers("hub.sync", {"out": bool, "in": bool, "allow": bool})
def _sync(card: "Notecard", fields: Fields) -> Fields:
    if card.link.mode in OFFLINE_MODES:
        raise CardError(f"sync is not possible in mode {card.link.mode} (hub.set) {{hub-mode}}")
    card.link.want_sync(card.heard_ns, requested=True)
    return {}


@answers("hub.sync.status", {"sync": bool})
def _sync_status(card: "Notecard", fields: Fields) -> Fields:
    link, pending = card.link, card.notefiles.pending() > 0
    if fields.get("sync") and pending:
        link.want_sync(card.heard_ns, requested=True)
    reply: Fields = {"mode": "{modem-on}" if card.online() else "{modem-off}"}
    if link.sync_due_ns() < NEVER and link.wanted(card.heard_ns):
        reply["status"] = "waiting for service {wait-service}"
    else:
        reply["status"] = "completed {sync-end}" if link.completed_ns is not None else "idle {idle}"
    if link.requested_ns is not None:
        reply["requested"] = (card.heard_ns - link.requested_ns) // 1_000_000_000
    if link.completed_ns is not None:
        reply["completed"] = (card.heard_ns - link.completed_ns) // 1_000_000_000
        reply["time"] = card.time_s(link.completed_ns)
    return reply | ({"sync": True} if pending or not card.time_known() else {})


@answers("hub.log", {"text": str, "alert": bool, "sync": bool}, needs=["text"])
def _log(card: "Notecard", fields: Fields) -> Fields:
    card.log.append(fields["text"])
    if fields.get("sync"):
        card.link.want_sync(card.heard_ns, requested=True)
    return {}


@answers("hub.signal", {"seconds": int})
def _signal(card: "Notecard", fields: Fields) -> Fields:
    body = {"body": card.signals.popleft()} if card.signals else {}
    return {**body, **card.connected(), "signals": len(card.signals)}
