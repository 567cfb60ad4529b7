"""A project of the emulated Notehub: its devices, fleets, environment variables, host firmware, routes and events.

Documents: OpenAPI description of Notehub, as in PyPI notehub-py 6.7.0; dev.blues.io (environment variables, host
firmware updates). Assumed: the words for the phases of an update; that filters of one name are alternatives and those
of different names all apply; what a cancelled update is called; how the tree of environment variables is nested.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Protocol

from judder.emulator.notecard import Notecard
from judder.emulator.notecard.line import Fields
from judder.emulator.notecard.twin import Event, Firmware, Inbound
from judder.emulator.notehub import Notehub

PRODUCT = "com.example.judder:vibration"
PROJECT = "app:5b1f00c2-4d0e-4c7a-9c55-6a2f1c0e7a11"
SKU = "NOTE-WBNAW"
NOTECARD_FIRMWARE = "8.1.3.17074"
OVER = ("idle", "completed", "error", "cancelled")
"""Phases in which no update is under way."""
_INFO = re.compile(rb"firmware::info:(\{.*?\})[\0\r\n]")

Members = dict[str, Any]


class Device(Protocol):
    """What Notehub has to do with: a card, and the host behind it."""

    @property
    def uid(self) -> str: ...

    def set_environment(self, variables: Mapping[str, str]) -> None:
        """All that apply to it from now on."""

    def send_note(self, note: Inbound) -> None: ...

    def signal(self, body: Fields) -> bool:
        """False when it is not connected."""

    def offer(self, firmware: Firmware) -> None:
        """Have the host updated."""

    def withdraw(self) -> None:
        """Call that off, if it is still possible."""

    def running(self) -> Members:
        """What the host has reported: version, description ..."""

    def progress(self) -> tuple[str, str]:
        """Phase of the last update, and words about it."""

    def events(self) -> Sequence[Event]:
        """What has come since the last call."""


@dataclass
class CardDevice:
    """An emulated Notecard with whatever drives it."""

    card: Notecard
    _last: Event | None = None

    @property
    def uid(self) -> str:
        return self.card.device

    def set_environment(self, variables: Mapping[str, str]) -> None:
        gone: dict[str, str | None] = dict.fromkeys(set(self.card.twin.environment) - set(variables))
        self.card.twin.set_environment(gone | dict(variables))

    def send_note(self, note: Inbound) -> None:
        self.card.twin.send_note(note)

    def signal(self, body: Fields) -> bool:
        return self.card.signal(body)

    def offer(self, firmware: Firmware) -> None:
        self.card.twin.offer(firmware)

    def withdraw(self) -> None:
        self.card.twin.firmware = None
        if self.card.update.mode == "downloading":
            self.card.update.abort(self.card.agenda.now_ns())

    def running(self) -> Members:
        said = self.card.twin.host_version
        if not isinstance(said, dict):
            return {"version": str(said or "")}
        return {("organization" if name == "org" else name): value for name, value in said.items()}

    def progress(self) -> tuple[str, str]:
        update = self.card.update
        if update.mode == "idle" and self.card.twin.firmware is not None:
            return "requested", "waits for the device"
        return update.mode, update.status

    def events(self) -> Sequence[Event]:
        found: list[Event] = []
        for event in reversed(tuple(self.card.twin.events)):
            if event is self._last:
                break
            found.insert(0, event)
        if found:
            self._last = found[-1]
        return found


@dataclass
class Entry:
    """A device as the project knows it. `updates`: each with initiated, requested_version, updates."""

    device: Device
    serial_number: str = ""
    fleets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    product: str = PRODUCT
    sku: str = SKU
    notecard_firmware: str = NOTECARD_FIRMWARE
    variables: dict[str, str] = field(default_factory=dict)
    updates: list[Members] = field(default_factory=list)

    def has(self, name: str, values: Iterable[str]) -> bool:
        """Whether a filter chooses it."""
        own = {
            "deviceUID": (self.device.uid,),
            "serialNumber": (self.serial_number,),
            "fleetUID": self.fleets,
            "tag": self.tags,
            "notecardFirmware": (self.notecard_firmware,),
            "hostFirmware": (str(self.device.running().get("version", "")),),
            "productUID": (self.product,),
            "sku": (self.sku,),
        }.get(name, ())
        return not set(own).isdisjoint(values)


@dataclass
class Fleet:
    """Devices with variables in common."""

    uid: str
    label: str
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class Project:
    """Change it by its methods; `now_s` (Unix time) dates what happens. Proxy routes become those of `hub`."""

    now_s: Callable[[], float]
    uid: str = PROJECT
    product: str = PRODUCT
    hub: Notehub | None = None
    variables: dict[str, str] = field(default_factory=dict)
    fleets: dict[str, Fleet] = field(default_factory=dict)
    devices: dict[str, Entry] = field(default_factory=dict)
    firmware: dict[str, Firmware] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    routes: dict[str, Members] = field(default_factory=dict)
    events: list[Members] = field(default_factory=list)

    def add_fleet(self, label: str) -> str:
        """Its UID."""
        uid = f"fleet:{len(self.fleets):08x}-0000-4000-8000-000000000000"
        self.fleets[uid] = Fleet(uid, label)
        return uid

    def add(self, entry: Entry) -> None:
        """A device joins, and hears of its variables."""
        self.devices[entry.device.uid] = entry
        self._tell(entry)

    # --- environment variables ----------------------------------------------------------------------------------------

    def environment(self, entry: Entry) -> dict[str, str]:
        """What applies to a device: its own before its fleets' before the project's."""
        merged = dict(self.variables)
        for fleet in entry.fleets:
            merged |= self.fleets[fleet].variables
        return merged | entry.variables

    def changed(self) -> None:
        """Variables have: tell every device of what applies to it."""
        for entry in self.devices.values():
            self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        entry.device.set_environment(self.environment(entry))

    def tree(self, fleet: str = "", device: str = "") -> Members:
        """The variables as environment_hierarchy shows them, of all devices or those of one fleet, or of one."""
        root = _node("app", self.variables, app_uid=self.uid)
        shown = [one for one in self.devices.values() if device in ("", one.device.uid)]
        if not fleet:
            root["children"] = [_device_node(one) for one in shown if not one.fleets]
        for one in self.fleets.values():
            inside = [_device_node(entry) for entry in shown if one.uid in entry.fleets]
            if fleet in ("", one.uid) and (inside or not device):
                node = _node("fleet", one.variables, fleet_uid=one.uid, fleet_label=one.label)
                root["children"].append(node | {"children": inside})
        return root

    # --- host firmware ------------------------------------------------------------------------------------------------

    def keep(self, name: str, data: bytes, version: str, notes: str) -> Firmware:
        """An uploaded file, under a name with the time in it."""
        path, at_s, info = PurePosixPath(name), int(self.now_s()), {}
        if found := _INFO.search(data):
            info = json.loads(found[1])
        while (stored := f"{path.stem}${datetime.fromtimestamp(at_s, UTC):%Y%m%d%H%M%S}{path.suffix}") in self.firmware:
            at_s += 1
        made = Firmware(stored, data, version or str(info.get("version", "")), at_s, info)
        self.firmware[stored], self.notes[stored] = made, notes
        return made

    def update(self, entry: Entry, firmware: Firmware) -> None:
        """Have a device download it."""
        entry.updates.append(
            {
                "initiated": self.time(),
                "current_version": str(entry.device.running().get("version", "")),
                "requested_version": firmware.version,
                "updates": [self._phase("requested", f"{firmware.name} was requested")],
            }
        )
        entry.device.offer(firmware)

    def cancel(self, entry: Entry) -> None:
        """Call off what is under way."""
        self.status(entry)
        if entry.updates and entry.updates[-1]["updates"][-1]["phase"] not in OVER:
            entry.device.withdraw()
            self.status(entry, cancelled=True)

    def status(self, entry: Entry, *, cancelled: bool = False) -> Members:
        """How far the last update of a device is."""
        last: Members = {"initiated": "", "requested_version": "", "updates": []}
        if entry.updates:
            last = entry.updates[-1]
        if entry.updates and last["updates"][-1]["phase"] != "cancelled":
            phase, words = entry.device.progress()
            if phase == "idle":
                phase, words = ("cancelled", "cancelled") if cancelled else ("requested", "waits for the device")
            if phase != last["updates"][-1]["phase"]:
                last["updates"].append(self._phase(phase, words))
        version = str(entry.device.running().get("version", ""))
        return {
            "device_uid": entry.device.uid,
            "dfu_in_progress": bool(last["updates"]) and last["updates"][-1]["phase"] not in OVER,
            "current": entry.device.running(),
            "status": {**last, "current_version": version},
        }

    def history(self, entry: Entry) -> Members:
        """Of all its updates, the newest first."""
        self.status(entry)
        return {
            "device_uid": entry.device.uid,
            "current": entry.device.running(),
            "history": list(reversed(entry.updates)),
        }

    def _phase(self, phase: str, words: str) -> Members:
        return {"phase": phase, "status": words, "description": words, "datetime": self.time()}

    # --- events and routes --------------------------------------------------------------------------------------------

    def collect(self) -> list[Members]:
        """All events, those among them that have just come."""
        for entry in self.devices.values():
            for event in entry.device.events():
                self.events.append(self._event(entry, event))
        return self.events

    def _event(self, entry: Entry, event: Event) -> Members:
        number = len(self.events)
        members: Members = {
            "event": f"{number:08x}-0000-4000-8000-000000000000",
            "app": self.uid,
            "product": entry.product,
            "device": entry.device.uid,
            "sn": entry.serial_number,
            "best_id": entry.serial_number or entry.device.uid,
            "req": "note.add",
            "file": event.file,
            "when": int(self.now_s()),
            "received": self.now_s(),
        }
        if event.note:
            members["note"] = event.note
        if event.body is not None:
            members["body"] = event.body
        if event.payload:
            members["payload"] = base64.b64encode(event.payload).decode()
        return members

    def put_route(self, members: Members, uid: str = "") -> Members:
        """Make a route or change it. Raises ValueError when it leads where it may not."""
        uid = uid or f"route:{len(self.routes):032x}"
        made = {"label": "", "type": "", "disabled": False} | members | {"uid": uid, "modified": self.time()}
        proxy = made.get("proxy")
        if made["type"] == "proxy" and self.hub is not None and isinstance(proxy, dict):
            self.hub.add_route(str(proxy["alias"]), str(proxy["url"]), proxy.get("http_headers"))
        self.routes[uid] = made
        return made

    def time(self) -> str:
        """It is now, as RFC 3339."""
        return timestamp(self.now_s())


def timestamp(at_s: float) -> str:
    """RFC 3339, in UTC."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _device_node(entry: Entry) -> Members:
    return _node("device", entry.variables, device_uid=entry.device.uid)


def _node(kind: str, variables: Mapping[str, str], **members: str) -> Members:
    shown = [{"key": name, "value": value, "used": True} for name, value in variables.items()]
    counts = {"inherited_var_count": 0, "var_count": len(shown)}
    return {"type": kind, "variables": shown, "children": [], **counts, **members}
