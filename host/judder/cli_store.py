"""Commands on what the server keeps: queue, label, export. They work beside a running server."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from judder.export import Example, Selection, examples, write_csv, write_npz
from judder.group_commit import QueueError
from judder.queue import Queue
from judder.records import LabelRule, State

queue_app = typer.Typer(no_args_is_help=True, help="What the server keeps, and where it is on its way.")
console = Console()

Data = Annotated[Path, typer.Option(help="Folder of the store.", envvar="JUDDER_DATA")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Device = Annotated[str, typer.Option(help="Only windows of devices like this, as in file names.")]
Label = Annotated[str, typer.Option(help="Only windows with this label.")]
Since = Annotated[str | None, typer.Option(help="Taken at or after, as 2026-05-04T12:00 (UTC).")]
Until = Annotated[str | None, typer.Option(help="Taken before.")]
Flagged = Annotated[bool, typer.Option("--flagged", help="Flagged windows too.")]
RateHz = Annotated[float | None, typer.Option(help="Bring all to exactly this rate.")]
DEFAULT_DATA = Path("judder-data")
_TOLD = 20  # windows that are left out, by name


def refuse(message: str) -> NoReturn:
    """One line on stderr, exit code 2: the call was wrong."""
    typer.echo(f"judder: {message}", err=True)
    raise typer.Exit(2)


@contextmanager
def store(data: Path) -> Iterator[Queue]:
    """The store in `data`; whatever fails is one line."""
    try:
        with Queue(data, beside=True) as queue:
            yield queue
    except QueueError as error:
        refuse(str(error))


def plain(text: str) -> str:
    """A text that came over the air, fit to be shown: no markup, no control characters."""
    return escape("".join(character if character.isprintable() else "?" for character in text))


def say(result: dict[str, object], sentence: str, *, as_json: bool) -> None:
    """The result, for a program or for a person."""
    typer.echo(json.dumps(result) if as_json else sentence)


@queue_app.command()
def status(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """How many windows wait, are held, delivered or dead, and since when."""
    with store(data) as queue:
        counts, paused = queue.counts(), queue.switches().get("paused") == "yes"
        oldest_us = queue.oldest_us(State.WAITING)
        reasons: dict[str, dict[str, int]] = {"held": {}, "dead": {}}
        for state, found in reasons.items():
            for stored in queue.stored(State(state)):
                found[stored.reason] = found.get(stored.reason, 0) + 1
        quarantined = len(queue.quarantined())
    waiting_s = None if oldest_us is None else round(time.time() - oldest_us / 1e6, 1)
    if as_json:
        result: dict[str, object] = {str(state): count for state, count in counts.items()}
        result |= {"quarantined": quarantined, "paused": paused, "oldest_waiting_s": waiting_s, "reasons": reasons}
        typer.echo(json.dumps(result))
        return
    table = Table("state", "windows", "why", box=None)
    for state, count in counts.items():
        why = "; ".join(f"{number} x {reason}" for reason, number in reasons.get(state, {}).items())
        if state is State.WAITING and waiting_s is not None:
            why = f"the oldest for {waiting_s:.0f} s" + (", delivery is paused" if paused else "")
        table.add_row(state, str(count), why)
    table.add_row("quarantine", str(quarantined), "bodies that were refused")
    console.print(table)


@queue_app.command()
def dead(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """The windows that cannot be delivered, with the reason."""
    with store(data) as queue:
        found = [
            {"device": one.device, "boot": f"{one.boot:08x}", "sequence": one.sequence, "reason": one.reason}
            for one in queue.stored(State.DEAD)
        ]
    if as_json:
        typer.echo(json.dumps({"dead": found}))
        return
    for one in found:
        typer.echo(f"{one['device']} {one['boot']}:{one['sequence']}  {one['reason']}")


@queue_app.command()
def replay(
    data: Data = DEFAULT_DATA,
    device: Device = "*",
    held: Annotated[bool, typer.Option("--held", help="Those that are held instead of the dead.")] = False,
    as_json: Json = False,
) -> None:
    """Give dead (or held) windows another chance."""
    with store(data) as queue:
        number = queue.reopen(State.HELD if held else State.DEAD, device).result()
    say({"reopened": number}, f"{number} windows wait again", as_json=as_json)


@queue_app.command()
def purge(
    data: Data = DEFAULT_DATA,
    older_than_days: Annotated[float, typer.Option(min=0, help="Settled longer ago than this.")] = 30,
    dead_too: Annotated[bool, typer.Option("--dead", help="Dead windows too, not only delivered ones.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Forget the samples of delivered windows; their keys stay, so that a repeat is still known as one."""
    before_us = round((time.time() - older_than_days * 86400) * 1e6)
    states = [State.DELIVERED, *([State.DEAD] if dead_too else [])]
    with store(data) as queue:
        if dry_run:
            number = sum(queue.count_settled(state, before_us) for state in states)
        else:
            number = sum(queue.purge(state, before_us).result() for state in states)
    say({"purged": 0 if dry_run else number, "would_purge": number}, f"{number} windows", as_json=as_json)


@queue_app.command()
def pause(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Deliver nothing until told to go on. Windows are still taken in."""
    with store(data) as queue:
        queue.switch("paused", "yes").result()
    say({"paused": True}, "delivery is paused", as_json=as_json)


@queue_app.command()
def resume(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Go on delivering."""
    with store(data) as queue:
        queue.switch("paused", "no").result()
    say({"paused": False}, "delivery goes on", as_json=as_json)


@queue_app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="File to write.")], data: Data = DEFAULT_DATA, as_json: Json = False
) -> None:
    """Copy the store as it is now, while the server runs."""
    if target.exists():
        refuse(f"{target} exists: choose a new name")
    with store(data) as queue:
        queue.backup(target)
    say({"file": str(target), "bytes": target.stat().st_size}, f"copied to {target}", as_json=as_json)


def label(
    name: Annotated[str, typer.Argument(help="The label.")],
    data: Data = DEFAULT_DATA,
    device: Device = "*",
    session: Annotated[str, typer.Option(help="Only windows of this session.")] = "",
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Label windows that carry no label themselves: those there, and those to come."""
    if not name.strip():
        refuse("a label cannot be empty")
    rule = LabelRule(name, device, session, _microseconds(since), _microseconds(until))
    with store(data) as queue:
        number = queue.add_label(rule).result()
    say(asdict(rule) | {"reopened": number}, f"{number} held windows are looked at again", as_json=as_json)


def export(
    data: Data = DEFAULT_DATA,
    npz: Annotated[Path | None, typer.Option(help="Write arrays to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one line a sample to this file.")] = None,
    device: Device = "*",
    label: Label = "",
    since: Since = None,
    until: Until = None,
    flagged: Flagged = False,
    rate_hz: RateHz = None,
    testing_fraction: Annotated[float, typer.Option(min=0, max=1, help="Of device-days.")] = 0.2,
    as_json: Json = False,
) -> None:
    """Everything needed to train without Edge Impulse."""
    if (npz is None) == (csv is None):
        refuse("give one of --npz FILE and --csv FILE")
    selection = Selection(
        device=device,
        label=label,
        since=utc_time(since),
        until=utc_time(until),
        flagged=flagged,
        rate_hz=rate_hz,
        testing_fraction=testing_fraction,
    )
    skipped: list[str] = []
    with store(data) as queue:
        found: Iterator[Example] = examples(queue, selection, skipped.append)
        try:
            number = write_npz(found, npz) if npz is not None else write_csv(found, csv) if csv is not None else 0
        except (ValueError, OSError) as error:
            refuse(str(error))
    tell_left_out(skipped)
    target = npz or csv
    say(
        {"windows": number, "left_out": len(skipped), "file": str(target)},
        f"{number} windows in {target}, {len(skipped)} left out",
        as_json=as_json,
    )


def tell_left_out(reasons: Sequence[str]) -> None:
    """On stderr: the first of them, and how many more."""
    for reason in reasons[:_TOLD]:
        typer.echo(f"judder: left out: {line_of(reason)}", err=True)
    if len(reasons) > _TOLD:
        typer.echo(f"judder: left out: {len(reasons) - _TOLD} more", err=True)


def line_of(text: str) -> str:
    """A text from outside, in one line without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def utc_time(text: str | None) -> datetime | None:
    """Of an option."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        refuse(f"{text!r} is no time: give it as 2026-05-04 or 2026-05-04T12:00")
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _microseconds(text: str | None) -> int | None:
    found = utc_time(text)
    return None if found is None else round(found.timestamp() * 1e6)
