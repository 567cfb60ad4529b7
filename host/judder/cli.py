"""The command line: options in, exit codes out; what a command does lives in the module of its name.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 the result is bad (a frame refused, a window
lost), 2 the call was wrong, 130 interrupted.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from judder import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Trustworthy vibration windows: from an LIS3DH over a Notecard into a durable store.",
)
log = Console(stderr=True)


def refuse(message: str) -> NoReturn:
    """One line on stderr, exit code 2: the call was wrong."""
    typer.echo(f"judder: {message}", err=True)
    raise typer.Exit(2)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Options before the command."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


class Runtime(StrEnum):
    """What may play the Swan's interpreter."""

    cpython = "cpython"


@app.command()
def demo(
    windows: Annotated[int, typer.Option(min=1, help="Windows from each device.")] = 200,
    devices: Annotated[int, typer.Option(min=1, max=64, help="Devices, each on a bench of its own.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Draws each part's deviations and every disturbance.")] = 1,
    fault: Annotated[
        str | None, typer.Option(help="Something that goes wrong; see `judder demo --fault list`.")
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="CSV, npz or WAV to play into the sensor instead.")] = None,
    replay_unit: Annotated[
        str | None, typer.Option(help="Unit of the recording when it does not say: g, mg, m/s2; WAV: 2g = full scale.")
    ] = None,
    replay_rate_hz: Annotated[float | None, typer.Option(help="Rate of the recording when it does not say.")] = None,
    runtime: Annotated[Runtime, typer.Option(help="Interpreter that runs the firmware.")] = Runtime.cpython,
    data: Annotated[Path | None, typer.Option(help="Folder for the windows; default: a new temporary one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Run the whole loop on the emulated bench: no hardware, no account."""
    from judder import show
    from judder.emulator.recording import Recording, RecordingError

    del runtime  # one choice so far
    try:
        recording = Recording.load(replay, replay_unit, replay_rate_hz) if replay else None
    except RecordingError as error:
        refuse(str(error))
    ok = show.demo(windows, devices, seed, fault, recording, data, as_json=as_json)
    raise typer.Exit(0 if ok else 1)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one; default 8080.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the store; default judder-data.")] = None,
    article_interval_ms: Annotated[
        float | None, typer.Option(help="Sampling interval of the article's float32 streams; without it they are held.")
    ] = None,
    default_label: Annotated[str | None, typer.Option(help="Label for windows that carry none.")] = None,
) -> None:
    """Take windows by HTTP and keep them: an answer names only what is safely stored."""
    from judder import ingest
    from judder.config import Config, ConfigError
    from judder.queue import QueueError

    try:
        config = Config.load(
            host=host, port=port, data=data, article_interval_ms=article_interval_ms, default_label=default_label
        )
        ingest.serve(config, lambda url: typer.echo(f"ready {url}"))
    except (ConfigError, QueueError) as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"cannot listen on {host or config.host}:{config.port if port is None else port}: {error.strerror}")


@app.command()
def decode(
    files: Annotated[list[Path], typer.Argument(help="Files of frames, or of the article's streams.")],
    article: Annotated[bool, typer.Option("--article", help="The files hold the article's float32 stream.")] = False,
    interval_ms: Annotated[float | None, typer.Option(help="Its sampling interval; it does not say itself.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Windows with their samples as JSON, one a line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a sample.")] = False,
    npz: Annotated[Path | None, typer.Option(help="Write acceleration, interval_s and unit to this file.")] = None,
) -> None:
    """Frames or article streams to samples."""
    from judder import show

    if as_json + as_csv + (npz is not None) > 1:
        refuse("choose one of --json, --csv, --npz")
    if interval_ms is not None and not article:
        refuse("--interval-ms goes with --article: frames carry their own interval")
    windows, refused = show.read(files, article=article, interval_s=None if interval_ms is None else interval_ms / 1000)
    try:
        if as_json:
            show.write_json(windows, sys.stdout)
        elif as_csv:
            show.write_csv(windows, sys.stdout)
        elif npz is not None:
            show.write_npz(windows, npz)
        else:
            show.table(windows)
    except ValueError as error:
        refuse(str(error))
    for line in refused:
        typer.echo(f"judder: {line}", err=True)
    raise typer.Exit(1 if refused else 0)
