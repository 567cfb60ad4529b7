"""Settings of boards as Notehub environment variables: checked before they go out, and what became of each.

A board says in notes to settings.qo what is in effect on it: `{"hash", "settings": {NAME: value that differs from the
default}, "refused": {NAME: reason}}`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches

from judder.board import board_settings
from judder.notehub import PROJECT, Device, Members, Notehub, Scope

NOTEFILE = "settings.qo"
DEVICES_IN_QUERY = 100
MOST_PAGES = 10


class SettingError(ValueError):
    """A setting that boards do not take, in a line."""


@dataclass(frozen=True)
class Setting:
    """`state` is effective, refused, not yet, or unknown; `scope` the one whose value applies."""

    name: str
    wanted: str
    scope: str
    effective: object
    state: str
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """A device's settings, and when (UTC) it last spoke of them."""

    device: str
    serial_number: str
    hash: str
    said_at: str | None
    settings: tuple[Setting, ...]


def checked(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as variables. Raises SettingError."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingError(f"{text!r} is no setting: give NAME=VALUE")
        _, default, allowed = row(name)
        try:
            board_settings().check(name, value, default, allowed)
        except ValueError as error:
            raise SettingError(str(error)) from None
        found[name] = value
    return found


def row(name: str) -> tuple[str, object, Sequence[object]]:
    """Of the board's table: name, default, what is allowed. Raises SettingError for what cannot be set remotely."""
    if name in board_settings().LOCAL:
        raise SettingError(f"{name} is not set remotely: it belongs into settings.toml on the board")
    for known, default, allowed in board_settings().TABLE:
        if known == name:
            return known, default, allowed
    names = [one for one, _, _ in board_settings().TABLE if one not in board_settings().LOCAL]
    near = get_close_matches(name.upper(), names, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise SettingError(f"{name or 'a setting without a name'} is no setting of the firmware; {hint}")


async def status(hub: Notehub, devices: Sequence[Device]) -> list[Report]:
    """What is wanted of each device, and what it says."""
    scope = Scope("device", devices[0].uid) if len(devices) == 1 else PROJECT
    tree = await hub.hierarchy(scope)
    said = await _newest(hub, [one.uid for one in devices])
    return [_report(one, wanted(tree, one.uid), said.get(one.uid)) for one in devices]


def wanted(tree: Members, device: str) -> dict[str, tuple[str, str]]:
    """Name to value and scope: a device's own before its fleets' before the project's; case does not matter."""
    found: dict[str, tuple[str, str]] = {}
    for node in _way(tree, device):
        kind = {"app": "project"}.get(str(node["type"]), str(node["type"]))
        for variable in node.get("variables") or ():
            name = str(variable["key"]).upper()
            if not name.startswith("_"):  # Notehub's own
                found[name] = str(variable["value"]), kind
    return found


def _way(node: Members, device: str) -> list[Members]:
    """The nodes above a device, then its own."""
    if node.get("device_uid") == device:
        return [node]
    below = [one for child in node.get("children") or () for one in _way(child, device)]
    return [node, *below] if below else []


async def _newest(hub: Notehub, devices: Sequence[str]) -> dict[str, Members]:
    """The last note of each, in as few requests as possible."""
    found: dict[str, Members] = {}
    cursor = ""
    for _ in range(MOST_PAGES):
        chosen = devices if len(devices) <= DEVICES_IN_QUERY else ()
        events, cursor = await hub.events([NOTEFILE], chosen, newest_first=True, limit=500, cursor=cursor)
        for event in events:
            if _is_whole(event.get("body")):
                found.setdefault(str(event.get("device")), event)
        if not cursor or found.keys() >= set(devices):
            break
    return found


def _is_whole(body: object) -> bool:
    """Whether it says what a device's note does; one that does not is no reason to leave the others untold."""
    return isinstance(body, dict) and all(isinstance(body.get(one) or {}, dict) for one in ("settings", "refused"))


def _report(device: Device, wanted: Mapping[str, tuple[str, str]], event: Members | None) -> Report:
    body = event["body"] if event else {}
    settings, refused = body.get("settings") or {}, body.get("refused") or {}
    table = {name: (default, allowed) for name, default, allowed in board_settings().TABLE}
    found = []
    for name, (value, scope) in sorted(wanted.items()):
        if name not in table or name in board_settings().LOCAL:
            found.append(Setting(name, value, scope, None, "unknown", "no setting that is set remotely"))
            continue
        default, allowed = table[name]
        effective = settings.get(name, default) if event else None
        state, reason = _judge(name, value, default, allowed, effective, str(refused.get(name, "")))
        found.append(Setting(name, value, scope, effective, state, reason))
    return Report(
        device.uid,
        device.serial_number,
        str(body.get("hash", "")),
        _time(event.get("when") or event.get("received")) if event else None,
        tuple(found),
    )


def _time(at_s: object) -> str | None:
    """In UTC; None for what a calendar does not have."""
    try:
        return f"{datetime.fromtimestamp(float(str(at_s)), UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return None


def _judge(
    name: str, text: str, default: object, allowed: Sequence[object], effective: object, refused: str
) -> tuple[str, str]:
    """State and reason of a wanted value."""
    is_refused = bool(refused) and _is_of(refused, name, text)
    try:
        value = board_settings().check(name, text, default, allowed)
    except ValueError as error:
        if is_refused or refused == str(error):  # a long value it names by its beginning
            return "refused", refused
        return "not yet", f"will be refused: {error}"
    if effective == value:
        return "effective", ""
    return ("refused", refused) if is_refused else ("not yet", "")


def _is_of(refused: str, name: str, text: str) -> bool:
    """Whether a refusal is of this value, and not of an earlier one: it names the value, its length, or neither."""
    own = f"{name} = {text};", f"{name} is {len(text.encode())} bytes long;"
    return refused.startswith(own) or not refused.startswith((f"{name} = ", f"{name} is "))
