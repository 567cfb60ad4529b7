"""Commands on images: what a Notecard writes into a board's flash."""

import hashlib
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from judder import image as images
from judder.binpack import Header
from judder.board import board_settings
from judder.cli_model import model_for_boards, plain_table, progress, save
from judder.cli_store import Json, console, line_of, plain, refuse, say
from judder.code import ENDING
from judder.code import update as update_of_code
from judder.image import Contents, Image
from judder.inspection import FS_ONLY_WARNING, NOTECARDS, Inspection, InspectionError
from judder.inspection import inspect as look_into
from judder.program import BOOTLOADER, INTERPRETER
from judder.update import Update

image_app = typer.Typer(no_args_is_help=True)

_MOST_FILE_BYTES = 64 * 1024 * 1024  # or it is something else


class Notecard(StrEnum):
    """Which Notecard the image is for."""

    cellular = "cellular"
    wifi_v2 = "wifi-v2"


@image_app.callback()
def image() -> None:
    """Images for the board's flash, written by its Notecard."""


@image_app.command()
def build(
    version: Annotated[str, typer.Option(help="Of the image, as 2.1.0.")],
    out: Annotated[Path, typer.Option(help="The binpack to write.")],
    interpreter: Annotated[Path | None, typer.Option(help="CircuitPython for the Swan, as .bin.")] = None,
    bootloader: Annotated[
        Path | None, typer.Option(help="TinyUF2 for the Swan, as .bin: CircuitPython's released .bin needs it.")
    ] = None,
    interpreter_sha256: Annotated[str | None, typer.Option(help="What the interpreter's SHA-256 has to be.")] = None,
    bootloader_sha256: Annotated[str | None, typer.Option(help="What the bootloader's SHA-256 has to be.")] = None,
    model: Annotated[Path | None, typer.Option(help="Model for the board.")] = None,
    settings: Annotated[Path | None, typer.Option(help="settings.toml for every board that gets the image.")] = None,
    fs_only: Annotated[
        bool, typer.Option("--fs-only", help="The drive only; may leave boards that do not start.")
    ] = False,
    notecard: Annotated[Notecard, typer.Option(help="Whose limit of size holds.")] = Notecard.cellular,
    trim: Annotated[bool, typer.Option("--trim/--no-trim", help="Leave out erased pages at the end of parts.")] = True,
    as_json: Json = False,
) -> None:
    """Firmware, libraries and model in one file for Notehub; the same inputs give the same bytes."""
    if fs_only == (interpreter is not None):
        refuse("give one of --interpreter FILE and --fs-only")
    if fs_only and bootloader is not None:
        refuse("--bootloader goes with --interpreter FILE, not with --fs-only")
    programs = {
        INTERPRETER.name: _pinned(INTERPRETER.name, interpreter, interpreter_sha256),
        BOOTLOADER.name: _pinned(BOOTLOADER.name, bootloader, bootloader_sha256),
    }
    if fs_only:
        typer.echo(f"judder: {FS_ONLY_WARNING}", err=True)
    try:
        contents = Contents(
            version,
            model=None if model is None else model_for_boards(model),
            settings=None if settings is None else _settings(settings),
        )
        with progress("bytes packed") as bar:
            made = images.build(
                contents,
                programs[INTERPRETER.name],
                programs[BOOTLOADER.name],
                trim=trim,
                most_bytes=NOTECARDS[notecard],
                on_bytes=lambda done, total: bar.update(bar.task_ids[0], completed=done, total=total),
            )
    except (ValueError, FileNotFoundError) as error:  # ImageError, ProgramError, Fat12Error; no libraries
        refuse(line_of(str(error)))
    save(out, made.data)
    _tell_build(made, out, as_json=as_json)


@image_app.command()
def code(
    version: Annotated[str, typer.Option(help="Of the code, as 2.1.0.")],
    out: Annotated[Path, typer.Option(help=f"The file to write; its name ends in {ENDING}.")],
    as_json: Json = False,
) -> None:
    """The firmware's code as an update by file: for boards that have the rest, a tenth of an image."""
    if not out.name.endswith(ENDING):
        refuse(f"--out {out}: boards know an update by file by the ending {ENDING}: give {out}{ENDING}")
    try:
        images.checked_version(version)
        made = update_of_code(version)
    except (ValueError, FileNotFoundError) as error:  # ImageError, UpdateError; no libraries
        refuse(line_of(str(error)))
    data = made.to_bytes()
    save(out, data)
    result: dict[str, object] = {"file": str(out), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    say(result | _header(made), f"{out}: {len(data)} bytes, code of version {version}", as_json=as_json)


@image_app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A binpack, an image of a FAT drive, or an update by file.")],
    as_json: Json = False,
) -> None:
    """What is in an image, whoever made it, and all that is wrong with it."""
    data = _read(file)
    try:
        found = look_into(data)
    except InspectionError as error:
        _tell_no_image(file, str(error), as_json=as_json)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "bytes": len(data)} | _as_dict(found)))
    else:
        _show(found)
    raise typer.Exit(1 if found.wrong else 0)


# --- in ---------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_FILE_BYTES + 1)
    except OSError as error:
        refuse(f"{path}: {error.strerror}")
    if len(data) > _MOST_FILE_BYTES:
        refuse(f"{path}: more than {_MOST_FILE_BYTES} bytes, which is no part of a board")
    return data


def _pinned(name: str, path: Path | None, sha256: str | None) -> bytes | None:
    """The file, which is the one that was meant."""
    if path is None:
        if sha256 is not None:
            refuse(f"--{name}-sha256 goes with --{name} FILE")
        return None
    data = _read(path)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.strip().lower():
        refuse(f"{path}: its SHA-256 is {found}, and --{name}-sha256 says otherwise: is it the file you tested?")
    return data


def _settings(path: Path) -> bytes:
    """The file, about which no board has anything to complain, and which is for any of them."""
    data = _read(path)
    found = board_settings().load(str(path))
    if found.device_sn:
        refuse(f"--settings {path}: DEVICE_SN names one board, and the image goes to many: name devices in Notehub")
    if found.frame_key:
        refuse(f"--settings {path}: FRAME_KEY is a secret, and an image is none: each board's Notecard keeps its own")
    if complaints := found.complaints:
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        refuse(f"--settings {path}: a board would say: {line_of(complaints[0])}{more}")
    return data


# --- out --------------------------------------------------------------------------------------------------------------


def _tell_build(made: Image, out: Path, *, as_json: bool) -> None:
    parts = _loads(made.header)
    if as_json:
        result = {"file": str(out), "bytes": len(made.data), "sha256": hashlib.sha256(made.data).hexdigest()}
        typer.echo(json.dumps(result | {"parts": parts, "info": made.info, "files": len(made.files)}))
        return
    for part in parts:
        typer.echo("{:12} {}  {:>7} bytes, packed {:>7}".format(*_cells(part)))
    for name, digest in made.sha256.items():
        typer.echo(f"{name:12} SHA-256 {digest}")
    typer.echo(f"{out}: {len(made.data)} bytes, version {made.info['version']}, {len(made.files)} files on its drive")


def _show(found: Inspection) -> None:
    if found.header is not None:
        table = plain_table("part", "address", "bytes", "packed", "MD5")
        for part in _loads(found.header):
            table.add_row(*_cells(part), part["md5"])
        console.print(table)
    table = plain_table()
    for name, value in _facts(found).items():
        table.add_row(name, plain(str(value)))
    console.print(table)
    if found.files:
        table = plain_table("file", "bytes", "manifest")
        listed = found.manifest["files"] if found.manifest else {}
        for path, content in sorted(found.files.items()):
            table.add_row(plain(path), str(len(content)), "yes" if path in listed else "-")
        console.print(table)
    for line in found.remarks:
        typer.echo(f"judder: {line_of(line)}", err=True)
    for line in found.wrong:
        typer.echo(f"judder: wrong: {line_of(line)}", err=True)


def _facts(found: Inspection) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if found.update is not None:
        return _header(found.update)
    if found.header is not None:
        facts |= {"made": f"{found.header.when:%Y-%m-%d %H:%M:%S} UTC", "host": found.header.host}
    for name, value in (found.info or {}).items():
        facts[name] = value if isinstance(value, str | int) else json.dumps(value)
    if found.manifest is not None:
        facts["manifest"] = f"version {found.manifest.get('version')}, {len(found.manifest['files'])} files"
    return facts or {"volume": "FAT12"}


def _as_dict(found: Inspection) -> dict[str, Any]:
    header, listed, update = found.header, found.manifest, found.update
    return {
        "kind": "update" if update else "binpack" if header else "volume",
        **(_header(update) if update else {}),
        "when": header and header.when.isoformat(),
        "host": header and header.host,
        "parts": _loads(header) if header else [],
        "info": found.info,
        "manifest": listed,
        "files": {path: len(content) for path, content in sorted(found.files.items())},
        "remarks": list(found.remarks),
        "wrong": list(found.wrong),
    }


def _header(update: Update) -> dict[str, Any]:
    return {"update": update.kind.name.lower(), "version": update.version, "content_bytes": len(update.content)}


def _loads(header: Header) -> list[dict[str, Any]]:
    return [one._asdict() | {"compressed": header.frame_bytes > 0} for one in header.loads]


def _cells(part: dict[str, Any]) -> tuple[str, ...]:
    packed = f"{part['packed_bytes']}" if part["compressed"] else "not compressed"
    return plain(part["name"]), f"0x{part['address']:08x}", str(part["bytes"]), packed


def _tell_no_image(file: Path, message: str, *, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(json.dumps({"file": str(file), "error": message}))
    typer.echo(f"judder: {file}: {line_of(message)}", err=True)
    raise typer.Exit(1)
