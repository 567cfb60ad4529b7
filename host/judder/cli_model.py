"""Commands on models: where they come from, and what they say of recorded windows."""

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from judder.cli_store import Json, console, plain, refuse

if TYPE_CHECKING:
    from judder.model.file import Model
    from judder.model.impulse import Impulse

model_app = typer.Typer(no_args_is_help=True)
_MOST_BYTES = 256 * 1024 * 1024


@model_app.callback()
def models() -> None:
    """Models for the board: one file each."""


@model_app.command("import")
def import_model(
    source: Annotated[
        Path | None, typer.Argument(help="Zip of a deployment as C++ library; without it, Studio is asked.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The model file to write.")] = Path("model.bin"),
    tflite: Annotated[Path | None, typer.Option(help="The net, if the zip has it compiled (EON).")] = None,
    project: Annotated[
        int | None, typer.Option(help="Number of the project in Studio, if the key opens several.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where Studio's API is, if not at the real service.")] = None,
    api_key: Annotated[
        str, typer.Option(envvar="EDGE_IMPULSE_API_KEY", help="Key of the project.", show_default=False)
    ] = "",
    normal: Annotated[list[str] | None, typer.Option(help="Class that is no event; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """An impulse of Edge Impulse as a file that a board runs: from Studio, or from the zip of a deployment."""
    try:
        fields, data = _imported(source, tflite, project, url, api_key, normal or ())
    except ModuleNotFoundError as error:
        refuse(f"{error.name} is missing: pip install 'judder[model]'")
    fields["file"] = str(out)
    _write(out, data)
    if as_json:
        typer.echo(json.dumps(fields))
    else:
        _show(fields)


def _imported(
    source: Path | None, tflite: Path | None, project: int | None, url: str | None, api_key: str, normal: Sequence[str]
) -> tuple[dict[str, Any], bytes]:
    """What there is to say about the model, and its file, which has been read as a board reads it."""
    from judder.model.blocks import BlockError
    from judder.model.file import ModelError, from_bytes
    from judder.model.impulse import refused_by_boards, remarks

    try:
        if source is not None:
            impulse = _from_zip(source, tflite, studio=project is not None)
        else:
            impulse = _from_studio(project, url, api_key, tflite)
        data = impulse.model(normal).to_bytes()
        model, name = from_bytes(data)
    except (ModelError, BlockError) as error:
        refuse(f"{source or 'Edge Impulse'}: {_line(str(error))}")
    fields = _fields(model, name, data)
    fields["runs_on_boards"] = not any(refused_by_boards(block) for block in model.blocks)
    fields["remarks"] = remarks(impulse, model)
    return fields, data


def _from_zip(source: Path, tflite: Path | None, *, studio: bool) -> "Impulse":
    from judder.model import deployment

    if studio:
        refuse("give one of a zip and --project: the zip is of a project already")
    return deployment.read(_read(source), _read(tflite) if tflite else None)


def _from_studio(project: int | None, url: str | None, api_key: str, tflite: Path | None) -> "Impulse":
    from judder.model import studio

    if tflite:
        refuse("--tflite goes with a zip: Studio is asked for the net itself")
    if not api_key:
        refuse("set EDGE_IMPULSE_API_KEY to a key of the project (Studio: Dashboard, Keys), or give a deployment's zip")
    if not re.fullmatch(r"[!-~]+", api_key):
        refuse("EDGE_IMPULSE_API_KEY holds spaces or other characters that no key has: copy it from Studio again")
    url = url or studio.URL
    if not url.startswith(("https://", "http://")):
        refuse(f"--url {url}: it should start with https://, as {studio.URL} does")
    return asyncio.run(studio.fetch(api_key, project, url))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            refuse(f"{path}: {path.stat().st_size} bytes are too many for a model; up to {_MOST_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        refuse(f"{path}: {error.strerror}")


def _write(path: Path, data: bytes) -> None:
    """The whole file or none: whoever reads it at that moment has the one before."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        refuse(f"{path}: {error.strerror}")


def _line(text: str) -> str:
    """A text from outside, in one line without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _fields(model: "Model", name: str, data: bytes) -> dict[str, Any]:
    from judder.model import blocks

    return {
        "name": model.name,
        "source": model.source,
        "id": name,
        "bytes": len(data),
        "rate_hz": 1 / model.interval_s,
        "samples": model.samples,
        "blocks": list(model.blocks),
        "features": len(blocks.names(model.blocks, model.samples, 1 / model.interval_s)),
        "layers": [len(layer.bias) for layer in model.layers],
        "classes": list(model.classes),
        "normal": list(model.normal),
        "threshold": model.threshold if model.classes else None,
        "clusters": len(model.clusters.reach) if model.clusters else 0,
        "anomaly_threshold": model.clusters.threshold if model.clusters else None,
    }


def _show(fields: Mapping[str, Any]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (
        ("model", fields["name"]),
        ("source", fields["source"]),
        ("id", fields["id"]),
        ("bytes", fields["bytes"]),
        ("window", f"{fields['samples']} samples at {fields['rate_hz']:g} Hz"),
        ("blocks", "; ".join(map(_block, fields["blocks"]))),
        ("features", fields["features"]),
        ("classes", _classes(fields)),
        ("anomaly", _anomaly(fields)),
        ("boards", "run it" if fields["runs_on_boards"] else "refuse it, as said below"),
        ("file", fields["file"]),
    ):
        table.add_row(name, plain(str(value)))
    console.print(table)
    for line in fields["remarks"]:
        typer.echo(f"judder: {_line(line)}", err=True)


def _block(block: Mapping[str, Any]) -> str:
    axes = "".join("xyz"[axis] for axis in block["axes"])
    if block["type"] == "spectral":
        return f"spectral v{block['version']} of {axes}, FFT {block['fft']}"
    return f"{block['type']} of {axes}"


def _classes(fields: Mapping[str, Any]) -> str:
    names: Sequence[str] = [name + " (normal)" * (name in fields["normal"]) for name in fields["classes"]]
    return f"{', '.join(names)}; an event from {fields['threshold']:g}" if names else "none"


def _anomaly(fields: Mapping[str, Any]) -> str:
    if not fields["clusters"]:
        return "none"
    return f"{fields['clusters']} clusters; an event from {fields['anomaly_threshold']:g}"
