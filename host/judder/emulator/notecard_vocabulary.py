"""What the emulated Notecard can be asked: one function per request, carried out on the card's own state.

Documents: Notecard API (dev.blues.io/api-reference), notecard-schema. Members are checked for their types, the one
that is needed for its presence; what the documents do not know is ignored and noted (`Notecard.unknown_members`).
A reply leaves out what is false or empty.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from judder.emulator.binary_store import cobs_encode, md5
from judder.emulator.notecard_request import CardError, Fields

if TYPE_CHECKING:
    from judder.emulator.notecard import Notecard

Handler = Callable[["Notecard", Fields], Fields]

CARD_BINARY_SINCE = (5, 3, 1)
MODES = ("continuous", "periodic", "minimum", "off", "dfu")
DFU_NAMES = ("esp32", "stm32", "stm32-bi", "mcuboot", "-")

_EVERYWHERE = {"req", "cmd", "id", "crc"}
_JSON_NAMES = {str: "a string", int: "an integer", bool: "true or false", dict: "an object", list: "an array"}


@dataclass(frozen=True)
class Entry:
    """A request's function, its members' types, and the member that must be there."""

    handler: Handler
    kinds: Mapping[str, type]
    needs: str

    def check(self, fields: Fields) -> None:
        """Raises CardError, which names the member."""
        if self.needs and self.needs not in fields:
            raise CardError(f"{self.needs}: required but missing")
        for name, value in fields.items():
            kind = self.kinds.get(name)
            if kind is not None and type(value) is not kind:
                raise CardError(f"{name}: must be {_JSON_NAMES[kind]}")

    def unknown(self, fields: Fields) -> set[str]:
        """Members that are in no documentation."""
        return fields.keys() - self.kinds.keys() - _EVERYWHERE


VOCABULARY: dict[str, Entry] = {}


def answers(request: str, needs: str = "", /, **kinds: type) -> Callable[[Handler], Handler]:
    """Make a function the answer to `request`, whose members have the types `kinds`."""

    def register(handler: Handler) -> Handler:
        VOCABULARY[request] = Entry(handler, kinds, needs)
        return handler

    return register


def entry(card: "Notecard", name: str) -> Entry:
    """What `card` knows by `name`. Raises CardError for what it does not know, or not yet."""
    if name not in VOCABULARY or (name.startswith("card.binary") and card.version_numbers < CARD_BINARY_SINCE):
        raise CardError(f"unknown request: {name or 'req must be a string'} {{not-supported}}")
    return VOCABULARY[name]


# --- card.* -----------------------------------------------------------------------------------------------------


@answers("echo", text=str, payload=str, body=dict)
def _echo(card: "Notecard", fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if name not in ("req", "crc")}


@answers("card.version", api=int)
def _card_version(card: "Notecard", fields: Fields) -> Fields:
    major, minor, patch = (*card.version_numbers, 0, 0, 0)[:3]
    body = {"org": "Blues Wireless", "product": "Notecard", "version": card.version}
    return {
        "version": card.version,
        "device": card.device,
        "name": "Blues Wireless Notecard",
        "sku": "NOTE-WBNA500",
        "body": body | {"ver_major": major, "ver_minor": minor, "ver_patch": patch},
    }


@answers("card.time")
def _card_time(card: "Notecard", fields: Fields) -> Fields:
    if not card.link.time_known():
        raise CardError("time is not yet known {no-time}")
    return {"time": card.time_s(), "zone": "UTC,Unknown"}


@answers("card.status")
def _card_status(card: "Notecard", fields: Fields) -> Fields:
    time = {"time": card.time_s()} if card.link.time_known() else {}
    return {"status": "{normal}", "usb": True, "cell": True, **time, **_connected(card)}


@answers("card.restart")
def _card_restart(card: "Notecard", fields: Fields) -> Fields:
    card.restart()
    return {}


@answers("card.dfu", name=str, mode=str, on=bool, off=bool, seconds=int, stop=bool, start=bool)
def _card_dfu(card: "Notecard", fields: Fields) -> Fields:
    if fields.get("name", "-") not in DFU_NAMES:
        raise CardError(f"name: must be one of {', '.join(DFU_NAMES)}")
    if "name" in fields:
        card.dfu["name"] = fields["name"]
    for switch, opposite in (("on", "off"), ("off", "on")):
        if fields.get(switch):
            card.dfu[switch] = True
            card.dfu.pop(opposite, None)
    return dict(card.dfu)


@answers("card.attn", mode=str, files=list, seconds=int, payload=str, start=bool, on=bool, off=bool, verify=bool)
def _card_attn(card: "Notecard", fields: Fields) -> Fields:
    card.attn = fields.get("mode", card.attn)
    return {}


# --- the binary store -------------------------------------------------------------------------------------------


@answers("card.binary", delete=bool, reset=bool)
def _card_binary(card: "Notecard", fields: Fields) -> Fields:
    if fields.get("delete") or fields.get("reset"):
        card.store.clear()
    state = {**_connected(card), "max": card.store.maximum}
    if card.store.error:
        raise CardError(card.store.error, **state)
    return state | card.store.status()


@answers("card.binary.put", "cobs", cobs=int, offset=int, status=str)
def _card_binary_put(card: "Notecard", fields: Fields) -> Fields:
    card.store.expect(fields["cobs"], fields.get("offset", 0), fields.get("status", ""))
    return {}


@answers("card.binary.get", offset=int, length=int, cobs=int)
def _card_binary_get(card: "Notecard", fields: Fields) -> Fields:
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


# --- hub.* and env.* --------------------------------------------------------------------------------------------

_HUB_SETTINGS: dict[str, type] = {
    "product": str,
    "host": str,
    "mode": str,
    "sn": str,
    "outbound": int,
    "inbound": int,
    "duration": int,
    "voutbound": str,
    "vinbound": str,
    "sync": bool,
    "align": bool,
    "details": str,
}


@answers("hub.set", on=bool, off=bool, seconds=int, body=dict, **_HUB_SETTINGS)
def _hub_set(card: "Notecard", fields: Fields) -> Fields:
    if fields.get("mode", "off") not in MODES:
        raise CardError(f"mode: must be one of {', '.join(MODES)}")
    card.hub |= {name: fields[name] for name in _HUB_SETTINGS if name in fields}
    card.link.set_mode(card.hub.get("mode", "off"))
    return {}


@answers("hub.get")
def _hub_get(card: "Notecard", fields: Fields) -> Fields:
    return {"device": card.device, **card.hub}


@answers("hub.status")
def _hub_status(card: "Notecard", fields: Fields) -> Fields:
    if card.online():
        return {"status": "connected (session open) {connected}", "connected": True}
    return {"status": "waiting for service {wait-service}" if card.link.mode == "continuous" else "idle {idle}"}


@answers("hub.sync", out=bool, allow=bool, **{"in": bool})
def _hub_sync(card: "Notecard", fields: Fields) -> Fields:
    if card.link.mode == "off":
        raise CardError("sync is not possible in mode off (hub.set) {hub-mode}")
    return {}


@answers("hub.log", "text", text=str, alert=bool, sync=bool)
def _hub_log(card: "Notecard", fields: Fields) -> Fields:
    card.log.append(fields["text"])
    return {}


@answers("env.get", name=str, names=list, time=int)
def _env_get(card: "Notecard", fields: Fields) -> Fields:
    held = card.environment
    if "name" in fields:
        return {"text": held[fields["name"]]} if fields["name"] in held else {}
    wanted = fields.get("names", list(held))
    return {"body": {name: text for name, text in held.items() if name in wanted}}


def _connected(card: "Notecard") -> Fields:
    return {"connected": True} if card.online() else {}
