"""The command line: options in, exit codes out; what a command does lives in the module of its name.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 the result is bad (a frame refused, a window
lost), 2 the call was wrong, 130 interrupted.
"""

import asyncio
import json
import signal
import sys
import threading
import time
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from judder import (
    __version__,
    cli_account,
    cli_board,
    cli_fleet,
    cli_image,
    cli_import,
    cli_model,
    cli_release,
    cli_store,
)
from judder.cli_store import refuse

if TYPE_CHECKING:
    from judder.defect import Defect

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Trustworthy vibration windows: from an LIS3DH over a Notecard into a durable store.",
)
cli_store.queue_app.command()(cli_account.losses)
app.add_typer(cli_store.queue_app, name="queue")
cli_model.model_app.command("import")(cli_import.import_model)
app.add_typer(cli_model.model_app, name="model")
app.add_typer(cli_image.image_app, name="image")
app.command()(cli_store.label)
app.command()(cli_store.export)
app.command()(cli_account.devices)
app.command()(cli_board.deploy)
app.command()(cli_board.doctor)
app.add_typer(cli_release.release_app, name="release")
app.command()(cli_fleet.route)
app.add_typer(cli_fleet.env_app, name="env")
app.command()(cli_fleet.capture)
config_app = typer.Typer(no_args_is_help=True, help="The server's settings.")
app.add_typer(config_app, name="config")
emulate_app = typer.Typer(no_args_is_help=True, help="Emulated parts for other programs to talk to.")
app.add_typer(emulate_app, name="emulate")


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Options before the command."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


class Listening(Protocol):
    """A service that is reached at `url`."""

    url: str


class Runtime(StrEnum):
    """What may play the Swan's interpreter."""

    cpython = "cpython"
    micropython = "micropython"
    wasm = "wasm"


class DefectChoice(StrEnum):
    """What the demo's machine may develop."""

    bearing = "bearing"
    imbalance = "imbalance"
    none = "none"


class UpdateChoice(StrEnum):
    """What the demo's boards may get."""

    good = "good"
    bad = "bad"


@app.command()
def demo(
    windows: Annotated[
        int | None, typer.Option(min=1, help="Windows from each device; default 200, with --update 12.")
    ] = None,
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
    defect: Annotated[
        DefectChoice | None,
        typer.Option(
            help="What the machine develops once a model of its first windows is on the board; "
            "default bearing, from 190 windows on, without --fault, --replay and --runtime."
        ),
    ] = None,
    update: Annotated[
        UpdateChoice | None,
        typer.Option(help="Push a second version of the firmware halfway: a good one, or one that cannot start."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder for the windows; default: a new temporary one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Run the whole loop on the emulated bench: no hardware, no account."""
    from judder import show
    from judder.emulator.recording import Recording, RecordingError
    from judder.emulator.runtime import RuntimeMissingError, interpreter_of

    if update and (fault or defect):
        refuse("--update goes without --fault and --defect: one thing at a time")
    windows = windows or (12 if update else 200)
    usual = not (fault or replay or update) and runtime is Runtime.cpython
    developed = _defect(defect, windows * devices, usual=usual)
    if developed and replay:
        refuse("--defect goes with the emulated machine: a recording has what it has")
    try:
        recording = Recording.load(replay, replay_unit, replay_rate_hz) if replay else None
        interpreter = interpreter_of(runtime, with_model=developed is not None)
    except (RecordingError, RuntimeMissingError) as error:
        refuse(str(error))
    ok = show.demo(
        windows,
        devices,
        seed,
        fault,
        recording,
        data,
        runtime=interpreter,
        defect=developed,
        update=update,
        as_json=as_json,
    )
    raise typer.Exit(0 if ok else 1)


def _defect(asked: DefectChoice | None, windows: int, *, usual: bool) -> "Defect | None":
    """What the demo's machine develops; unless asked for, nothing where a model would be in the way."""
    from judder.defect import LEAST_WINDOWS

    possible = windows >= LEAST_WINDOWS and find_spec("sklearn") is not None
    if asked is None:
        return "bearing" if usual and possible else None
    if asked is DefectChoice.none:
        return None
    if windows < LEAST_WINDOWS:
        refuse(f"--defect trains a model on the first of them: give --windows {LEAST_WINDOWS} or more")
    if not possible:
        refuse("scikit-learn is missing: pip install 'judder[model]'")
    return "bearing" if asked is DefectChoice.bearing else "imbalance"


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one; default 8080.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the store; default judder-data.")] = None,
    article_interval_ms: Annotated[
        float | None, typer.Option(help="Sampling interval of the article's float32 streams; without it they are held.")
    ] = None,
    default_label: Annotated[str | None, typer.Option(help="Label for windows that carry none.")] = None,
    edge_impulse_url: Annotated[str | None, typer.Option(help="Where to deliver, if not to the real service.")] = None,
) -> None:
    """Take windows by HTTP and keep them: an answer names only what is safely stored."""
    from judder import logs, server
    from judder.config import Config, ConfigError
    from judder.group_commit import QueueError

    logs.to_stderr()
    try:
        config = Config.load(
            host=host,
            port=port,
            data=data,
            article_interval_ms=article_interval_ms,
            default_label=default_label,
            edge_impulse_url=edge_impulse_url,
        )
        server.serve(config, lambda url: typer.echo(f"ready {url}"))
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
    reports: Annotated[bool, typer.Option("--reports", help="With --json: the reports instead.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line a sample.")] = False,
    npz: Annotated[Path | None, typer.Option(help="Write acceleration, interval_s and unit to this file.")] = None,
) -> None:
    """Frames or article streams to samples; reports are shown, and left out of --csv and --npz."""
    from judder import show

    _check_decode(as_json + as_csv + (npz is not None), article, interval_ms)
    content = show.read(files, article=article, interval_s=None if interval_ms is None else interval_ms / 1000)
    for line in content.refused:
        typer.echo(f"judder: {line}", err=True)
    if content.refused and not (content.windows or content.reports):
        raise typer.Exit(1)
    try:
        if as_json:
            (show.write_reports if reports else show.write_json)(content, sys.stdout)
        elif as_csv:
            show.write_csv(content.windows, sys.stdout)
        elif npz is not None:
            show.write_npz(content.windows, npz)
        else:
            show.table(content.windows)
            show.tell_reports(content.reports)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{npz}: {error.strerror}")
    raise typer.Exit(1 if content.refused else 0)


def _check_decode(forms: int, article: bool, interval_ms: float | None) -> None:
    if forms > 1:
        refuse("choose one of --json, --csv, --npz")
    if interval_ms is not None and not article:
        refuse("--interval-ms goes with --article: frames carry their own interval")
    if interval_ms is not None and not 0 < interval_ms < float("inf"):
        refuse(f"--interval-ms {interval_ms:g}: it must be above 0")


@config_app.command()
def check(as_json: Annotated[bool, typer.Option("--json", help="Print them as one JSON object.")] = False) -> None:
    """Say whether the settings are right, and what they are; secrets are never shown."""
    from judder.config import Config, ConfigError

    try:
        config = Config.load()
        projects = config.delivery()
    except ConfigError as error:
        refuse(str(error))
    if as_json:
        typer.echo(config.model_dump_json())
        return
    for name, value in config:
        typer.echo(f"{name} = {value}")
    for project in projects:
        signed = "signed" if project.hmac_key else "not signed: set EDGE_IMPULSE_HMAC_KEY"
        typer.echo(f"delivers {project.devices} to {project.name} at {project.url}, {signed}")
    if not projects:
        typer.echo("delivers nothing: set EDGE_IMPULSE_API_KEY, or projects in judder.toml")


@app.command()
def key(
    device: Annotated[str | None, typer.Argument(help="DeviceUID, as dev:864475040000001.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Make a master key for the server instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
) -> None:
    """The key that a board signs its frames with, as a line for its settings.toml: a secret, shown on purpose."""
    from judder import signature
    from judder.config import Config, ConfigError

    if new == (device is not None):
        refuse("give one of DEVICE and --new")
    if device is None:
        made = signature.new_master_key().hex()
        typer.echo(json.dumps({"frame_master_key": made}) if as_json else f"JUDDER_FRAME_MASTER_KEY={made}")
        return
    if not device.startswith("dev:"):
        refuse(f"{device!r} is no DeviceUID, which starts with dev:; the board's console and Notehub show it")
    try:
        master_keys = Config.load().master_keys
    except ConfigError as error:
        refuse(str(error))
    if not master_keys:
        refuse(
            "give the server's JUDDER_FRAME_MASTER_KEY, as in `. /etc/judder/environment` (docs/operations.md); "
            "only if the server has none yet: `judder key --new`"
        )
    found = signature.device_key(master_keys[0], device).hex()
    typer.echo(json.dumps({"device": device, "frame_key": found}) if as_json else f'FRAME_KEY = "{found}"')


@emulate_app.command("edge-impulse")
def emulate_edge_impulse(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 4810,
    mode: Annotated[
        str, typer.Option(help="ok, slow:SECONDS, status:CODE, rate:PER_S, hang, reset, or file:EVERY.")
    ] = "ok",
    api_key: Annotated[str, typer.Option(envvar="EDGE_IMPULSE_API_KEY", help="Refuse any other.")] = "",
    hmac_key: Annotated[str, typer.Option(envvar="EDGE_IMPULSE_HMAC_KEY", help="Check signatures with it.")] = "",
) -> None:
    """A stand-in for Edge Impulse's ingestion service on this machine; GET / says what it has received."""
    from judder.emulator.edge_impulse import EdgeImpulse, Mode, running

    try:
        service = EdgeImpulse(api_key=api_key, hmac_key=hmac_key, mode=Mode.parse(mode), keep_bodies=False)
    except ValueError as error:
        refuse(str(error))

    _listen(running(service, port=port), port)


@emulate_app.command("notehub")
def emulate_notehub(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 4811,
    devices: Annotated[int, typer.Option(min=1, max=10000, help="Devices of its fleet `machines`.")] = 10,
    token: Annotated[str, typer.Option(help="Refuse any other; without it, any will do.")] = "",
    fail: Annotated[float, typer.Option(min=0, max=100, help="Percentage of devices that fail to update.")] = 0.0,
) -> None:
    """A stand-in for Notehub's API on this machine, with a fleet of devices that take updates within a minute."""
    from judder.emulator.notehub_api import NotehubApi, running
    from judder.emulator.simulated_device import fleet

    try:
        project = fleet(time.time, devices, fail_percent=fail)
    except FileNotFoundError as error:
        refuse(str(error))
    typer.echo(f"judder: project {project.uid}", err=True)
    _listen(running(NotehubApi(project, token), port=port), port)


def _listen(running: "AbstractAsyncContextManager[Listening]", port: int) -> None:
    """Until it is interrupted."""

    async def until_interrupted() -> None:
        async with running as service:
            typer.echo(f"ready {service.url}")
            await asyncio.Event().wait()

    try:
        asyncio.run(until_interrupted())
    except OSError as error:
        refuse(f"cannot listen on port {port}: {error.strerror}")


@emulate_app.command("notecard")
def emulate_notecard(
    pty: Annotated[bool, typer.Option("--pty", help="On a pseudo terminal.")] = False,
    link: Annotated[Path | None, typer.Option(help="A name of your own for the pseudo terminal.")] = None,
    i2c_socket: Annotated[Path | None, typer.Option(help="On an I2C bus behind this Unix socket, at 0x17.")] = None,
    route: Annotated[
        list[str] | None, typer.Option(help="ALIAS=URL of a proxy route, on this machine; may be repeated.")
    ] = None,
    chunked: Annotated[bool, typer.Option("--chunked", help="Send bodies without Content-Length.")] = False,
    device: Annotated[str, typer.Option(help="DeviceUID.")] = "dev:864475040000001",
    version: Annotated[str, typer.Option(help="The card's firmware.")] = "notecard-8.1.3.17074",
    connect_delay_s: Annotated[float, typer.Option(min=0, max=86400, help="From hub.set to a connection.")] = 1.0,
    latency_s: Annotated[float, typer.Option(min=0, max=86400, help="Added to each web request.")] = 0.0,
    binary_max: Annotated[int, typer.Option(min=1, help="Bytes the binary store holds.")] = 130_554,
    crc: Annotated[
        bool | None, typer.Option("--crc/--no-crc", help="Checksums on replies; by default the version decides.")
    ] = None,
    echo_digits: Annotated[int, typer.Option(min=1, max=8, help="Digits of the sequence number in replies.")] = 4,
    replay: Annotated[
        bool, typer.Option("--replay", help="Only answer a repeated request again, do not carry it out.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Lose bytes of requests sent without pauses.")] = False,
    fault: Annotated[list[str] | None, typer.Option(help="NAME[:EVERY] of a fault, or list; may be repeated.")] = None,
    script: Annotated[Path | None, typer.Option(help="JSON lines of what happens over time; see the manual.")] = None,
    trace: Annotated[Path | None, typer.Option(help="What happens, as JSON lines to this file; - is stderr.")] = None,
) -> None:
    """An emulated Notecard for a program of yours, in any language: docs/emulator.md is its manual."""
    from judder import emulate

    if fault and "list" in fault:
        for name, meaning in emulate.FAULTS.items():
            typer.echo(f"{name:14}{meaning}")
        return
    if pty == (i2c_socket is not None):
        refuse("give one of --pty and --i2c-socket PATH")
    if link is not None and not pty:
        refuse("--link goes with --pty")
    if not any(part.isdigit() for part in version.replace("-", ".").split(".")):
        refuse(f"--version {version!r}: give one like notecard-8.1.3.17074")
    kind = emulate.Card(
        device=device,
        version=version,
        connect_delay_s=connect_delay_s,
        latency_s=latency_s,
        binary_max=binary_max,
        crc=crc,
        echo_digits=echo_digits,
        strict=strict,
        replay=replay,
        faults=fault or (),
        script=script,
        trace=trace,
    )
    try:
        hub = emulate.notehub(route or (), chunked=chunked)
        with emulate.notecard(kind, hub, i2c_socket=i2c_socket, link=link) as running:
            _serve_until_told(running.path, running.ended)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        where = error.filename2 or error.filename or i2c_socket or link or "pseudo terminal"
        refuse(f"{where}: {error.strerror or error}")
    if running.error is not None:
        typer.echo(f"judder: the emulated Notecard ended: {running.error!r}", err=True)
        raise typer.Exit(1)


@emulate_app.command("swan")
def emulate_swan(
    link: Annotated[Path, typer.Option(help="Name for its serial port.")] = Path("swan"),
    drive: Annotated[
        Path | None, typer.Option(help="Folder to keep its drive in; default: a new temporary one.")
    ] = None,
    route: Annotated[
        list[str] | None, typer.Option(help="ALIAS=URL of a proxy route, on this machine; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws each part's deviations.")] = 1,
) -> None:
    """A Swan fresh out of its box, with sensor and Notecard, to try `judder deploy` and `judder doctor` on."""
    from judder import emulate

    try:
        hub = emulate.notehub(route or (), chunked=False)
        with emulate.swan(link, hub, drive=drive, seed=seed, on_line=lambda line: typer.echo(line, err=True)) as desk:
            _serve_until_told(desk.path, desk.ended)
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename2 or error.filename or link}: {error.strerror or error}")
    if desk.error is not None:
        typer.echo(f"judder: the emulated Swan ended: {desk.error}", err=True)
        raise typer.Exit(1)


def _serve_until_told(path: Path, ended: threading.Event) -> None:
    """Until SIGTERM or SIGINT, or until it is over; ends in an ordinary way, so that nothing is left behind."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    typer.echo(f"ready {path}")
    ended.wait()
