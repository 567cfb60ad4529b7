"""Commands on the fleet by Notehub's API: route, env, capture."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from judder.cli_store import Json, console, line_of, plain, refuse, say

if TYPE_CHECKING:
    from judder.config import Config
    from judder.fleet import Selection
    from judder.notehub import Call, Notehub, Scope

T = TypeVar("T")

env_app = typer.Typer(no_args_is_help=True, help="Settings of boards, set remotely (docs/fleet.md).")

Devices = Annotated[list[str] | None, typer.Option("--device", help="UID (dev:...) or serial number; may be repeated.")]
Fleets = Annotated[list[str] | None, typer.Option("--fleet", help="Name or UID of a fleet; may be repeated.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Devices with this tag; may be repeated.")]
Everywhere = Annotated[bool, typer.Option("--project", help="For all devices of the project.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the calls that would change something; make none.")]

now_s: Callable[[], float] = time.time
sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
"""With `now_s`, the time of all commands here: a test gives them another."""


def configured() -> "Config":
    """With what it takes to ask Notehub."""
    from judder.config import Config, ConfigError

    try:
        config = Config.load()
    except ConfigError as error:
        refuse(str(error))
    if not config.notehub_token.get_secret_value():
        refuse("set JUDDER_NOTEHUB_TOKEN to a personal access token (notehub.io/api-access), see docs/fleet.md")
    if not config.notehub_project:
        refuse("set JUDDER_NOTEHUB_PROJECT to the UID of the project (app:...) or of its product")
    return config


def ask(
    work: "Callable[[Notehub], Awaitable[T]]", plan: "list[Call] | None" = None, *, shows_itself: bool = False
) -> T:
    """What `work` gives with the project's Notehub; what fails is one line. With `plan`, calls go there instead.

    `shows_itself`: it has a display of its own, and a terminal has room for one.
    """
    from judder.fleet import FleetError
    from judder.forwarder import is_trouble
    from judder.notehub import NotehubError, connected
    from judder.release import ReleaseError

    config = configured()
    token, project = config.notehub_token.get_secret_value(), config.notehub_project
    planned = None if plan is None else plan.append

    async def asked() -> T:
        async with connected(token, project, config.notehub_url, sleep=sleep, plan=planned) as hub:
            return await work(hub)

    try:
        with nullcontext() if shows_itself else _waiting("Notehub"):
            return asyncio.run(asked())
    except (FleetError, ReleaseError) as error:
        refuse(line_of(str(error)))
    except NotehubError as error:
        if error.status and not is_trouble(error.status):
            refuse(line_of(str(error)))
        typer.echo(f"judder: {line_of(str(error))}", err=True)
        raise typer.Exit(1) from None


def _waiting(what: str) -> Progress:
    """On stderr, if somebody looks at it; gone when it is done."""
    log = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=log, transient=True, disable=not log.is_terminal)
    bar.add_task(what, total=None)
    return bar


def tell_plan(calls: "Sequence[Call]", *, as_json: bool) -> None:
    """The calls of a dry run, one a line."""
    shown = [
        {
            "method": call.method,
            "path": call.path,
            "body": f"{len(call.body)} bytes" if isinstance(call.body, bytes) else call.body,
        }
        for call in calls
    ]
    if as_json:
        typer.echo(json.dumps({"dry_run": True, "calls": shown}))
        return
    for one in shown:
        typer.echo(f"{one['method']} {one['path']}" + ("" if one["body"] is None else f"  {json.dumps(one['body'])}"))
    if not shown:
        typer.echo("nothing to do")


# --- route ------------------------------------------------------------------------------------------------------------


def route(
    url: Annotated[str, typer.Argument(help="Where `judder serve` is reached from outside: https://...")],
    alias: Annotated[str, typer.Option(help="As ROUTE in the boards' settings.")] = "ingest",
    change: Annotated[bool, typer.Option("--change", help="Change a route that is otherwise.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """The proxy route that boards post through: made if there is none, checked if there is one."""
    from judder import route as routes

    config = configured()
    token = (config.ingest_token_next or config.ingest_token).get_secret_value()
    _check_url(url, token)
    calls: list[Call] | None = [] if dry_run else None
    outcome = ask(lambda hub: routes.bring(hub, routes.proxy(url, token, alias), change=change), calls)
    wrong = outcome.did == "nothing" and bool(outcome.differs)
    if calls is not None:
        tell_plan([replace(one, body=routes.without_token(one.body)) for one in calls], as_json=as_json)
    else:
        about = f": {'; '.join(map(line_of, outcome.differs))}" if outcome.differs else ""
        sentence = {
            "created": f"created: {alias} leads to {url}",
            "changed": f"changed{about}",
            "nothing": f"route {alias} differs{about}; --change makes it so" if wrong else "it is as it should be",
        }[outcome.did]
        say({"alias": alias, "url": url, "did": outcome.did, "differs": outcome.differs}, sentence, as_json=as_json)
    raise typer.Exit(1 if wrong and not dry_run else 0)


def _check_url(url: str, token: str) -> None:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of an address in brackets, of a port
        is_url = False
    if not is_url:
        refuse(f"{url!r} is no URL: give one like https://windows.example.com")
    if parts.path.rstrip("/").endswith("/ingest"):
        refuse(f"{url}: leave /ingest out, boards add it themselves")
    near = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not (token or near):
        refuse("set JUDDER_INGEST_TOKEN as the server has it: anybody could post to it otherwise")
    if parts.scheme == "http" and not near:
        typer.echo("judder: over http anybody on the way can read the token: use https", err=True)


# --- env --------------------------------------------------------------------------------------------------------------


@env_app.command("set")
def set_settings(
    settings: Annotated[list[str], typer.Argument(help="NAME=VALUE, as in settings.example.toml.")],
    device: Devices = None,
    fleet: Fleets = None,
    project: Everywhere = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Set settings; checked first as the board itself checks them."""
    from judder import environment

    try:
        variables = environment.checked(settings)
    except (environment.SettingError, FileNotFoundError) as error:
        refuse(line_of(str(error)))

    async def work(hub: "Notehub") -> "list[Scope]":
        scopes = await _scopes(hub, device, fleet, project=project)
        for scope in scopes:
            await hub.set_variables(scope, variables)
        return scopes

    _change(work, {"set": variables}, "set", dry_run=dry_run, as_json=as_json)


@env_app.command()
def unset(
    names: Annotated[list[str], typer.Argument(help="NAME of each setting.")],
    device: Devices = None,
    fleet: Fleets = None,
    project: Everywhere = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take settings away: what is wider applies again, in the end the board's own settings.toml."""
    from judder import environment

    try:
        for name in names:
            environment.row(name)
    except (environment.SettingError, FileNotFoundError) as error:
        refuse(line_of(str(error)))

    async def work(hub: "Notehub") -> "list[Scope]":
        scopes = await _scopes(hub, device, fleet, project=project)
        for scope in scopes:
            for name in names:
                await hub.unset_variable(scope, name)
        return scopes

    _change(work, {"unset": names}, "unset", dry_run=dry_run, as_json=as_json)


def _change(
    work: "Callable[[Notehub], Awaitable[list[Scope]]]",
    result: dict[str, Any],
    did: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    calls: list[Call] | None = [] if dry_run else None
    scopes = [f"{one.kind} {one.uid}".strip() for one in ask(work, calls)]
    if calls is not None:
        tell_plan(calls, as_json=as_json)
    else:
        say(result | {"scopes": scopes}, f"{did} for {', '.join(scopes)}; see judder env status", as_json=as_json)


async def _scopes(
    hub: "Notehub", devices: list[str] | None, fleets: list[str] | None, *, project: bool
) -> "list[Scope]":
    """Whose variables are meant. Raises FleetError."""
    from judder.fleet import FleetError, fleet_uids, select
    from judder.notehub import PROJECT, Scope

    if not (devices or fleets or project):
        raise FleetError("say for whom: --device, --fleet or --project")
    found = [PROJECT] if project else []
    found += [Scope("fleet", uid) for uid in await fleet_uids(hub, fleets)] if fleets else []
    found += [Scope("device", one.uid) for one in (await select(hub, devices)).devices] if devices else []
    return found


@env_app.command()
def get(device: Devices = None, fleet: Fleets = None, project: Everywhere = False, as_json: Json = False) -> None:
    """The variables of a scope itself; of all settings that reach a device: judder env status."""

    async def work(hub: "Notehub") -> dict[str, dict[str, str]]:
        scopes = await _scopes(hub, device, fleet, project=project)
        return {f"{one.kind} {one.uid}".strip(): await hub.variables(one) for one in scopes}

    found = ask(work)
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("scope", "setting", "value", box=None, pad_edge=False)
    for scope, variables in found.items():
        for name, value in sorted(variables.items()):
            table.add_row(plain(scope), plain(name), plain(value))
    console.print(table)


@env_app.command()
def status(device: Devices = None, fleet: Fleets = None, tag: Tags = None, as_json: Json = False) -> None:
    """What is wanted of each device, what it says is in effect, and why it refused a value."""
    from judder import environment
    from judder.fleet import select

    async def work(hub: "Notehub") -> list[environment.Report]:
        chosen: Selection = await select(hub, device or (), fleet or (), tag or ())
        return await environment.status(hub, chosen.devices)

    found = ask(work)
    if as_json:
        typer.echo(json.dumps({"devices": [asdict(one) for one in found]}))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("device", "said (UTC)", "setting", "wanted", "by", "effective", "state"):
        table.add_column(column, no_wrap=column == "setting", overflow="fold")
    for one in found:
        name = plain(one.serial_number or one.device)
        said = (one.said_at or "never")[:16].replace("T", " ")
        for setting in one.settings or (None,):
            if setting is None:
                table.add_row(name, said, "-", "-", "-", "-", "nothing is wanted")
                continue
            effective = "-" if setting.effective is None else plain(str(setting.effective))
            state = setting.state + (f": {plain(setting.reason)}" if setting.reason else "")
            table.add_row(name, said, plain(setting.name), plain(setting.wanted), setting.scope, effective, state)
    console.print(table)


# --- capture ----------------------------------------------------------------------------------------------------------


def capture(
    devices: Annotated[list[str], typer.Argument(help="UIDs (dev:...) or serial numbers.")],
    request: Annotated[str, typer.Option("--id", help="Of the request; a device takes each only once.")] = "",
    signal: Annotated[bool, typer.Option("--signal", help="Now or never: only devices that are connected.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Until they name the window they captured.")] = False,
    timeout_min: Annotated[float, typer.Option(min=0, help="With --wait, how long.")] = 15.0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Have devices capture a window now, whatever their schedule."""
    from judder import capture as captures
    from judder.fleet import select

    request = request or captures.new_id()
    if len(request.encode()) > captures.ID_BYTES:
        refuse(f"--id has {len(request.encode())} bytes: a device takes up to {captures.ID_BYTES}")
    calls: list[Call] | None = [] if dry_run else None

    async def work(hub: "Notehub") -> tuple[list[str], list[str], list[captures.Captured]]:
        uids = [one.uid for one in (await select(hub, devices)).devices]
        deaf = await captures.ask(hub, uids, request, signal=signal)
        heard = [uid for uid in uids if uid not in deaf]
        if not wait or dry_run or not heard:
            return uids, deaf, []
        return uids, deaf, await captures.answers(hub, heard, request, timeout_min * 60, now_s=now_s, sleep=sleep)

    uids, deaf, answers = ask(work, calls)
    if calls is not None:
        tell_plan(calls, as_json=as_json)
        return
    answered = {one.device for one in answers}
    silent = [uid for uid in uids if wait and uid not in answered and uid not in deaf]
    if as_json:
        windows = [asdict(one) for one in answers]
        typer.echo(json.dumps({"id": request, "devices": uids, "not_connected": deaf, "windows": windows}))
    else:
        typer.echo(f"asked {len(uids) - len(deaf)} devices, id {request}")
        for one in answers:
            typer.echo(line_of(f"{one.device} {one.boot}:{one.sequence}"))
    for uid in deaf:
        typer.echo(f"judder: {uid} is not connected and will not hear of it: leave --signal out", err=True)
    for uid in silent:
        typer.echo(f"judder: {uid} has not answered after {timeout_min:g} min", err=True)
    raise typer.Exit(1 if deaf or silent else 0)
