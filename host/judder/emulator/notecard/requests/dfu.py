"""dfu.*: host firmware that the card has downloaded."""

import base64
from typing import TYPE_CHECKING

from judder.emulator.notecard.binary_store import cobs_length, md5
from judder.emulator.notecard.line import CardError, Fields
from judder.emulator.notecard.update import IDLE
from judder.emulator.notecard.vocabulary import answers

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard

CHUNK_LIMIT = 8192  # bytes of one dfu.get
PAYLOAD_LIMIT = 6000  # assumed: what base64 leaves of a reply


@answers(
    "dfu.status",
    {
        "name": ("user", "card"),
        "on": bool,
        "off": bool,
        "version": str | dict,
        "vvalue": str,
        "stop": bool,
        "status": str,
        "err": str,
    },
)
def _status(card: "Notecard", fields: Fields) -> Fields:
    update = card.update
    if fields.get("name") == "card":
        return {"mode": "idle", "status": IDLE, "on": True}
    if any(fields.get(name) for name in ("on", "off", "stop")):
        refuse_while_updating(card)
    if fields.get("on") or fields.get("off"):
        update.enabled = not fields.get("off")
        update.offer(card.twin.firmware, card.heard_ns)
    if "version" in fields:
        card.host_version = fields["version"]
        card.link.want_sync(card.heard_ns)
    if fields.get("stop"):
        update.stop(fields.get("status", ""), fields.get("err", ""), card.heard_ns)
        card.link.want_sync(card.heard_ns)
    return update.state(card.heard_ns)


@answers("dfu.get", {"offset": int, "length": int, "binary": bool})
def _get(card: "Notecard", fields: Fields) -> Fields:
    update = card.update
    refuse_while_updating(card)
    if update.mode != "ready" or update.firmware is None:
        raise CardError("no firmware is ready {dfu-not-ready}")
    if card.link.mode != "dfu":
        raise CardError("not in mode dfu (hub.set) {dfu-not-ready}")
    offset, length = fields.get("offset", 0), fields.get("length", 0)
    limit = CHUNK_LIMIT if fields.get("binary") else PAYLOAD_LIMIT
    if not 0 <= length <= limit:
        raise CardError(f"length: must be 0 to {limit}")
    if not 0 <= offset <= len(update.firmware.data) - length:
        raise CardError(f"offset: {offset} and {length} are not within the {len(update.firmware.data)} bytes there are")
    chunk = update.firmware.data[offset : offset + length]
    if not fields.get("binary"):
        return {"payload": base64.b64encode(chunk).decode(), "status": md5(chunk)}
    card.store.fill(chunk)
    return {"length": len(chunk), "cobs": cobs_length(chunk), "status": md5(chunk)}


def refuse_while_updating(card: "Notecard") -> None:
    """Raises CardError while the card writes the host's flash."""
    if card.update.mode == "updating":
        raise CardError("the host's firmware is being updated {dfu-in-progress}")
