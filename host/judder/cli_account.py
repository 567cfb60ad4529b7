"""Commands on what is not in the store, and on what boards say about themselves. They work beside a running server."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from judder.account import Account
from judder.cli_store import DEFAULT_DATA, Data, Device, Json, console, plain, store
from judder.report import Report

_WIDTH = 160  # where no terminal says how wide it is


def losses(data: Data = DEFAULT_DATA, device: Device = "*", as_json: Json = False) -> None:
    """Windows of each boot: captured, stored, lost and why, missing without a reason, and still to come.

    A boot that was cut off may have captured more than is known.
    """
    with store(data) as queue:
        accounts = queue.accounts(device)
    if as_json:
        typer.echo(json.dumps({"boots": [_fields(one) for one in accounts]}))
        return
    table = _table("device", "boot", "captured", "stored", "on the way", "missing", "lost", "ended")
    for one in accounts:
        table.add_row(
            plain(one.device) or "-",
            f"{one.boot:08x}",
            str(one.captured),
            str(one.stored),
            str(one.on_the_way),
            str(one.missing),
            _reasons(one.lost),
            "no" if not one.ended else "cut off" if one.tail_unknown else "yes",
        )
    _print(table)


def _fields(account: Account) -> dict[str, object]:
    seen_at = _time(account.seen_us)
    fields = asdict(account) | {"boot": f"{account.boot:08x}", "seen_at": seen_at and seen_at.isoformat()}
    del fields["seen_us"]
    return fields


def devices(data: Data = DEFAULT_DATA, device: Device = "*", as_json: Json = False) -> None:
    """Each device in a line: when it was last heard of, what its newest report says, and what it has lost."""
    with store(data) as queue:
        accounts = queue.accounts(device)
        reports = {report.device: report for report in queue.newest_reports()}
    by_device: dict[str, list[Account]] = {}
    for account in accounts:
        by_device.setdefault(account.device, []).append(account)
    lines = [_line(name, boots, reports.get(name)) for name, boots in by_device.items()]
    if as_json:
        typer.echo(json.dumps({"devices": lines}))
        return
    columns = ("device", "last seen (UTC)", "up", "waiting", "V", "bars", "I2C errors", "stored", "missing", "lost")
    table = _table(*columns, "scored", "events")
    for line in lines:
        uptime_s = line["uptime_s"]
        cells = (
            line["device"],
            line["seen_at"] and line["seen_at"][:16].replace("T", " "),
            None if uptime_s is None else f"{uptime_s / 3600:.1f} h",
            *(line[name] for name in ("waiting", "voltage_v", "bars", "bus_errors", "stored", "missing")),
            _reasons(line["lost"]),
            line["scored"],
            line["events"],
        )
        table.add_row(*("-" if cell in (None, "") else plain(str(cell)) for cell in cells))
    _print(table)


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[:2]:  # they tell one line from the next
        column.no_wrap = True
        column.overflow = "fold"
    return table


def _print(table: Table) -> None:
    (console if console.is_terminal else Console(width=_WIDTH)).print(table)


def _line(device: str, boots: Sequence[Account], report: Report | None) -> dict[str, Any]:
    lost: Counter[str] = Counter()
    for one in boots:
        lost.update(one.lost)
    seen_at = _time(max(one.seen_us for one in boots))
    return {
        "device": device,
        "seen_at": seen_at and seen_at.isoformat(timespec="seconds"),
        "firmware": report and report.firmware,
        "model": report and report.model,
        "model_refused": report and report.model_refused,
        "reset": report and report.reset,
        "uptime_s": report and report.uptime_s,
        "waiting": report and report.waiting,
        "voltage_v": report and report.voltage_v,
        "bars": report and report.bars,
        "bus_errors": report and report.bus_errors,
        "stored": sum(one.stored for one in boots),
        "missing": sum(one.missing for one in boots),
        "lost": dict(lost),
        "scored": report and report.scored,
        "events": report and report.events,
        "unsent": report and report.unsent,
        "unfit": report and report.unfit,
        "unfit_because": report and report.unfit_because,
    }


def _reasons(lost: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in sorted(lost.items())) or "0"


def _time(us: int) -> datetime | None:
    return datetime.fromtimestamp(us // 1_000_000, UTC) if us else None
