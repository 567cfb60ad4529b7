"""Commands on models: where they come from, and what they say of recorded windows."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from judder import plot
from judder.cli_store import (
    DEFAULT_DATA,
    Device,
    Flagged,
    Json,
    Label,
    RateHz,
    Since,
    Until,
    console,
    line_of,
    plain,
    refuse,
    store,
    tell_left_out,
    utc_time,
)
from judder.export import Selection, examples

if TYPE_CHECKING:
    from judder.model.file import Model
    from judder.model.recorded import Recorded
    from judder.model.run import Drift, Run
    from judder.model.train import Report
    from judder.report import Report as BoardReport

model_app = typer.Typer(no_args_is_help=True)

StoreData = Annotated[
    Path, typer.Option(help="Folder of the store, if no file is given.", envvar="JUDDER_DATA", show_default=True)
]


@model_app.callback()
def models() -> None:
    """Models for the board: one file each."""


@model_app.command()
def train(
    npz: Annotated[Path | None, typer.Argument(help="Export to train on; without it, the store.")] = None,
    data: StoreData = DEFAULT_DATA,
    device: Device = "*",
    label: Label = "",
    since: Since = None,
    until: Until = None,
    flagged: Flagged = False,
    rate_hz: RateHz = None,
    normal: Annotated[list[str] | None, typer.Option(help="Label of healthy windows; may be repeated.")] = None,
    fft: Annotated[int, typer.Option(help="Points of the spectrum: 16, 32, 64 ...")] = 32,
    clusters: Annotated[int | None, typer.Option(min=1, help="How many; default 1, with --standard 32.")] = None,
    standard: Annotated[bool, typer.Option("--standard", help="Plain K-means, as in Edge Impulse.")] = False,
    name: Annotated[str, typer.Option(help="Of the model, for people.")] = "trained",
    out: Annotated[Path, typer.Option(help="The model file to write.")] = Path("model.bin"),
    as_json: Json = False,
) -> None:
    """A model of healthy windows, and of labels if there are several, with what it is worth on held-out windows."""
    if npz is not None and rate_hz is not None:
        refuse("--rate-hz goes with the store: give it to judder export to have it in the file")
    selection = Selection(device, label, utc_time(since), utc_time(until), flagged=True, rate_hz=rate_hz)
    with _explained():
        from judder.model.train import Options, train

        recorded = _recorded([npz] if npz else [], data, selection)
        options = Options(name, tuple(normal or ()), fft, clusters, standard, flagged)
        with progress("features of windows", len(recorded)) as bar:
            trained = train(recorded, options, lambda done, total: bar.update(bar.task_ids[0], completed=done))
    save(out, trained.data)
    if as_json:
        typer.echo(json.dumps({"file": str(out)} | asdict(trained.report)))
    else:
        _tell_training(trained.report, trained.model, out)


@model_app.command()
def run(
    file: Annotated[Path, typer.Argument(help="The model file.")],
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Exports (npz) or files of frames; without any, the store.")
    ] = None,
    data: StoreData = DEFAULT_DATA,
    device: Device = "*",
    label: Label = "",
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """What the model says of each recorded window, and which features have moved since it was trained."""
    selection = Selection(device, label, utc_time(since), utc_time(until), flagged=True)
    with _explained():
        from judder.model import run as runs

        model, _, _ = read_model(file)
        recorded = _recorded(recordings or [], data, selection)
        with progress("windows scored", len(recorded)) as bar:
            found = runs.run(model, recorded, lambda: bar.advance(bar.task_ids[0]))
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        _tell_run(found, model)
    raise typer.Exit(0 if any(one.unfit is None for one in found.windows) else 1)


@model_app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="The model file.")],
    as_json: Json = False,
) -> None:
    """What is in a model file; it has proved itself on its golden window."""
    with _explained():
        model, name, content = read_model(file)
        fields = fields_of(model, name, len(content))
    if as_json:
        typer.echo(json.dumps(fields))
    else:
        show(fields, {"boards": "; ".join(refusals(model)) or "run it"})


@model_app.command()
def drift(
    file: Annotated[Path, typer.Argument(help="The model file.")],
    data: StoreData = DEFAULT_DATA,
    device: Device = "*",
    as_json: Json = False,
) -> None:
    """How far each board that runs this model is from what it was trained on, from the boards' newest reports."""
    with _explained():
        from judder.model import run as runs

        model, name, _ = read_model(file)
        with store(data) as queue:
            reports = [one for one in queue.newest_reports() if fnmatchcase(one.device, device)]
        found = [_of_report(one, runs.drift_of(model, one)) for one in reports if one.model == name]
    if not found:
        refuse(f"no board has reported with model {name} yet: judder devices shows which model each runs")
    if as_json:
        typer.echo(json.dumps({"devices": found}))
        return
    table = plain_table("device", "reported (UTC)", "scored", "events", "moved most, in standard deviations")
    for one in found:
        moved = ", ".join(f"{feature['feature']} {feature['deviations']:+.1f}" for feature in one["drift"])
        cells = (one["device"], (one["written_at"] or "-")[:16].replace("T", " "), one["scored"], one["events"], moved)
        table.add_row(*("-" if cell in (None, "") else plain(str(cell)) for cell in cells))
    console.print(table)


def _of_report(report: "BoardReport", moved: "Sequence[Drift]") -> dict[str, Any]:
    return {
        "device": report.device,
        "written_at": report.written_at and report.written_at.isoformat(),
        "scored": report.scored,
        "events": report.events,
        "unsent": report.unsent,
        "unfit": report.unfit,
        "windows": report.feature_windows,
        "drift": [asdict(one) for one in moved],
    }


# --- in and out -------------------------------------------------------------------------------------------------------


@contextmanager
def _explained() -> Iterator[None]:
    """What goes wrong with windows and models is one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        refuse(f"{error.name} is missing: pip install 'judder[model]'")
    except ValueError as error:  # TrainError, ModelError, BlockError, RecordedError
        refuse(line_of(str(error)))


def _recorded(files: Sequence[Path], data: Path, selection: Selection) -> "list[Recorded]":
    """Of files, or of the store; at least one."""
    from judder.model.recorded import from_examples, from_files

    if files:
        found = from_files(files, selection)
    else:
        with store(data) as queue:
            skipped: list[str] = []
            found = list(from_examples(examples(queue, selection, skipped.append)))
            tell_left_out(skipped)
    if not found:
        refuse("no window fits the selection" + ("" if files else ": see judder queue status"))
    return found


def read_model(path: Path) -> "tuple[Model, str, bytes]":
    """With its id and the file; it has proved itself."""
    with _explained():
        from judder.model.file import ModelError, from_bytes

        try:
            data = path.read_bytes()
            return *from_bytes(data), data
        except OSError as error:
            refuse(f"{path}: {error.strerror}")
        except ModelError as error:
            refuse(f"{path}: {line_of(str(error))}")


def refusals(model: "Model") -> list[str]:
    """Why boards will refuse it."""
    from judder.model.impulse import refused_by_boards

    return [reason for block in model.blocks for reason in refused_by_boards(block)]


def model_for_boards(path: Path) -> bytes:
    """The file of a model that boards can run."""
    model, _, content = read_model(path)
    if reasons := refusals(model):
        refuse(f"{path}: {reasons[0]}")
    return content


def save(path: Path, data: bytes) -> None:
    """The whole file or none: whoever reads it at that moment has the one before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        refuse(f"{path}: {error.strerror}")


def progress(what: str, total: int | None = None) -> Progress:
    """On stderr, if somebody looks at it; gone when it is done."""
    log = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=log, transient=True, disable=not log.is_terminal)
    bar.add_task(what, total=total)
    return bar


# --- what people see --------------------------------------------------------------------------------------------------


def plain_table(*columns: str) -> Table:
    """Without lines; and without columns' names, of names and values."""
    table = Table(*columns, box=None, pad_edge=False, show_header=bool(columns))
    if not columns:
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
    return table


def _tell_training(report: "Report", model: "Model", out: Path) -> None:
    kind = f"{report.clusters} in {report.directions} of {len(model.clusters.features if model.clusters else ())}"
    table = plain_table()
    for name, value in (
        ("model", f"{model.name}, {report.id}, {report.bytes} bytes"),
        ("trained on", f"{report.windows} windows, {report.device_days} days of devices: {_counted(report.labels)}"),
        ("left out", _counted(report.left_out) or "none"),
        ("healthy", ", ".join(label or "without a label" for label in report.normal)),
        ("blocks", "; ".join(_block(block) for block in model.blocks)),
        ("clusters", f"{kind} directions"),
        ("held out", report.held_out_by),
        ("threshold", f"{report.threshold:.3f}"),
        ("false alarms", f"{report.false_alarms} of {report.healthy} held-out healthy windows"),
        ("file", str(out)),
    ):
        table.add_row(name, plain(value))
    console.print(table)
    _tell_scores(report)
    _tell_labels(report)
    for line in report.remarks:
        typer.echo(f"judder: {line_of(line)}", err=True)


def _tell_scores(report: "Report") -> None:
    quantiles = list(next(iter(report.scores.values())).quantiles)
    table = plain_table("scores", "windows", *(f"{percent} %" for percent in quantiles))
    for name, found in report.scores.items():
        table.add_row(plain(name), str(found.windows), *(f"{found.quantiles[percent]:.2f}" for percent in quantiles))
    console.print()
    console.print(table)
    others = [0] * (len(report.edges) - 1)
    for name, found in report.scores.items():
        if name.startswith("label ") and name.removeprefix("label ") not in report.normal:
            others = [one + other for one, other in zip(others, found.counts, strict=True)]
    simple = not console.encoding.lower().startswith("utf")
    width = min(console.width, 100)
    console.print("\nscores of held-out healthy windows" + (", and of other labels (lighter)" if any(others) else ""))
    drawn = plot.histogram(
        report.edges, report.scores["held out"].counts, others, report.threshold, width, plain=simple
    )
    console.print(drawn, markup=False, highlight=False)


def _tell_labels(report: "Report") -> None:
    if not report.confusion:
        return
    classes = sorted({name for found in report.confusion.values() for name in found})
    table = plain_table("held out, taken for", *(plain(name) or "not known" for name in classes))
    for label, found in report.confusion.items():
        table.add_row(plain(label), *(str(found.get(name, 0)) for name in classes))
    console.print()
    console.print(table)
    table = plain_table("what tells them apart", "labels", "standard deviations")
    for one in report.separating:
        table.add_row(one["feature"], plain(" / ".join(one["labels"])), f"{one['deviations']:.1f}")
    console.print()
    console.print(table)


def _tell_run(found: "Run", model: "Model") -> None:
    table = plain_table("window", "device", "taken (UTC)", "label", "anomaly", "class", "")
    for one in found.windows:
        table.add_row(
            one.name,
            plain(one.device) or "-",
            "-" if one.taken_at is None else one.taken_at[:19].replace("T", " "),
            plain(one.label),
            "-" if one.anomaly is None else f"{one.anomaly:.2f}",
            "-" if one.class_name is None else f"{plain(one.class_name)} {one.probability:.0%}",
            "event" if one.event else one.unfit or "",
        )
    console.print(table)
    unfit = Counter(one.unfit for one in found.windows if one.unfit)
    scored = len(found.windows) - sum(unfit.values())
    limit = f", threshold {model.clusters.threshold:.2f}" if model.clusters else ""
    console.print(f"\n{scored} windows scored, {sum(one.event for one in found.windows)} of them events{limit}")
    for reason, number in sorted(unfit.items()):
        console.print(f"{number} not scored: {reason}", highlight=False, soft_wrap=True)
    if not found.drift:
        return
    table = plain_table("moved most since training", "standard deviations", "mean", "in training")
    for moved in found.drift:
        table.add_row(moved.feature, f"{moved.deviations:+.2f}", f"{moved.mean:.4g}", f"{moved.trained:.4g}")
    console.print()
    console.print(table)


def _counted(found: dict[str, int]) -> str:
    return ", ".join(f"{number} {name or 'without a label'}" for name, number in found.items())


def fields_of(model: "Model", name: str, size: int) -> dict[str, Any]:
    """What there is to say about a model; `name` is its id."""
    from judder.model import blocks

    of = model.clusters
    return {
        "name": model.name,
        "source": model.source,
        "id": name,
        "bytes": size,
        "rate_hz": 1 / model.interval_s,
        "samples": model.samples,
        "full_scale_g": model.full_scale_g,
        "blocks": list(model.blocks),
        "features": len(blocks.names(model.blocks, model.samples, 1 / model.interval_s)),
        "layers": [len(layer.bias) for layer in model.layers],
        "classes": list(model.classes),
        "normal": list(model.normal),
        "threshold": model.threshold if model.classes else None,
        "clusters": len(of.reach) if of else 0,
        "clustered_features": len(of.features) if of else 0,
        "directions": None if of is None or of.projection is None else len(of.projection),
        "anomaly_threshold": of.threshold if of else None,
    }


def show(fields: Mapping[str, Any], more: Mapping[str, object]) -> None:
    """A model in a table, with `more` lines at its end."""
    full_scale = "" if fields["full_scale_g"] is None else f", +-{fields['full_scale_g']} g"
    table = plain_table()
    for name, value in {
        "model": fields["name"],
        "source": fields["source"],
        "id": fields["id"],
        "bytes": fields["bytes"],
        "window": f"{fields['samples']} samples at {fields['rate_hz']:g} Hz{full_scale}",
        "blocks": "; ".join(map(_block, fields["blocks"])),
        "features": fields["features"],
        "classes": _classes(fields),
        "anomaly": _anomaly(fields),
        **more,
    }.items():
        table.add_row(name, plain(str(value)))
    console.print(table)


def _block(block: Mapping[str, Any]) -> str:
    axes = "".join("xyz"[axis] for axis in block["axes"])
    if block["type"] != "spectral":
        return f"{block['type']} of {axes}"
    kind = block.get("filter", "none")
    of = "" if kind == "none" else f", {kind}-pass {block['cutoff_hz']:g} Hz"
    return f"spectral v{block['version']} of {axes}, FFT {block['fft']}{of}"


def _classes(fields: Mapping[str, Any]) -> str:
    names: Sequence[str] = [name + " (normal)" * (name in fields["normal"]) for name in fields["classes"]]
    return f"{', '.join(names)}; an event from {fields['threshold']:g}" if names else "none"


def _anomaly(fields: Mapping[str, Any]) -> str:
    if not fields["clusters"]:
        return "none"
    of = f"{fields['directions'] or fields['clustered_features']} of {fields['clustered_features']} directions"
    return f"{fields['clusters']} clusters in {of}; an event from {fields['anomaly_threshold']:g}"
