"""A release: one file to the devices of a fleet, wave by wave, until it is on all of them or proves to be bad.

Everything it knows is in one small JSON file, written before and after each thing that Notehub is asked for. Whoever
goes on with it after an interruption looks first at what Notehub has made of the last call: no device is started
twice, none is forgotten. A device is done when it reports the version, or the model, itself.
"""

import asyncio
import fcntl
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from judder.artefact import Artefact, ArtefactError, recognise
from judder.forwarder import is_trouble
from judder.notehub import Device, Filters, Firmware, Notehub, NotehubError, UpdateStatus

INTERVAL_S = 30.0
LEAST_INTERVAL_S = 15.0
"""Between looks: Notehub's Essentials plan allows 7 requests a minute in all."""
TIMEOUT_S = 2 * 3600.0
MAX_FAILED = "5%"
PATIENCE = 20
"""Looks in a row that Notehub gives no answer to."""
DEVICES_PER_CALL = 100
"""They are named in the query, which has to fit in 8 KB."""


class ReleaseError(Exception):
    """The release cannot be made or cannot go on, in a line."""


class State(StrEnum):
    """Of a release; the last three are the end of it."""

    PLANNED = "planned"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    DONE = "done"


OVER = (State.STOPPED, State.CANCELLED, State.DONE)


@dataclass
class Target:
    """A device of a release. `asked`: its start is under way or made; `started`: it is known to be made.

    `..._before`: what was said of it before that. The rest is what was said last; `running` is the model's id for a
    release of a model, else the firmware's version.
    """

    serial_number: str = ""
    running_before: str = ""
    initiated_before: str = ""
    asked: bool = False
    started: bool = False
    running: str = ""
    version: str = ""
    model: str = ""
    phase: str = ""
    since: str = ""
    in_progress: bool = False


@dataclass
class Wave:
    """Some of the devices, once all waves before are through; `started_at_s` (Unix time) when all of it was started."""

    percent: float
    devices: list[str]
    started_at_s: float | None = None


@dataclass
class Release:
    """`source` is the file to upload, `firmware` its name at Notehub once it is there. `ending`: why it stops."""

    id: str
    project: str
    version: str
    model: str
    md5: str
    suffix: str
    source: str
    firmware: str
    filters: dict[str, list[str]]
    waves: list[Wave]
    targets: dict[str, Target]
    timeout_s: float = TIMEOUT_S
    max_failed: str = MAX_FAILED
    created_at_s: float = 0.0
    state: State = State.PLANNED
    ending: State = State.STOPPED
    reason: str = ""

    @property
    def what(self) -> str:
        return f"model {self.model}" if self.model else f"firmware {self.version}"

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    @property
    def wanted(self) -> str:
        """What a device reports once it is done."""
        return self.model or self.version

    def is_done(self, device: str) -> bool:
        return self.targets[device].running == self.wanted

    def missing(self, wave: Wave) -> list[str]:
        """Devices of a wave that do not report it."""
        return [device for device in wave.devices if not self.is_done(device)]

    def allowed(self, wave: Wave) -> int:
        """How many of a wave may fail."""
        return may_fail(self.max_failed, len(wave.devices))

    def asked(self) -> list[str]:
        """The devices that were started, or may have been."""
        return [device for device, target in self.targets.items() if target.asked]

    def is_late(self, wave: Wave, now_s: float) -> bool:
        return wave.started_at_s is not None and now_s >= wave.started_at_s + self.timeout_s

    def failing(self, now_s: float) -> list[str]:
        """Devices whose time is up."""
        return [device for wave in self.waves if self.is_late(wave, now_s) for device in self.missing(wave)]

    def current_wave(self, now_s: float) -> Wave | None:
        """The first that is not through; None when all are."""
        for wave in self.waves:
            if wave.started_at_s is None or (self.missing(wave) and not self.is_late(wave, now_s)):
                return wave
        return None


def may_fail(limit: str, devices: int) -> int:
    """Of so many devices; `limit` is a number or a percentage. Raises ReleaseError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)%|(\d+)", limit)
    if not found or (found[1] and float(found[1]) > 100):
        raise ReleaseError(f"--max-failed {limit}: give a number of devices, or a percentage of each wave like 5%")
    return int(found[2]) if found[2] else math.floor(devices * float(found[1]) / 100)


# --- planning ---------------------------------------------------------------------------------------------------------


def plan(
    artefact: Artefact,
    devices: Sequence[Device],
    filters: Filters,
    *,
    source: Path | None = None,
    firmware: Firmware | None = None,
    project: str = "",
    percents: Sequence[float] = (100,),
    timeout_s: float = TIMEOUT_S,
    max_failed: str = MAX_FAILED,
    now_s: float = 0.0,
) -> Release:
    """A release of a file to upload (`source`), or of one that Notehub has. `percents` count from all devices.

    Who is in which wave depends on the devices and the file alone. Raises ReleaseError.
    """
    if not devices or not any(filters.values()):
        raise ReleaseError("a release needs devices: --fleet, --device or --tag; without any it would go to all")
    if any(not 0 < one <= 100 for one in percents) or list(percents) != sorted(set(percents)):
        raise ReleaseError(f"waves {', '.join(f'{one:g}' for one in percents)}: give rising percentages up to 100")
    may_fail(max_failed, 0)
    ordered = sorted(
        (one.uid for one in devices), key=lambda uid: hashlib.sha256(f"{artefact.md5} {uid}".encode()).digest()
    )
    waves, start = [], 0
    for percent in percents:
        end = math.ceil(len(ordered) * percent / 100)
        if end > start:
            waves.append(Wave(percent, ordered[start:end]))
        start = end
    serials = {one.uid: one.serial_number for one in devices}
    return Release(
        id=f"{re.sub(r'[^A-Za-z0-9._-]', '_', artefact.version)}-{artefact.md5[:6]}",
        project=project,
        version=artefact.version,
        model=artefact.model,
        md5=artefact.md5,
        suffix=artefact.suffix,
        source=str(source.resolve()) if source else "",
        firmware=firmware.name if firmware else "",
        filters={name: list(values) for name, values in filters.items()},
        waves=waves,
        targets={uid: Target(serials[uid]) for wave in waves for uid in wave.devices},
        timeout_s=timeout_s,
        max_failed=max_failed,
        created_at_s=now_s,
    )


async def previous(release: Release, hub: Notehub) -> Firmware:
    """What the started devices ran before, if it was the same on all and Notehub has it. Raises ReleaseError."""
    before = {release.targets[device].running_before for device in release.asked()}
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


# --- going on ---------------------------------------------------------------------------------------------------------


@dataclass
class Journal:
    """Where a release is kept. Raises ReleaseError."""

    path: Path

    def save(self, release: Release) -> None:
        """The whole state or the one before, whatever happens."""
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("w") as file:
                json.dump(asdict(release), file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise ReleaseError(f"{self.path}: {error.strerror}") from None

    def load(self) -> Release:
        try:
            members = json.loads(self.path.read_bytes())
            members["waves"] = [Wave(**one) for one in members["waves"]]
            members["targets"] = {uid: Target(**one) for uid, one in members["targets"].items()}
            members |= {name: State(members[name]) for name in ("state", "ending")}
            return Release(**members)
        except OSError as error:
            raise ReleaseError(f"{self.path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReleaseError(f"{self.path} is no release of this judder: {error!r}") from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else goes on with this release meanwhile. Raises ReleaseError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ReleaseError(
                    f"another judder is at work on {self.path.stem}: wait for it, or interrupt it"
                ) from None
            yield


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
    """Make the calls of a whole release in which nothing fails, to a hub that only plans them."""
    release.firmware = await keep(release, hub)
    await look(release, hub)
    for wave in release.waves:
        for some in _batches([uid for uid in wave.devices if not _has_it(release, uid)]):
            await hub.start_update(release.firmware, {"deviceUID": some})


def cancel(release: Release, reason: str = "cancelled") -> None:
    """Have the next steps call it off."""
    if not release.is_over:
        release.state, release.ending, release.reason = State.STOPPING, State.CANCELLED, reason


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


async def _md5(firmware: Firmware, hub: Notehub) -> str:
    """As Notehub tells it, else of what it gives back."""
    return firmware.md5 or hashlib.md5(await hub.download(firmware.name), usedforsecurity=False).hexdigest()


def read(path: Path, version: str | None = None) -> Artefact:
    """What a file brings. Raises ReleaseError."""
    try:
        return recognise(path.read_bytes(), version)
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}") from None
    except ArtefactError as error:
        raise ReleaseError(f"{path}: {error}") from None


async def look(release: Release, hub: Notehub) -> set[str]:
    """Take over what Notehub says of the devices, and say which; of those it leaves out, the last word stands."""
    seen = set()
    for status in await hub.update_statuses(_who(release)):
        target = release.targets.get(status.device)
        if target is None:
            continue
        seen.add(status.device)
        if status.version or status.description:
            target.version, target.model = status.version, status.model
            target.running = status.model if release.model else status.version
        target.in_progress = status.in_progress
        if target.asked:
            if not target.started:
                target.started = _was_started(target, status)
            target.phase, target.since = status.phase or target.phase, status.since or target.since
        else:
            target.running_before, target.initiated_before = target.running, status.initiated
    return seen


def _who(release: Release) -> Filters:
    """As few requests as possible, never one for each device; by one fleet, as the description of this call has it."""
    many = len(release.filters.get("deviceUID", ())) > DEVICES_PER_CALL or len(release.filters.get("fleetUID", ())) > 1
    return {} if many else release.filters


def _was_started(target: Target, status: UpdateStatus) -> bool:
    """Whether a call whose answer was lost has reached Notehub, by its own time of the last one."""
    return bool(status.initiated) and status.initiated != target.initiated_before


async def start(release: Release, wave: Wave, seen: set[str], hub: Notehub, journal: Journal) -> None:
    """Start the devices of a wave that are not, and do not run it already.

    One whose start may have been made is only started again when it was `seen` that it was not.
    """
    waiting = []
    for uid in wave.devices:
        target = release.targets[uid]
        if not (target.started or _has_it(release, uid) or (target.asked and uid not in seen)):
            waiting.append(uid)
    for some in _batches(waiting):
        for uid in some:
            release.targets[uid].asked = True
        journal.save(release)
        await hub.start_update(release.firmware, {"deviceUID": some})
        for uid in some:
            release.targets[uid].started = True
        journal.save(release)


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


def rows(release: Release) -> list[Mapping[str, object]]:
    """What there is to say about each device, in the order of the waves."""
    found: list[Mapping[str, object]] = []
    for number, wave in enumerate(release.waves, 1):
        for uid in wave.devices:
            target = release.targets[uid]
            found.append(
                {
                    "device": uid,
                    "serial_number": target.serial_number,
                    "wave": number,
                    "phase": "done" if release.is_done(uid) else phase(target),
                    "version": target.version,
                    "model": target.model,
                    "since": target.since,
                }
            )
    return found


def phase(target: Target) -> str:
    """Notehub's word for how far a device is, or ours before there is one."""
    if not target.asked:
        return "not started"
    return target.phase or "started"
