"""Commands for a board on USB: deploy and doctor; and an emulated board to try them on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console as Terminal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from judder import deploy as deployment
from judder import doctor as examination
from judder import usb
from judder.board import RING_BYTES, RING_FILE, SLOT_FOLDER
from judder.cli_model import model_for_boards
from judder.cli_store import refuse
from judder.console import Console, follow
from judder.deploy import Plan
from judder.drive import ConsoleDrive, Drive, FolderDrive
from judder.drive import Progress as WrittenBytes

terminal = Terminal(stderr=True, highlight=False)
results = Terminal(highlight=False)

Port = Annotated[str | None, typer.Option(help="Serial port of the board; found by itself if there is one board.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def deploy(
    port: Port = None,
    drive: Annotated[
        Path | None, typer.Option(help="Copy onto the drive CIRCUITPY, mounted here, instead of over the port.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model for the board; without it, the one that is there stays.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what differs and change nothing.")] = False,
    service: Annotated[
        bool,
        typer.Option("--service", help="Only give the drive to this computer (service mode), until the next deploy."),
    ] = False,
    any_board: Annotated[bool, typer.Option("--any-board", help="Accept another board than the Swan.")] = False,
    watch_s: Annotated[float, typer.Option(min=0, max=3600, help="Show what the board prints afterwards.")] = 15,
    as_json: Json = False,
) -> None:
    """Install or update the firmware on a board: only what differs, verified, safe against a pulled cable."""
    if model is not None and service:
        refuse("give one of --model and --service")
    content = None if model is None else model_for_boards(model)
    try:
        with _board(port, optional=drive is not None) as console:
            where = str(drive) if console is None else console.port
            target: Drive = FolderDrive(drive) if drive is not None else ConsoleDrive(_required(console))
            if service:
                deployment.ask_for_service_mode(target, dry_run=dry_run, any_board=any_board)
                intended = None
            else:
                intended = _install(target, content, dry_run=dry_run, any_board=any_board)
            if console is not None:
                console.needs_reset = not dry_run
        _tell(where, target.identity.board, intended, dry_run=dry_run, as_json=as_json)
        if console is None:
            terminal.print("press RESET on the board")
        elif not dry_run and watch_s:
            _watch(where, watch_s)
    except BrokenPipeError:  # ours, to whoever reads what we print
        raise
    except usb.BoardError as error:
        _fail(str(error), as_json=as_json)
    except OSError as error:
        _fail(f"{error.filename or drive}: {error.strerror or error}", as_json=as_json)


def _install(target: Drive, model: bytes | None, *, dry_run: bool, any_board: bool) -> Plan:
    with Progress(
        TextColumn("writing"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,
    ) as bar:

        def start(found: Plan) -> WrittenBytes | None:
            if dry_run:
                return None
            task = bar.add_task("write", total=found.bytes_to_write + sum(found.slots.values()))
            return lambda written: bar.advance(task, written)

        return deployment.deploy(target, on_plan=start, any_board=any_board, model=model)


def _fail(message: str, *, as_json: bool) -> NoReturn:
    """One line, exit code 1: the board is not as it should be."""
    if as_json:
        typer.echo(json.dumps({"error": message}))
    typer.echo(f"judder: {message}", err=True)
    raise typer.Exit(1)


def doctor(port: Port = None, as_json: Json = False) -> None:
    """Examine the board: USB, console, drive, firmware, sensor, Notecard; each thing wrong with what to do."""
    findings = []
    for finding in examination.examine(port):
        findings.append(finding)
        if not as_json:
            _show(finding)
    ill = [finding for finding in findings if finding.ok is False]
    if as_json:
        typer.echo(json.dumps({"well": not ill, "findings": [finding.as_dict() for finding in findings]}))
    else:
        results.print("all well" if not ill else f"{_count(len(ill), 'thing')} to put right")
    raise typer.Exit(1 if ill else 0)


@contextmanager
def _board(port: str | None, *, optional: bool) -> Iterator[Console | None]:
    """The board's console. With `optional`, None when there is no board on a port."""
    try:
        found = port or usb.find(usb.look())
    except usb.BoardError:
        if not optional:
            raise
        yield None
        return
    with Console(found) as console:
        if console.farewell:
            terminal.print(f"the firmware has {escape(console.farewell)}", soft_wrap=True)
        yield console


def _required(console: Console | None) -> Console:
    if console is None:
        raise usb.BoardError(usb.why_none(usb.look()))
    return console


def _tell(where: str, board: str, intended: Plan | None, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"port": where, "board": board, "dry_run": dry_run, **_as_dict(intended)}))
        return
    for line in _sentences(intended, "would be " if dry_run else ""):
        typer.echo(f"{where}: {line}")


def _as_dict(intended: Plan | None) -> dict[str, object]:
    if intended is None:
        return {"service": True}
    return {
        "written": list(intended.changed),
        "unchanged": len(intended.unchanged),
        "bytes": intended.bytes_to_write,
        "removed": intended.removed,
        "renamed": intended.kept,
        "ring_made": intended.makes_ring,
        "slots_made": list(intended.slots),
        "slots_dropped": list(intended.dropped),
        "service_mode_ended": intended.leaves_service_mode,
        "remarks": list(intended.remarks),
    }


def _sentences(intended: Plan | None, would: str) -> Iterator[str]:
    if intended is None:
        yield f"service mode {would}from the reset on: the drive belongs to this computer until the next judder deploy"
        return
    if intended.nothing:
        yield f"up to date: {_count(len(intended.unchanged), 'file')}"
    if intended.changed:
        kilobytes = -(-intended.bytes_to_write // 1024)
        written = _count(len(intended.changed), "file")
        yield f"{written} {would}written ({kilobytes} KB), {len(intended.unchanged)} unchanged"
    if would:
        yield from (f"{path} differs" for path in intended.changed)
    yield from (f"{path} {would}removed" for path in intended.removed)
    yield from (f"{path} {would}kept as {other}" for path, other in intended.kept.items())
    if intended.makes_ring:
        yield f"{RING_FILE} {would}made, {RING_BYTES // 1024} KB"
    if intended.leaves_service_mode:
        yield f"service mode {would}ended"
    if SLOT_FOLDER in intended.folders:
        yield f"{SLOT_FOLDER}/ {would}made"
    if intended.slots:
        kilobytes = sum(intended.slots.values()) // 1024
        yield f"{', '.join(intended.slots)} {would}made for updates by file, {kilobytes} KB"
    if again := [name for name in intended.dropped if name in intended.slots]:
        yield f"{', '.join(again)} {would}emptied by that: what an update has brought there is for another firmware"
    yield from intended.remarks


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _watch(port: str, duration_s: float) -> None:
    """What the board prints, until it has captured a window."""
    terminal.print("the board says:")
    silent = True
    for line in follow(port, duration_s):
        silent = False
        terminal.print(f"  {escape(line)}", soft_wrap=True)
        if line.startswith("window") and "captured" in line:
            break
    if silent:
        terminal.print("  nothing; if it stays so: judder doctor")


def _show(finding: examination.Finding) -> None:
    mark = {True: "[green]ok[/]", False: "[red]!![/]", None: "  "}[finding.ok]
    results.print(f"{mark} {escape(finding.check):20} {escape(finding.text)}", soft_wrap=True)
