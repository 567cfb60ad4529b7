"""Which devices of a Notehub project are meant: by fleet, by device or by tag."""

from collections.abc import Sequence
from dataclasses import dataclass

from judder.notehub import Device, Filters, Notehub


class FleetError(ValueError):
    """No devices, or other ones than were named, in a line."""


@dataclass(frozen=True)
class Selection:
    """The devices, and the filters that Notehub chooses them by."""

    devices: tuple[Device, ...]
    filters: Filters


async def select(
    hub: Notehub, devices: Sequence[str] = (), fleets: Sequence[str] = (), tags: Sequence[str] = ()
) -> Selection:
    """The devices named in one of three ways: UIDs or serial numbers, fleets by UID or name, tags. Raises FleetError.

    Nothing named is nobody, never everybody.
    """
    if bool(devices) + bool(fleets) + bool(tags) != 1:
        raise FleetError("say for whom, in one way: --fleet, --device or --tag; each may be repeated")
    if devices:
        found = await _named(hub, devices)
        return Selection(found, {"deviceUID": tuple(one.uid for one in found)})
    filters: Filters = {"fleetUID": await fleet_uids(hub, fleets)} if fleets else {"tag": tuple(tags)}
    chosen = tuple(await hub.devices(filters))
    if not chosen:
        raise FleetError(f"no device in {', '.join(fleets or tags)}: Notehub's page Devices shows who is where")
    return Selection(chosen, filters)


async def fleet_uids(hub: Notehub, names: Sequence[str]) -> tuple[str, ...]:
    """Of fleets given by name or UID. Raises FleetError."""
    known = await hub.fleets()
    by_name = {name: uid for uid, name in known.items()}
    unknown = [name for name in names if name not in known and name not in by_name]
    if unknown:
        raise FleetError(f"no fleet {', '.join(unknown)} in the project; it has {', '.join(by_name) or 'none'}")
    return tuple(dict.fromkeys(name if name in known else by_name[name] for name in names))


async def _named(hub: Notehub, names: Sequence[str]) -> tuple[Device, ...]:
    """By UID, which starts with dev:, or by serial number."""
    names = tuple(dict.fromkeys(names))
    uids = [name for name in names if name.startswith("dev:")]
    serials = [name for name in names if not name.startswith("dev:")]
    found: dict[str, Device] = {}
    for member, values in (("deviceUID", uids), ("serialNumber", serials)):
        for start in range(0, len(values), 100):
            for one in await hub.devices({member: values[start : start + 100]}):
                found[one.uid] = one
    there = {one.uid for one in found.values()} | {one.serial_number for one in found.values()}
    if unknown := [name for name in names if name not in there]:
        raise FleetError(f"no device {', '.join(unknown)} in the project: give UIDs (dev:...) or serial numbers")
    return tuple(found.values())
