"""`judder model import`: an impulse of Edge Impulse as a model file."""

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judder import cli_model
from judder.cli_store import Json, line_of, refuse

if TYPE_CHECKING:
    from judder.model.impulse import Impulse

_MOST_BYTES = 256 * 1024 * 1024


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
    cli_model.save(out, data)
    if as_json:
        typer.echo(json.dumps(fields))
    else:
        runs = "run it" if fields["runs_on_boards"] else "refuse it, as said below"
        cli_model.show(fields, {"boards": runs, "file": out})
        for line in fields["remarks"]:
            typer.echo(f"judder: {line_of(line)}", err=True)


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
        refuse(f"{source or 'Edge Impulse'}: {line_of(str(error))}")
    fields = cli_model.fields_of(model, name, len(data))
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
