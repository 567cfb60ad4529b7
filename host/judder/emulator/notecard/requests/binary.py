"""card.binary, card.binary.put, card.binary.get: the binary store."""

from typing import TYPE_CHECKING

from judder.emulator.notecard.binary_store import cobs_encode, md5
from judder.emulator.notecard.line import CardError, Fields
from judder.emulator.notecard.vocabulary import answers

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard


@answers("card.binary", {"delete": bool, "reset": bool})
def _binary(card: "Notecard", fields: Fields) -> Fields:
    if fields.get("delete") or fields.get("reset"):
        card.store.clear()
    state = {**card.connected(), "max": card.store.maximum}
    if card.store.error:
        raise CardError(card.store.error, **state)
    return state | card.store.status()


@answers("card.binary.put", {"cobs": int, "offset": int, "status": str}, needs=["cobs"])
def _put(card: "Notecard", fields: Fields) -> Fields:
    card.store.expect(fields["cobs"], fields.get("offset", 0), fields.get("status", ""))
    return {}


@answers("card.binary.get", {"offset": int, "length": int, "cobs": int})
def _get(card: "Notecard", fields: Fields) -> Fields:
    held = card.store.checked()
    offset = fields.get("offset", 0)
    end = offset + fields.get("length", len(held) - offset)
    if not 0 <= offset < end <= len(held):
        raise CardError(f"length: {offset} to {end} is not within the {len(held)} bytes held")
    encoded = cobs_encode(held[offset:end])
    if len(encoded) > fields.get("cobs", len(encoded)):
        raise CardError(f"cobs: {len(encoded)} bytes encoded are more than allowed")
    card.send_after_reply(encoded + b"\n")
    return {"status": md5(held[offset:end])}
