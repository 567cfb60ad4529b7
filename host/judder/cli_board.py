"""Commands for a board on USB: deploy and doctor; and an emulated board to try them on."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console as Terminal
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from judder import deploy as deployment
from judder import doctor as examination
from judder import usb
from judder.board import RING_FILE
from judder.cli_store import refuse
from judder.console import Console, follow
from judder.deploy import Plan
from judder.drive import ConsoleDrive, FolderDrive
from judder.drive import Progress as WrittenBytes

terminal = Terminal(stderr=True, highlight=False)

Port = Annotated[str | None, typer.Option(help="Serial port of the board; found by itself if there is one board.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def deploy(
    port: Port = None,
    drive: Annotated[
        Path | None, typer.Option(help="Copy onto the drive CIRCUITPY, mounted here, instead of over the port.")
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
    try:
        with _board(port, optional=drive is not None) as console:
            target = FolderDrive(drive) if drive is not None else ConsoleDrive(_required(console))
            if service:
                deployment.ask_for_service_mode(target)
                intended = None
            else:
                with _progress() as bar:
                    intended = deployment.deploy(
                        target,
                        console.identity if console is not None else None,
                        on_plan=lambda found: None if dry_run else _start(bar, found),
                        any_board=any_board,
                    )
            where = str(drive) if console is None else console.port
            _finish(console, restart=not dry_run and (intended is None or not intended.nothing))
        _tell(where, intended, dry_run=dry_run, as_json=as_json)
        if console is not None and not dry_run and watch_s:
            _watch(where, watch_s)
    except usb.BoardError as error:
        refuse(str(error))
    except BrokenPipeError:  # ours, to whoever reads what we print
        raise
    except OSError as error:
        refuse(f"{error.filename or drive}: {error.strerror or error}")


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
        terminal.print("all well" if not ill else f"{len(ill)} thing{'s' * (len(ill) > 1)} to put right")
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


@contextmanager
def _progress() -> Iterator[Progress]:
    with Progress(
        TextColumn("writing"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=terminal, transient=True
    ) as bar:
        yield bar


def _start(bar: Progress, found: Plan) -> WrittenBytes:
    task = bar.add_task("write", total=found.bytes_to_write)
    return lambda written: bar.advance(task, written)


def _finish(console: Console | None, *, restart: bool) -> None:
    """Start the board anew, or only the firmware that we have stopped."""
    if console is None:
        return
    if restart:
        console.reset()
    else:
        console.resume()


def _tell(where: str, intended: Plan | None, *, dry_run: bool, as_json: bool) -> None:
    if intended is None:
        say = f"{where}: service mode after the reset; the drive belongs to this computer until the next judder deploy"
        typer.echo(json.dumps({"port": where, "service": True}) if as_json else say)
        return
    if as_json:
        result = {
            "port": where,
            "dry_run": dry_run,
            "written": list(intended.changed),
            "unchanged": len(intended.unchanged),
            "removed": [*intended.defaults, *intended.obsolete],
            "renamed": list(intended.replaced),
            "bytes": intended.bytes_to_write,
            "remarks": list(intended.remarks),
        }
        typer.echo(json.dumps(result))
        return
    for line in _sentences(intended, dry_run=dry_run):
        typer.echo(f"{where}: {line}")


def _sentences(intended: Plan, *, dry_run: bool) -> Iterator[str]:
    would = "would be " if dry_run else ""
    if intended.nothing:
        yield f"up to date: {len(intended.unchanged)} files"
    if intended.changed:
        count, kilobytes = len(intended.changed), -(-intended.bytes_to_write // 1024)
        yield f"{count} files {would}written ({kilobytes} KB), {len(intended.unchanged)} unchanged"
    if dry_run:
        yield from (f"{path} differs" for path in intended.changed)
    for path in [*intended.defaults, *intended.obsolete]:
        yield f"{path} {would}removed"
    for path in intended.replaced:
        yield f"{path} {would}renamed to {path}{deployment.KEPT}: it would run instead of main.py"
    if intended.ring_bytes:
        yield f"{RING_FILE} {would}made, {intended.ring_bytes // 1024} KB"
    if intended.leaves_service_mode:
        yield f"service mode {would}ended"
    yield from intended.remarks


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
    typer.echo("", nl=False)
    terminal.print(f"{mark} {escape(finding.check):20} {escape(finding.text)}", soft_wrap=True)
