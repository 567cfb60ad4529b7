"""A device without a board, for fleets of hundreds: takes updates, settings and capture requests over time.

It answers as the firmware does: settings in `settings.qo`, captures in `capture.qo`. How long each thing takes, and
what becomes of an update, is given; the clock is from outside and nothing runs in between.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from zlib import crc32

from judder.board import board_settings
from judder.emulator.notecard.line import Fields
from judder.emulator.notecard.twin import Event, Firmware, Inbound
from judder.emulator.notehub_project import Entry, Members, Project
from judder.update import Kind, Update, is_update


class Fate(StrEnum):
    """What becomes of updates to what it has not run before: good, or the three ways to fail."""

    GOOD = "good"
    SILENT = "silent"
    """It never reports again after the download."""
    ERROR = "error"
    """The download fails."""
    FALLS_BACK = "falls-back"
    """The new version reports, then the old one again."""


@dataclass
class SimulatedDevice:
    """`model` is the id of the one it runs. `offered`: names of the files, in order, however often."""

    uid: str
    now_s: Callable[[], float]
    version: str = "1.0.0"
    model: str = ""
    fate: Fate = Fate.GOOD
    download_s: float = 60.0
    restart_s: float = 30.0
    falls_back_s: float = 60.0
    answer_s: float = 20.0
    connected: bool = True
    offered: list[str] = field(default_factory=list)
    effective: dict[str, object] = field(default_factory=dict)
    captures: int = 0
    _boot: int = 0
    _firmware: Firmware | None = None
    _offered_s: float = 0.0
    _has_it: bool = False
    _environment: dict[str, str] | None = None
    _answers: list[tuple[float, Event]] = field(default_factory=list)

    def set_environment(self, variables: Mapping[str, str]) -> None:
        if variables == self._environment:
            return
        first, self._environment = self._environment is None, dict(variables)
        refused: dict[str, str] = {}
        self.effective = {}
        for name, default, allowed in board_settings().TABLE:
            if name in variables:
                try:
                    value = board_settings().check(name, variables[name], default, allowed)
                except ValueError as error:
                    refused[name] = str(error)
                else:
                    self.effective |= {name: value} if value != default else {}
        said = {"hash": f"{crc32(repr(self.effective).encode()):08x}", "settings": self.effective, "refused": refused}
        if variables or not first:
            self._answer(Event("settings.qo", said))

    def send_note(self, note: Inbound) -> None:
        if note.file == "capture.qi" and note.body:
            self._capture(note.body.get("id"))

    def signal(self, body: Fields) -> bool:
        if self.connected and "capture" in body:
            self._capture(body["capture"])
        return self.connected

    def offer(self, firmware: Firmware) -> None:
        self.running()
        is_alive = self.progress()[0] != "updating"
        self._has_it = is_alive and is_update(firmware.data) and self._runs(*_content(firmware))
        self.offered.append(firmware.name)
        self._firmware, self._offered_s = firmware, self.now_s()

    def withdraw(self) -> None:
        if self.progress()[0] in ("requested", "downloading"):
            self._firmware = None

    def running(self) -> Members:
        version, model = self.version, self.model
        if self._firmware is not None and not self._has_it and self._reports(self._firmware):
            kind, found = _content(self._firmware)
            version, model = (version, found) if kind is Kind.MODEL else (found, model)
            self._boot = len(self.offered)
        described = f"model {model}" if model else "no model"
        return {
            "version": version,
            "description": f"{described}, boot {crc32(f'{self.uid} {self._boot}'.encode()):08x}",
        }

    def progress(self) -> tuple[str, str]:
        if self._firmware is None:
            return "idle", ""
        if self._has_it:  # the firmware answers without a download, and without a start
            return "completed", "successful firmware update"
        elapsed_s = self.now_s() - self._offered_s
        if elapsed_s < self.download_s:
            return "downloading", f"{round(100 * elapsed_s / self.download_s)} %"
        if self._fate(self._firmware) is Fate.ERROR:
            return "error", "the file could not be downloaded"
        if elapsed_s < self.download_s + self.restart_s or self._fate(self._firmware) is Fate.SILENT:
            return "updating", "the host restarts"
        return "completed", "successful firmware update"

    def events(self) -> Sequence[Event]:
        due = [event for at_s, event in self._answers if at_s <= self.now_s()]
        self._answers = [(at_s, event) for at_s, event in self._answers if at_s > self.now_s()]
        return due

    def _runs(self, kind: Kind, content: str) -> bool:
        return content == (self.model if kind is Kind.MODEL else self.version)

    def _reports(self, firmware: Firmware) -> bool:
        """Whether the host reports the new one now."""
        since_s = self.now_s() - self._offered_s - self.download_s - self.restart_s
        fate = self._fate(firmware)
        if since_s < 0 or fate in (Fate.SILENT, Fate.ERROR):
            return False
        if fate is Fate.FALLS_BACK:
            return since_s < self.falls_back_s
        kind, found = _content(firmware)  # for good: the next update starts from here
        if kind is Kind.MODEL:
            self.model = found
        else:
            self.version = found
        return True

    def _fate(self, firmware: Firmware) -> Fate:
        return Fate.GOOD if _content(firmware)[1] in (self.version, self.model) else self.fate

    def _capture(self, request: object) -> None:
        body = {"id": request, "boot": f"{crc32(self.uid.encode()):08x}", "sequence": self.captures}
        self.captures += 1
        self._answer(Event("capture.qo", body))

    def _answer(self, event: Event) -> None:
        self._answers.append((self.now_s() + self.answer_s, event))


def _content(firmware: Firmware) -> tuple[Kind, str]:
    """Kind and version that a host reports after taking it."""
    if is_update(firmware.data):
        update = Update.parse(firmware.data)
        return update.kind, update.version
    return Kind.CODE, firmware.version


def fleet(
    now_s: Callable[[], float],
    devices: int,
    *,
    fail_percent: float = 0.0,
    fates: Iterable[Fate] = (Fate.SILENT, Fate.ERROR, Fate.FALLS_BACK),
    seed: int = 1,
) -> Project:
    """A project with so many devices in the fleet `machines`, of which some fail to update, each in its way."""
    random, ways = Random(seed), list(fates)
    project = Project(now_s)
    machines = project.add_fleet("machines")
    failing = set(random.sample(range(devices), round(devices * fail_percent / 100)))
    for number in range(devices):
        made = SimulatedDevice(
            f"dev:8644750400{number:05d}",
            now_s,
            fate=ways[number % len(ways)] if number in failing else Fate.GOOD,
            download_s=random.uniform(5, 30),
            restart_s=random.uniform(2, 10),
            answer_s=random.uniform(1, 10),
        )
        project.add(Entry(made, f"machine-{number:03d}", (machines,), ("lab",) if number < 2 else ()))
    return project
