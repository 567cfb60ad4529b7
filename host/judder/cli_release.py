"""`judder release`: firmware and models to the boards of a fleet, wave by wave, with a rule that stops it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from judder import cli_fleet
from judder.cli_fleet import Devices, DryRun, Fleets, Tags, ask, tell_plan
from judder.cli_model import refusals
from judder.cli_store import DEFAULT_DATA, Data, Json, console, line_of, plain, refuse

if TYPE_CHECKING:
    from judder.artefact import Artefact
    from judder.notehub import Call, Notehub
    from judder.release import Journal, Release

release_app = typer.Typer(no_args_is_help=True, help="Firmware and models to a fleet (docs/fleet.md).")

Id = Annotated[str | None, typer.Argument(help="Of the release; default: the newest.")]
StateFile = Annotated[Path | None, typer.Option("--state", help="File that the release is kept in.")]
TimeoutMin = Annotated[float, typer.Option(min=0.25, help="Until devices of a wave have to report it.")]
MaxFailed = Annotated[str, typer.Option(help="Devices of a wave that may fail: a number, or a percentage like 5%.")]
IntervalS = Annotated[float, typer.Option(min=15, help="Between looks; Notehub allows few requests a minute.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return after the first step; `watch` goes on.")]
_SHOWN = 30  # devices while it is going on; judder release status has all


@release_app.command()
def push(
    file: Annotated[Path, typer.Argument(help="Binpack, update file, or model of judder model.")],
    fleet: Fleets = None,
    device: Devices = None,
    tag: Tags = None,
    percent: Annotated[float | None, typer.Option(help="Of the devices, always the same ones.")] = None,
    wave: Annotated[str | None, typer.Option(help="Percentages, one wave after the other: 5,25,100.")] = None,
    version: Annotated[str | None, typer.Option(help="Of a binpack that does not say.")] = None,
    timeout_min: TimeoutMin = 120.0,
    max_failed: MaxFailed = "5%",
    interval_s: IntervalS = 30.0,
    data: Data = DEFAULT_DATA,
    state: StateFile = None,
    no_wait: NoWait = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Upload a file, and have it on the devices; an interrupted one goes on when it is repeated."""
    from judder import release as releases
    from judder import rollout
    from judder.fleet import select

    percents = _percents(percent, wave)
    try:
        artefact = releases.read(file, version)
    except releases.ReleaseError as error:
        refuse(line_of(str(error)))
    _check(file, artefact)
    calls: list[Call] | None = [] if dry_run else None

    async def work(hub: "Notehub") -> "tuple[Release, Journal]":
        chosen = await select(hub, device or (), fleet or (), tag or ())
        planned = releases.plan(
            artefact,
            chosen.devices,
            chosen.filters,
            source=file,
            project=hub.project,
            percents=percents,
            timeout_s=timeout_min * 60,
            max_failed=max_failed,
            now_s=cli_fleet.now_s(),
        )
        made, journal = _placed(planned, data, state)
        if made is planned:
            await rollout.check_version(made, hub)
        return await _go_on(hub, made, journal, interval_s, no_wait=no_wait, dry_run=dry_run)

    _tell_end(*ask(work, calls, shows_itself=not dry_run), calls, no_wait=no_wait, as_json=as_json)


@release_app.command()
def status(release: Id = None, data: Data = DEFAULT_DATA, state: StateFile = None, as_json: Json = False) -> None:
    """Each device: phase, running version and model, since when."""
    from judder import release as releases
    from judder import rollout

    journal = _found(release, data, state)

    async def work(hub: "Notehub") -> "Release":
        found = journal.load()
        if found.state is not releases.State.PLANNED:
            await rollout.look(found, hub)
        return found

    found = ask(work)
    if as_json:
        typer.echo(json.dumps(_result(found, journal)))
    else:
        console.print(_headline(found), markup=False, highlight=False, soft_wrap=True)
        console.print(_table(releases.rows(found)))


@release_app.command()
def watch(
    release: Id = None,
    interval_s: IntervalS = 30.0,
    data: Data = DEFAULT_DATA,
    state: StateFile = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Go on with a release, wave after wave, and show it."""
    journal = _found(release, data, state)

    async def work(hub: "Notehub") -> "tuple[Release, Journal]":
        return await _go_on(hub, journal.load(), journal, interval_s, no_wait=no_wait, dry_run=False)

    _tell_end(*ask(work, shows_itself=True), None, no_wait=no_wait, as_json=as_json)


@release_app.command()
def cancel(
    release: Id = None,
    data: Data = DEFAULT_DATA,
    state: StateFile = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start no further wave, and call off downloads that have not come to their end."""
    from judder import release as releases

    journal = _found(release, data, state)
    calls: list[Call] | None = [] if dry_run else None

    async def work(hub: "Notehub") -> "tuple[Release, Journal]":
        found = journal.load()
        await _cancelled(hub, found, journal, dry_run=dry_run)
        return found, journal

    found, journal = ask(work, calls)
    if calls is not None:
        tell_plan(calls, as_json=as_json)
    else:
        _tell(found, journal, as_json=as_json)
    raise typer.Exit(0 if dry_run or found.state is releases.State.CANCELLED else 1)


@release_app.command()
def rollback(
    release: Id = None,
    to: Annotated[str | None, typer.Option(help="FILE, or VERSION that Notehub has; default: the one before.")] = None,
    timeout_min: TimeoutMin = 120.0,
    max_failed: MaxFailed = "5%",
    interval_s: IntervalS = 30.0,
    data: Data = DEFAULT_DATA,
    state: StateFile = None,
    no_wait: NoWait = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Bring the devices that were started back to what they ran before, as a release of its own."""
    from judder import release as releases

    beside = None if state is None else state.with_name(f"{state.stem}-back.json")
    unfinished = None if release or to else _unfinished_rollback(data, beside)
    journal = unfinished or _found(release, data, state, undo=True)
    if unfinished:
        typer.echo(f"judder: {line_of(unfinished.path.stem)} was interrupted and goes on as it was planned", err=True)
    calls: list[Call] | None = [] if dry_run else None

    async def work(hub: "Notehub") -> "tuple[Release, Journal]":
        found = journal.load()
        if unfinished:
            return await _go_on(hub, found, journal, interval_s, no_wait=no_wait, dry_run=dry_run)
        devices = _started(found)
        artefact, source, firmware = await _earlier(hub, found, to)
        await _cancelled(hub, found, journal, dry_run=dry_run)
        planned = releases.plan(
            artefact,
            devices,
            {"deviceUID": [one.uid for one in devices]},
            source=source,
            firmware=firmware,
            project=hub.project,
            timeout_s=timeout_min * 60,
            max_failed=max_failed,
            again=True,
            rolls_back=found.id,
            now_s=cli_fleet.now_s(),
        )
        return await _go_on(hub, *_placed(planned, data, beside), interval_s, no_wait=no_wait, dry_run=dry_run)

    _tell_end(*ask(work, calls, shows_itself=not dry_run), calls, no_wait=no_wait, as_json=as_json)


async def _earlier(hub: "Notehub", found: "Release", to: str | None) -> "tuple[Artefact, Path | None, Any]":
    """What to go back to, as a file here or one at Notehub. Raises ReleaseError."""
    from judder import release as releases
    from judder import rollout
    from judder.artefact import ArtefactError, recognise

    if to is not None and Path(to).is_file():
        artefact = releases.read(Path(to))
        _check(Path(to), artefact)
        return artefact, Path(to), None
    firmware = await (rollout.previous(found, hub) if to is None else rollout.stored(hub, to))
    try:
        artefact = recognise(await hub.download(firmware.name), firmware.version or None)
    except ArtefactError as error:
        raise releases.ReleaseError(f"{firmware.name} at Notehub: {error}") from None
    if firmware.md5 and artefact.md5 != firmware.md5:
        raise releases.ReleaseError(f"{firmware.name} came from Notehub with another md5 than it has there: repeat it")
    return artefact, None, firmware


def _started(found: "Release") -> "Sequence[Any]":
    """The devices of a release that were. Raises ReleaseError."""
    from judder.notehub import Device
    from judder.release import ReleaseError

    asked = found.asked()
    if not asked:
        raise ReleaseError(f"release {found.id} has started no device: there is nothing to roll back")
    return [Device(uid, found.targets[uid].serial_number, (), "") for uid in asked]


async def _cancelled(hub: "Notehub", found: "Release", journal: "Journal", *, dry_run: bool) -> None:
    """Call a release off unless it is over."""
    from judder import release as releases
    from judder import rollout

    if found.is_over:
        return
    if dry_run:
        await rollout.look(found, hub)
        await rollout.call_off(found, hub)
        return
    with journal.alone():
        releases.cancel(found)
        journal.save(found)
        await rollout.run(found, hub, journal, now_s=cli_fleet.now_s, sleep=cli_fleet.sleep)


async def _go_on(
    hub: "Notehub", release: "Release", journal: "Journal", interval_s: float, *, no_wait: bool, dry_run: bool
) -> "tuple[Release, Journal]":
    """Carry a release out, or make its calls to nobody. Raises ReleaseError, NotehubError."""
    from judder import rollout

    if dry_run:
        await rollout.rehearse(release, hub)
        return release, journal
    with journal.alone():
        journal.save(release)
        if no_wait:
            while not release.is_over and await rollout.advance(release, hub, journal, cli_fleet.now_s):
                pass
            return release, journal
        log = Console(stderr=True)
        lively = Live(console=log, transient=True, auto_refresh=False) if log.is_terminal else None
        with lively or nullcontext():
            await rollout.run(
                release,
                hub,
                journal,
                now_s=cli_fleet.now_s,
                sleep=cli_fleet.sleep,
                interval_s=interval_s,
                on_step=_Shown(lively),
            )
    return release, journal


class _Shown:
    """What is told of each step: a live table for people, else a line when something has changed."""

    def __init__(self, lively: Live | None) -> None:
        self._lively = lively
        self._told = ""

    def __call__(self, release: "Release") -> None:
        from judder import release as releases

        if self._lively is not None:
            going_on = [row for row in releases.rows(release) if row["phase"] not in ("done", "not started")]
            table = _table(going_on[:_SHOWN])
            table.title = f"{plain(_headline(release))}\n{plain(_progress(release))}"
            self._lively.update(table, refresh=True)
        elif (line := _progress(release)) != self._told:
            typer.echo(f"judder: {line}", err=True)
            self._told = line


def _placed(planned: "Release", data: Path, state: Path | None) -> "tuple[Release, Journal]":
    """Where it is kept; the one that is under way, if it is the same. Raises ReleaseError."""
    from judder.release import Journal, ReleaseError

    folder = data / "releases"
    for path in [state] if state else sorted(folder.glob("*.json")):
        if not path.exists():
            continue
        other = Journal(path).load()
        if other.is_over or other.id == planned.rolls_back:  # which a dry run leaves as it is
            continue
        if _same(planned, other):
            return other, Journal(path)
        if state or not set(planned.targets).isdisjoint(other.targets):
            raise ReleaseError(
                f"release {other.id} of {other.what} is under way on these devices: judder release watch or cancel it"
            )
    if state:
        return planned, Journal(state)
    first, number = planned.id, 2
    while (folder / f"{planned.id}.json").exists():
        planned.id, number = f"{first}-{number}", number + 1
    return planned, Journal(folder / f"{planned.id}.json")


def _same(one: "Release", other: "Release") -> bool:
    def asked(release: "Release") -> tuple[object, ...]:
        percents = [wave.percent for wave in release.waves]
        way = release.filters, percents, release.timeout_s, release.max_failed
        return release.md5, release.project, release.rolls_back, *way

    return asked(one) == asked(other)


def _found(name: str | None, data: Path, state: Path | None, *, undo: bool = False) -> "Journal":
    """The release that is meant, by default the newest; to `undo`, the newest that itself undoes none."""
    from judder.release import Journal

    project, folder = cli_fleet.configured().notehub_project, data / "releases"
    kept = _kept(folder.glob("*.json") if state is None else [state])
    path = state or folder / f"{name}.json"
    if state is None and name is None:
        chosen = {path: one for path, one in kept.items() if one.project == project and not (undo and one.rolls_back)}
        if not chosen:
            refuse(f"no release of {project} in {folder}: judder release push FILE --fleet NAME makes one")
        return Journal(_newest(chosen))
    if path not in kept:
        there = ", ".join(sorted(one.stem for one in kept)) or "none"
        refuse(f"no release {line_of(str(name))} in {folder}; there are {there}")
    if kept[path].project != project:
        line = f"release {kept[path].id} is of project {kept[path].project}, and JUDDER_NOTEHUB_PROJECT is {project}"
        refuse(line_of(line))
    return Journal(path)


def _unfinished_rollback(data: Path, beside: Path | None) -> "Journal | None":
    """The newest rollback that was interrupted; `beside`: where it would be kept."""
    from judder.release import Journal

    project = cli_fleet.configured().notehub_project
    paths = (data / "releases").glob("*.json") if beside is None else [beside] * beside.exists()
    kept = _kept(paths).items()
    chosen = {path: one for path, one in kept if one.rolls_back and not one.is_over and one.project == project}
    return Journal(_newest(chosen)) if chosen else None


def _kept(paths: Iterable[Path]) -> "dict[Path, Release]":
    from judder.release import Journal, ReleaseError

    try:
        return {path: Journal(path).load() for path in paths}
    except ReleaseError as error:
        refuse(line_of(str(error)))


def _newest(kept: "Mapping[Path, Release]") -> Path:
    return max(kept, key=lambda path: (kept[path].created_at_s, path))


def _percents(percent: float | None, wave: str | None) -> Sequence[float]:
    if percent is not None and wave is not None:
        refuse("give one of --percent and --wave")
    if wave is None:
        return (100.0 if percent is None else percent,)
    try:
        return tuple(float(one) for one in wave.split(","))
    except ValueError:
        refuse(f"--wave {line_of(wave)}: give rising percentages, as 5,25,100")


def _check(path: Path, artefact: "Artefact") -> None:
    """Nothing is wrong with it, and of a model, boards do not refuse it."""
    from judder.inspection import InspectionError, inspect

    try:
        found = inspect(artefact.data)
    except InspectionError as error:
        refuse(f"{path}: {line_of(str(error))}")
    except ModuleNotFoundError as error:
        refuse(f"{error.name} is missing: pip install 'judder[model]'")
    if found.wrong:
        refuse(f"{path}: {line_of(found.wrong[0])}")
    if found.update and artefact.model:
        from judder.model.file import from_bytes

        if reasons := refusals(from_bytes(found.update.content)[0]):
            refuse(f"boards would refuse model {artefact.model}: {line_of('; '.join(reasons))}")
    for remark in found.remarks:
        typer.echo(f"judder: {line_of(remark)}", err=True)


# --- what people and programs see -------------------------------------------------------------------------------------


def _tell_end(
    release: "Release", journal: "Journal", calls: "list[Call] | None", *, no_wait: bool, as_json: bool
) -> None:
    from judder.release import State

    if calls is not None:
        tell_plan(calls, as_json=as_json)
        return
    _tell(release, journal, as_json=as_json)
    ok = release.state is State.DONE or (no_wait and not release.is_over)
    raise typer.Exit(0 if ok else 1)


def _tell(release: "Release", journal: "Journal", *, as_json: bool) -> None:
    """The result, and on stderr every device that failed."""
    result = _result(release, journal)
    typer.echo(json.dumps(result) if as_json else f"{_headline(release)}; {_progress(release)}")
    for row in result["failing"]:
        running = row["model"] if release.model else row["version"]
        name = f"{row['device']} {row['serial_number']}".strip()
        line = f"{name} does not report it: {row['phase']}, runs {running or 'nothing known'}"
        typer.echo(f"judder: {line_of(line)}", err=True)


def _result(release: "Release", journal: "Journal") -> dict[str, Any]:
    from judder import release as releases

    now_s = cli_fleet.now_s()
    rows = releases.rows(release)
    late = set(release.failing(now_s))
    return {
        "release": release.id,
        "version": release.version,
        "model": release.model,
        "firmware": release.firmware,
        "state": release.state,
        "reason": release.reason,
        "waves": [
            {
                "percent": wave.percent,
                "devices": len(wave.devices),
                "done": len(wave.devices) - len(release.missing(wave)),
                "may_fail": release.allowed(wave),
                "started_at_s": wave.started_at_s,
            }
            for wave in release.waves
        ],
        "failing": [row for row in rows if row["device"] in late],
        "devices": rows,
        "file": str(journal.path),
    }


def _headline(release: "Release") -> str:
    return f"{release.what}: {release.state}" + (f", {release.reason}" if release.reason else "")


def _progress(release: "Release") -> str:
    """How many of each wave report it."""
    parts = []
    for number, wave in enumerate(release.waves, 1):
        counts = Counter(release.is_done(device) for device in wave.devices)
        waits = "" if wave.started_at_s is not None else ", not started"
        parts.append(f"wave {number}: {counts[True]} of {len(wave.devices)}{waits}")
    return "; ".join(parts)


def _table(rows: Sequence[Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("device", "serial number", "wave", "phase", "version", "model", "since (UTC)"):
        table.add_column(name, no_wrap=name in ("device", "since (UTC)"), overflow="fold")
    for row in rows:
        cells = (row["device"], row["serial_number"], row["wave"], row["phase"], row["version"], row["model"])
        since = str(row["since"])[:16].replace("T", " ")
        table.add_row(*(plain(str(cell)) or "-" for cell in cells), plain(since) or "-")
    return table
