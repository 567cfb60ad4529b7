"""The demo's way back: boards that run one version get another through Notehub, and what becomes of it.

All of it is what users do: two images of `judder image build`, pushed by the same release that `judder release` makes,
against the emulated Notehub's HTTP API. The good version replaces the old one. The bad one, which cannot start, never
reports; so the release stops by its rule, and the old version is brought back in the same way.
"""

import asyncio
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory

from judder import image, notehub, release, rollout
from judder.board import Tree, tree
from judder.emulator import notehub_api, program
from judder.emulator.bench import Bench
from judder.emulator.notehub_project import CardDevice, Entry, Project
from judder.fleet import select
from judder.window import Window

OLD, NEW = "1.0.0", "1.1.0"
FLEET = "demo"
TOKEN = "demo"  # noqa: S105  # the emulated service's own
TIMEOUT_S = 1800.0
INTERVAL_S = 60.0
_BROKEN = "raise SystemError('this version cannot start')\n"


class Update(StrEnum):
    """What the second version is."""

    good = "good"
    bad = "bad"


@dataclass
class Outcome:
    """Of the update; `release` is how its release ended, `runs` what the boards' last windows say."""

    update: str
    version_before: str = OLD
    version_pushed: str = NEW
    release: str = ""
    reason: str = ""
    rolled_back: bool = False
    runs: str = ""
    image_bytes: int = 0
    took_s: float = 0.0
    """Of the boards' time, from the push until the last board was through."""


@dataclass
class Overhaul:
    """What to bring to boards that are made from `image`. `settings`: text of the images' settings.toml."""

    update: Update
    settings: str
    windows_before: int
    outcome: Outcome = field(init=False)
    _folder: "TemporaryDirectory[str]" = field(default_factory=lambda: TemporaryDirectory(prefix="judder-images-"))

    def __post_init__(self) -> None:
        self.outcome = Outcome(str(self.update))
        self.image = self._built(OLD, tree())
        new = tree() if self.update is Update.good else self._broken()
        self.outcome.image_bytes = len(self._built(NEW, new))

    def turn(self, benches: Sequence[Bench], windows: Iterable[Window]) -> None:
        """Push the new version, and the old one again if need be; the benches' time goes on meanwhile."""
        before_s = [bench.clock.now_ns() / 1e9 for bench in benches]
        asyncio.run(self._release(benches))
        after_s = [bench.clock.now_ns() / 1e9 for bench in benches]
        self.outcome.took_s = max(after - before for before, after in zip(before_s, after_s, strict=True))
        self._folder.cleanup()

    async def _release(self, benches: Sequence[Bench]) -> None:
        project = Project(now_s=lambda: benches[0].clock.utc_ns() / 1e9)
        fleet = project.add_fleet(FLEET)
        for bench in benches:
            project.add(Entry(CardDevice(bench.notecard), fleets=(fleet,)))
        service = notehub_api.NotehubApi(project, TOKEN)

        async def sleep(seconds: float) -> None:
            for bench in benches:
                bench.run_for(seconds)

        async with (
            notehub_api.running(service),
            notehub.connected(TOKEN, project.uid, service.url, sleep=sleep) as hub,
        ):

            async def bring(version: str, *, again: bool = False) -> release.Release:
                path = self._path(version)
                chosen = await select(hub, (), (FLEET,), ())
                planned = release.plan(
                    release.read(path),
                    chosen.devices,
                    chosen.filters,
                    source=path,
                    timeout_s=TIMEOUT_S,
                    max_failed="0",
                    again=again,
                    now_s=project.now_s(),
                )
                journal = release.Journal(path.with_suffix(".json"))
                await rollout.run(planned, hub, journal, now_s=project.now_s, sleep=sleep, interval_s=INTERVAL_S)
                return planned

            pushed = await bring(NEW)
            self.outcome.release, self.outcome.reason = str(pushed.state), pushed.reason
            if pushed.state is not release.State.DONE:
                returned = await bring(OLD, again=True)
                self.outcome.rolled_back = returned.state is release.State.DONE

    def go_on(self, bench: Bench, every_s: float) -> None:
        """With at least one window of what it runs now."""
        bench.run(len(bench.captured) + 1)

    def judge(self, versions: Sequence[str]) -> list[str]:
        """What is wrong, by the firmware that each board's last window names; a line each."""
        self.outcome.runs = ", ".join(sorted(set(versions)))
        wanted = f"judder {NEW if self.update is Update.good else OLD}"
        wrong = [f"a board's last window is of {found}, not of {wanted}" for found in versions if found != wanted]
        if (self.outcome.release == release.State.DONE) != (self.update is Update.good):
            wrong.append(f"the release of a {self.update} version ended {self.outcome.release}")
        if self.update is Update.bad and not self.outcome.rolled_back:
            wrong.append("the old version was not brought back")
        return wrong

    def _path(self, version: str) -> Path:
        return Path(self._folder.name) / f"judder-{version}.binpack"

    def _built(self, version: str, source: Tree) -> bytes:
        contents = image.Contents(version, settings=self.settings.encode(), source=source)
        data = image.build(contents, program.stand_in()).data
        self._path(version).write_bytes(data)
        return data

    def _broken(self) -> Tree:
        ours = tree()
        device = Path(self._folder.name) / "device"
        shutil.copytree(ours.device, device, ignore=shutil.ignore_patterns("__pycache__"))
        (device / "node" / "node.py").write_text(_BROKEN)
        return replace(ours, device=device)
