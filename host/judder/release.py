"""A release: one file to the devices of a fleet, wave by wave, until it is on all of them or proves to be bad.

Here is what it is and where it is kept, in one small JSON file; judder.rollout carries it out. A device is done when it
reports the version, or the model, itself.
"""

import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from judder.artefact import Artefact, ArtefactError, recognise
from judder.code import ENDING
from judder.notehub import Device, Filters, Firmware

TIMEOUT_S = 2 * 3600.0
MAX_FAILED = "5%"


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
    release of a model, else the firmware's version; `boot` names the start of the board that has said so.
    """

    serial_number: str = ""
    running_before: str = ""
    initiated_before: str = ""
    boot_before: str = ""
    asked: bool = False
    started: bool = False
    running: str = ""
    boot: str = ""
    version: str = ""
    model: str = ""
    phase: str = ""
    since: str = ""
    in_progress: bool = False

    @property
    def is_completed(self) -> bool:
        """Whether what it was started with has come to its end."""
        return self.started and self.phase == "completed"

    @property
    def has_booted(self) -> bool:
        """Since its start, as far as its firmware says so."""
        return self.boot != self.boot_before or not self.boot


@dataclass
class Wave:
    """Some of the devices, once all waves before are through; `started_at_s` (Unix time) when all of it was started."""

    percent: float
    devices: list[str]
    started_at_s: float | None = None


@dataclass
class Release:
    """`source` is the file to upload, `firmware` its name at Notehub once it is there. `ending`: why it stops.

    `again`: also to devices that are said to run it, as after a version that may have killed them. `rolls_back`: the id
    of the release that it undoes.
    """

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
    again: bool = False
    rolls_back: str = ""
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
        target = self.targets[device]
        return target.running == self.wanted and (not self.again or self._is_back(target))

    def _is_back(self, target: Target) -> bool:
        """Whether it is alive: Notehub goes on showing what a dead board once said.

        That an image is written, the Notecard says, and only another boot that the board lives. An update by file ends
        when the firmware says so, which for one that it runs already it does without a boot.
        """
        return target.is_completed and (target.has_booted or self.suffix == ENDING)

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
    again: bool = False,
    rolls_back: str = "",
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
        again=again,
        rolls_back=rolls_back,
        created_at_s=now_s,
    )


# --- keeping ----------------------------------------------------------------------------------------------------------


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


def cancel(release: Release, reason: str = "cancelled") -> None:
    """Have the next steps call it off."""
    if not release.is_over:
        release.state, release.ending, release.reason = State.STOPPING, State.CANCELLED, reason


def read(path: Path, version: str | None = None) -> Artefact:
    """What a file brings. Raises ReleaseError."""
    try:
        return recognise(path.read_bytes(), version)
    except OSError as error:
        raise ReleaseError(f"{path}: {error.strerror}") from None
    except ArtefactError as error:
        raise ReleaseError(f"{path}: {error}") from None


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
