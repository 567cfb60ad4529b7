"""card.* and echo; the sensors of the card itself tell fixed, plausible values."""

from typing import TYPE_CHECKING

from judder.emulator.notecard.line import CardError, Fields, decode_payload
from judder.emulator.notecard.link import NEVER
from judder.emulator.notecard.requests.dfu import refuse_while_updating
from judder.emulator.notecard.vocabulary import answers

if TYPE_CHECKING:
    from judder.emulator.notecard.card import Notecard

DFU_NAMES = ("esp32", "stm32", "stm32-bi", "mcuboot", "-")


@answers("echo", {"text": str, "payload": str, "body": dict})
def _echo(card: "Notecard", fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if name not in ("req", "crc")}


@answers("card.version", {"api": int})
def _version(card: "Notecard", fields: Fields) -> Fields:
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
def _time(card: "Notecard", fields: Fields) -> Fields:
    if not card.time_known():
        raise CardError("time is not yet known {no-time}")
    return {"time": card.time_s(), "zone": "UTC,Unknown"}


@answers("card.status")
def _status(card: "Notecard", fields: Fields) -> Fields:
    time = {"time": card.time_s()} if card.time_known() else {}
    return {"status": "{normal}", "usb": True, "cell": True, **time, **card.connected()}


@answers("card.restart")
def _restart(card: "Notecard", fields: Fields) -> Fields:
    refuse_while_updating(card)
    card.restart()
    return {}


@answers("card.restore", {"delete": bool, "connected": bool})
def _restore(card: "Notecard", fields: Fields) -> Fields:
    refuse_while_updating(card)
    card.restore(settings=fields.get("delete", False), at_notehub=fields.get("connected", False))
    return {}


@answers(
    "card.dfu",
    {
        "name": DFU_NAMES,
        "mode": ("aux", "altdfu"),
        "on": bool,
        "off": bool,
        "seconds": int,
        "stop": bool,
        "start": bool,
    },
    exclusive=[("on", "off"), ("start", "stop")],
)
def _dfu(card: "Notecard", fields: Fields) -> Fields:
    outboard = card.outboard
    refuse_while_updating(card)
    outboard.name = fields.get("name", outboard.name)
    outboard.mode = fields.get("mode", outboard.mode)
    if fields.get("on"):
        outboard.allowed_from_ns = card.heard_ns
    elif fields.get("off"):
        pause_s = fields.get("seconds", 0)
        outboard.allowed_from_ns = card.heard_ns + pause_s * 1_000_000_000 if pause_s > 0 else NEVER
    if fields.get("start") or fields.get("stop"):
        outboard.resets_host = not fields.get("stop")
    return {"name": outboard.name}


@answers(
    "card.attn",
    {
        "mode": str,
        "files": list,
        "seconds": int,
        "payload": str,
        "start": bool,
        "on": bool,
        "off": bool,
        "verify": bool,
    },
    exclusive=[("on", "off")],
)
def _attn(card: "Notecard", fields: Fields) -> Fields:
    attn = card.attn
    if fields.get("on") or fields.get("off"):
        attn.off = fields.get("off", False)
    words = [word.strip() for word in fields.get("mode", "").split(",") if word.strip()]
    payload = fields.get("payload", "")
    decode_payload(payload)
    attn.set_mode(words, fields.get("seconds", 0), fields.get("files"), card.heard_ns)
    if "sleep" in words:
        attn.payload, attn.payload_s = payload, card.time_s()
    reply = attn.state()
    if fields.get("start") and attn.payload:
        reply |= {"payload": attn.payload, "time": attn.payload_s}
    if fields.get("verify"):
        reply["mode"] = ",".join(sorted(attn.watched))
    return reply


@answers("card.voltage", {"hours": int, "offset": int, "mode": str, "vmin": int | float, "vmax": int | float})
def _voltage(card: "Notecard", fields: Fields) -> Fields:
    return {"usb": True, "mode": "usb", "value": 5.1, "vmin": 5.1, "vmax": 5.1, "vavg": 5.1, "hours": 1}


@answers("card.temp", {"minutes": int, "status": str, "stop": bool, "sync": bool})
def _temp(card: "Notecard", fields: Fields) -> Fields:
    return {"value": 27.5, "calibration": -3.0}


@answers("card.wireless", {"mode": str, "apn": str, "method": str, "hours": int})
def _wireless(card: "Notecard", fields: Fields) -> Fields:
    net = {"iccid": "89011703278520607527", "imei": "864475040000001", "rssi": -71, "rsrp": -99, "bars": 3}
    return {"status": "{modem-on}" if card.online() else "{modem-off}", "count": 1, "net": net}


@answers("card.location")
def _location(card: "Notecard", fields: Fields) -> Fields:
    return {"status": "GPS is off {gps-inactive}", "mode": "off"}


@answers(
    "card.location.mode",
    {"mode": str, "seconds": int, "vseconds": str, "lat": int | float, "lon": int | float, "max": int, "delete": bool},
)
def _location_mode(card: "Notecard", fields: Fields) -> Fields:
    return {"mode": fields.get("mode", "off")}


@answers("card.usage.get", {"mode": str, "offset": int})
def _usage(card: "Notecard", fields: Fields) -> Fields:
    usage = {"seconds": card.agenda.now_ns() // 1_000_000_000, "bytes_sent": card.bytes_posted, "sessions_standard": 1}
    return usage | ({"time": card.time_s()} if card.time_known() else {})


@answers("card.io", {"i2c": int, "mode": str})
def _io(card: "Notecard", fields: Fields) -> Fields:
    return {}
