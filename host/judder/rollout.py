"""A release carried out: upload, start wave by wave, look, stop or go on.

The file of the release is written before and after each thing that Notehub is asked for. Whoever goes on with it after
an interruption looks first at what Notehub has made of the last call: no device is started twice, none is forgotten.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from judder.forwarder import is_trouble
from judder.notehub import Filters, Firmware, Notehub, NotehubError, UpdateStatus
from judder.release import Journal, Release, ReleaseError, State, Target, Wave, read

INTERVAL_S = 30.0
LEAST_INTERVAL_S = 15.0
"""Between looks: Notehub's Essentials plan allows 7 requests a minute in all."""
PATIENCE = 20
"""Looks in a row that Notehub gives no answer to."""
DEVICES_PER_CALL = 100
"""They are named in the query, which has to fit in 8 KB."""


async def run(
    release: Release,
    hub: Notehub,
    journal: Journal,
    *,
    now_s: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    interval_s: float = INTERVAL_S,
    on_step: Callable[[Release], None] = lambda release: None,
) -> None:
    """Go on with a release until it is over. Raises ReleaseError, NotehubError; it can be gone on with after that."""
    unanswered = 0
    while not release.is_over:
        try:
            again_at_once = await advance(release, hub, journal, now_s)
            unanswered = 0
        except NotehubError as error:
            unanswered += 1
            again_at_once = False
            if unanswered > PATIENCE or (error.status and not is_trouble(error.status)):
                raise
        on_step(release)
        if not (again_at_once or release.is_over):
            await sleep(max(interval_s, LEAST_INTERVAL_S))


async def advance(release: Release, hub: Notehub, journal: Journal, now_s: Callable[[], float] = time.time) -> bool:
    """One step; True if the next one need not wait. Raises NotehubError, after which it can be repeated."""
    if release.state is State.PLANNED:
        release.firmware = await keep(release, hub)
        release.state = State.RUNNING
        journal.save(release)
        return True
    seen = await look(release, hub)
    if release.state is State.STOPPING:
        await call_off(release, hub)
        release.state = release.ending
        journal.save(release)
        return False
    if reason := stop_reason(release, now_s()):
        release.state, release.ending, release.reason = State.STOPPING, State.STOPPED, reason
        journal.save(release)
        return True
    wave = release.current_wave(now_s())
    if wave is None:
        release.state = State.DONE
    else:
        await start(release, wave, seen, hub, journal)
        if wave.started_at_s is None:
            wave.started_at_s = now_s()
    journal.save(release)
    return False


async def rehearse(release: Release, hub: Notehub) -> None:
    """Make the calls that a release in which nothing fails has still to make, to a hub that only plans them."""
    release.firmware = await keep(release, hub)
    seen = await look(release, hub)
    for wave in release.waves:
        for some in _batches(_waiting(release, wave, seen)):
            await hub.start_update(release.firmware, {"deviceUID": some})


async def keep(release: Release, hub: Notehub) -> str:
    """The name of the file at Notehub, which gets it if it does not have it. Raises ReleaseError, NotehubError."""
    for one in sorted(await hub.firmware(md5=release.md5), key=lambda one: (one.created, one.name), reverse=True):
        if await _md5(one, hub) == release.md5:
            return one.name
    if not release.source:
        raise ReleaseError(f"Notehub no longer has {release.firmware}: release {release.what} from its file again")
    source = Path(release.source)
    data = read(source, release.version).data
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != release.md5:
        raise ReleaseError(f"{source} has changed since the release was planned: cancel it, and push the file anew")
    kept = await hub.upload(source.stem + release.suffix, data, release.version)
    if kept is None:
        return f"(name at Notehub){release.suffix}"
    if (md5 := await _md5(kept, hub)) != release.md5:
        raise ReleaseError(f"Notehub has {kept.name} with md5 {md5} and not {release.md5}: nothing started; repeat it")
    return kept.name


async def check_version(release: Release, hub: Notehub) -> None:
    """Raises ReleaseError when Notehub has that version only with another content: boards could not be told apart."""
    if release.model:  # its id is its content's checksum
        return
    kept = {await _md5(one, hub): one.name for one in await hub.firmware(version=release.version)}
    if kept and release.md5 not in kept:
        names = ", ".join(sorted(kept.values()))
        raise ReleaseError(
            f"Notehub has another file of version {release.version} ({names}): build it under a new version"
        )


async def _md5(firmware: Firmware, hub: Notehub) -> str:
    """As Notehub tells it, else of what it gives back."""
    return firmware.md5 or hashlib.md5(await hub.download(firmware.name), usedforsecurity=False).hexdigest()


async def look(release: Release, hub: Notehub) -> set[str]:
    """Take over what Notehub says of the devices, and say which; of those it leaves out, the last word stands."""
    seen = set()
    for status in await hub.update_statuses(_who(release)):
        target = release.targets.get(status.device)
        if target is None:
            continue
        seen.add(status.device)
        if status.version or status.description:
            target.version, target.model, target.boot = status.version, status.model, status.boot
            target.running = status.model if release.model else status.version
        target.in_progress = status.in_progress
        if target.asked:
            if not target.started:
                target.started = _was_started(target, status)
            target.phase, target.since = status.phase or target.phase, status.since or target.since
        else:
            target.running_before, target.initiated_before = target.running, status.initiated
            target.boot_before = target.boot
    return seen


def _who(release: Release) -> Filters:
    """As few requests as possible, never one for each device; by one fleet, as the description of this call has it."""
    many = len(release.filters.get("deviceUID", ())) > DEVICES_PER_CALL or len(release.filters.get("fleetUID", ())) > 1
    return {} if many else release.filters


def _was_started(target: Target, status: UpdateStatus) -> bool:
    """Whether a call whose answer was lost has reached Notehub, by its own time of the last one."""
    return bool(status.initiated) and status.initiated != target.initiated_before


async def start(release: Release, wave: Wave, seen: set[str], hub: Notehub, journal: Journal) -> None:
    """Start the devices of a wave that wait for it."""
    for some in _batches(_waiting(release, wave, seen)):
        for uid in some:
            release.targets[uid].asked = True
        journal.save(release)
        await hub.start_update(release.firmware, {"deviceUID": some})
        for uid in some:
            release.targets[uid].started, release.targets[uid].phase = True, ""  # that was of an update before
        journal.save(release)


def _waiting(release: Release, wave: Wave, seen: set[str]) -> list[str]:
    """Devices of a wave that are not started, and do not run it already.

    One whose start may have been made is only started again when it was `seen` that it was not.
    """
    waiting = []
    for uid in wave.devices:
        target = release.targets[uid]
        if not (target.started or _has_it(release, uid) or (target.asked and uid not in seen)):
            waiting.append(uid)
    return waiting


def _has_it(release: Release, device: str) -> bool:
    return release.is_done(device) and not release.targets[device].in_progress


async def call_off(release: Release, hub: Notehub) -> None:
    """Cancel what is still to come to started devices."""
    for some in _batches([uid for uid in release.asked() if not release.is_done(uid)]):
        await hub.cancel_update({"deviceUID": some})


def _batches(devices: Sequence[str]) -> list[list[str]]:
    return [list(devices[at : at + DEVICES_PER_CALL]) for at in range(0, len(devices), DEVICES_PER_CALL)]


def stop_reason(release: Release, now_s: float) -> str:
    """Why the release must not go on; "" if it may. Waves that were through count, too: boards may fall back."""
    for number, wave in enumerate(release.waves, 1):
        missing = release.missing(wave)
        if release.is_late(wave, now_s) and len(missing) > release.allowed(wave):
            return (
                f"{len(missing)} of {len(wave.devices)} devices of wave {number} do not report {release.what} after "
                f"{release.timeout_s / 60:g} min, {release.allowed(wave)} may"
            )
    return ""


# --- going back -------------------------------------------------------------------------------------------------------


async def previous(release: Release, hub: Notehub) -> Firmware:
    """What the started devices ran before, if it was the same on all and Notehub has it. Raises ReleaseError."""
    before = {release.targets[device].running_before for device in release.asked()}
    if release.model and before == {""}:
        raise ReleaseError(
            "the devices ran no model before: there is nothing to go back to; release a model with --to FILE"
        )
    if len(before) != 1 or "" in before:
        names = ", ".join(sorted(one or "nothing known" for one in before)) or "none: no device was started"
        raise ReleaseError(f"the devices ran different things before ({names}): choose with --to VERSION or --to FILE")
    return await stored(hub, before.pop())


async def stored(hub: Notehub, version: str) -> Firmware:
    """The newest file of that version (or model) at Notehub. Raises ReleaseError."""
    found = await hub.firmware(version=version)
    if not found:
        known = ", ".join(sorted({one.version for one in await hub.firmware() if one.version})) or "none"
        raise ReleaseError(f"Notehub has no file of version {version}; it has {known}: give the file with --to FILE")
    return max(found, key=lambda one: (one.created, one.name))
