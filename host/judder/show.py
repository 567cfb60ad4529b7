"""What the commands print: the demo while it runs and at its end, and decoded windows."""

import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from judder import FrameError, Report, Window, decode_article, decode_frames, overhaul, plot
from judder import demo as loop
from judder.cli_store import plain, refuse
from judder.defect import FACTOR, Defect, Outcome
from judder.emulator import faults
from judder.emulator.recording import Recording
from judder.emulator.runtime import Runtime
from judder.group_commit import QueueError
from judder.overhaul import Update
from judder.queue import FILE, Queue

_HEIGHT = 10  # of a picture, in lines

console = Console()
log = Console(stderr=True)

# --- the demo -------------------------------------------------------------------------------------------------------


def demo(
    windows: int,
    devices: int,
    seed: int,
    fault: str | None,
    replay: Recording | None,
    data: Path | None,
    *,
    runtime: Runtime,
    defect: Defect | None,
    update: str | None,
    as_json: bool,
) -> bool:
    """Run the demo with a progress display on stderr; returns whether everything was as it should be."""
    if fault == "list":
        for name, meaning in faults.MEANINGS.items():
            console.print(f"{name:12} {meaning}")
        return True
    if fault is not None and fault not in faults.MEANINGS:
        refuse(f"--fault {fault} is unknown; one of: {', '.join(faults.MEANINGS)}")
    folder = data or Path(tempfile.mkdtemp(prefix="judder-demo-"))
    try:
        Queue(folder).close()  # before there is a progress display, so that a refusal stays one line
    except QueueError as error:
        refuse(str(error))
    pushed = Update(update) if update else None
    options = loop.Options(folder, windows, devices, seed, fault, replay, runtime, defect, pushed)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=log
    ) as progress:
        finished = loop.run(options, _Follow(progress, options))
    if as_json:
        fields = asdict(finished.report)
        for part in ("model", "update"):
            if fields[part] is None:
                del fields[part]
        fields.get("model", {}).pop("watched", None)
        typer.echo(json.dumps(fields))
    else:
        _tell(options, finished)
    for line in finished.wrong:
        typer.echo(f"judder: {line}", err=True)
    return not finished.wrong


class _Follow:
    """Turns the firmware's console into progress bars; other lines (complaints) are shown as they are."""

    def __init__(self, progress: Progress, options: loop.Options) -> None:
        self._progress = progress
        total = options.windows * options.devices
        self._captured = progress.add_task("captured by the firmware", total=total)
        self._stored = progress.add_task("acknowledged by the server", total=total)

    def __call__(self, device: str, line: str) -> None:
        if " captured: " in line:
            self._progress.advance(self._captured)
        elif line.endswith(" stored"):
            self._progress.advance(self._stored, line.startswith("window "))
        elif not line.startswith("normal mode"):
            self._progress.console.print(f"[dim]{device}[/] {escape(line)}", highlight=False, soft_wrap=True)


def _tell(options: loop.Options, finished: loop.Run) -> None:
    """The last window as a picture, then what was shown, in plain words."""
    report = finished.report
    if finished.last is not None:
        _draw(finished.last)
    source = "a recording" if options.replay else f"a machine turning at {report.peak_hz_true} Hz"
    ratio = report.bytes_article / report.bytes_on_air if report.bytes_on_air else 0
    lines = [
        f"{report.windows_captured} windows of {source} were captured and {report.windows_stored} stored, "
        f"each once; {report.lost} lost, in {report.posts} posts.",
        f"Edge Impulse was given {report.windows_delivered}, {report.duplicates} of them twice"
        + "".join(f"; {count} held, {reason}" for reason, count in finished.held.items())
        + ".",
        *(
            [f"The server's account names {report.windows_reported_lost} others as lost, or in a boot's unknown tail."]
            if report.windows_reported_lost
            else []
        ),
        f"Samples the sensor lost inside them: {report.samples_lost}; the windows say {report.samples_lost_reported}.",
    ]
    if report.interval_error_ppm_rms is not None:
        lines.append(
            f"Their interval, measured by the firmware, is off by {report.interval_error_ppm_rms} ppm rms, "
            f"{report.interval_error_ppm_max} ppm at worst; {_nominal(finished)}."
        )
    if report.peak_hz_seen is not None:
        lines.append(
            f"Their strongest peak lies at {report.peak_hz_seen} Hz in the window farthest off; "
            f"the shaft turns at {report.peak_hz_true} Hz."
        )
    if finished.samples:
        lines.append(
            f"{report.bytes_on_air / finished.samples:.2f} bytes a sample went over the air, header and all: "
            f"{ratio:.1f} times less than float32."
        )
    if report.model is not None:
        lines += _of_model(report.model, finished)
    if report.update is not None:
        lines += _of_update(report.update)
    real_vm = options.runtime is not None and options.runtime.name != "cpython"
    vm = f" on MicroPython ({options.runtime.name})" if options.runtime and real_vm else ""
    lines += [
        "",
        "Emulated: the machine, LIS3DH, Notecard, Notehub, Edge Impulse, the Swan's processor and its time.",
        f"Real and unmodified: the firmware (device/){vm}, adafruit_lis3dh, note-python, HTTP,",
        "server, SQLite, decoder.",
        f"The windows are in {options.data / FILE}; look at them with",
        f"  judder queue status --data {options.data}",
        f"  judder export --npz set.npz --data {options.data}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _of_model(outcome: Outcome, finished: loop.Run) -> list[str]:
    """What the model on the board said while the defect grew."""
    first = f"the first at {outcome.first_event_grown:.0%}" if outcome.first_event_grown else "none so far"
    device = finished.benches[0].device
    watched = [one for one in outcome.watched if one.key[0] == device]
    width = max(20, min(console.width, 100) - 12)
    watched = watched[-width:]
    plain = not console.encoding.lower().startswith("utf")
    return [
        "",
        f"A model was trained on the first {outcome.trained_on} windows and put onto the board, which proved it: "
        f"{outcome.features} features, {outcome.bytes} bytes, id {outcome.id}.",
        "Then the machine's "
        + ("bearing began to strike harder" if outcome.defect == "bearing" else "imbalance grew")
        + f", up to {FACTOR:.0%} of what it was:",
        f"  score     {plot.levels([one.anomaly for one in watched], plain=plain)}",
        f"  defect    {plot.levels([one.grown for one in watched], plain=plain)}",
        f"  events    {''.join('^' if one.is_event else ' ' for one in watched)}".rstrip(),
        f"{outcome.false_alarms} of {outcome.healthy} windows before it were events (score above "
        f"{outcome.threshold:.2f}), and {outcome.events} of {outcome.ill} since, {first}; all have arrived as such.",
    ]


def _of_update(outcome: overhaul.Outcome) -> list[str]:
    """How the boards came to what they run."""
    lines = [
        "",
        f"Halfway, {outcome.image_bytes // 1000} kB of version {outcome.version_pushed} were released to the boards "
        f"of {outcome.version_before} through Notehub, as judder release does, and flashed by their Notecards.",
    ]
    if outcome.rolled_back:
        lines += [
            f"It cannot start, so no board reported it, and the release stopped: {outcome.reason}.",
            f"Then {outcome.version_before} was brought back.",
        ]
    lines.append(f"After {outcome.took_s / 60:.0f} minutes of theirs the boards' windows say: {outcome.runs}.")
    return lines


def _nominal(finished: loop.Run) -> str:
    """How far off the data sheet's rate the parts were."""
    errors = [
        abs(1 / finished.truths[key].interval_s / window.odr_hz - 1) * 100
        for key, window in finished.stored.items()
        if window.odr_hz
    ]
    return f"the data sheet's rate would have been off by {max(errors):.1f} %"


def _draw(window: Window) -> None:
    interval_s = window.interval_s
    if interval_s is None:
        return
    width = min(console.width, 100)
    name = f"window {window.boot:08x}:{window.sequence} of {window.device}, {1 / interval_s:.1f} Hz measured"
    console.print(f"\n{name}", markup=False, highlight=False)
    plain = not console.encoding.lower().startswith("utf")
    for draw in (plot.waveform, plot.spectrum):
        console.print(draw(window.acceleration, interval_s, width, _HEIGHT, plain=plain), markup=False, highlight=False)


# --- decoded windows ------------------------------------------------------------------------------------------------


@dataclass
class Content:
    """What files hold, and one line for each frame or file that is refused."""

    windows: list[Window] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def read(files: Sequence[Path], *, article: bool, interval_s: float | None) -> Content:
    """Decode all files."""
    content = Content()
    for path in files:
        try:
            body = path.read_bytes()
        except OSError as error:
            content.refused.append(f"{path}: {error.strerror}")
            continue
        if article:
            try:
                content.windows.append(decode_article(body, interval_s))
            except FrameError as error:
                content.refused.append(f"{path}: {error.reason}")
            continue
        for item in decode_frames(body):
            if isinstance(item, FrameError):
                content.refused.append(f"{path}: {item.reason}")
            elif isinstance(item, Report):
                content.reports.append(item)
            else:
                content.windows.append(item)
    return content


def table(windows: Sequence[Window]) -> None:
    """One line a window."""
    columns = ("device", "boot:sequence", "started (UTC)", "samples", "rate Hz", "lost", "flags", "label", "bytes")
    overview = Table(*columns, box=None)
    for window in windows:
        started = "unknown" if window.started_at is None else f"{window.started_at:%Y-%m-%d %H:%M:%S}"
        overview.add_row(
            plain(window.device) or "-",
            f"{window.boot:08x}:{window.sequence}",
            started,
            str(len(window.acceleration)),
            "unknown" if window.interval_s is None else f"{1 / window.interval_s:.2f}",
            "?" if window.samples_lost is None else str(window.samples_lost),
            str(window.flags.name or "") if window.flags else "",
            plain(window.label),
            str(len(window.frame)),
        )
    if windows:
        console.print(overview)


def tell_reports(reports: Sequence[Report]) -> None:
    """What each says, under its name."""
    for report in reports:
        when = "" if report.written_at is None else f", {report.written_at:%Y-%m-%d %H:%M:%S} UTC"
        name = f"report {report.boot:08x}:{report.sequence} of {plain(report.device) or '-'}{when}"
        console.print(name, highlight=False, soft_wrap=True)
        for member, value in report.members.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            console.print(f"  {plain(member)}: {plain(text)}", highlight=False, soft_wrap=True)


def write_reports(content: Content, out: TextIO) -> None:
    """One JSON object a line: what the frame says, and the report's members as they are."""
    for report in content.reports:
        told: dict[str, object] = {
            "device": report.device,
            "boot": report.boot,
            "sequence": report.sequence,
            "firmware": report.firmware,
            "model": report.model,
            "settings": report.settings,
            "label": report.label,
            "session": report.session,
            "written_at": None if report.written_at is None else report.written_at.isoformat(),
            "report": report.members,
        }
        out.write(json.dumps(told) + "\n")


def write_json(content: Content, out: TextIO) -> None:
    """One JSON object a line: what the frame of a window says, with acceleration in m/s2."""
    for window in content.windows:
        fields: dict[str, object] = {
            "device": window.device,
            "boot": window.boot,
            "sequence": window.sequence,
            "firmware": window.firmware,
            "model": window.model,
            "settings": window.settings,
            "label": window.label,
            "session": window.session,
            "started_at": None if window.started_at is None else window.started_at.isoformat(),
            "interval_s": window.interval_s,
            "interval_sigma_s": window.interval_sigma_s,
            "odr_hz": window.odr_hz,
            "full_scale_g": window.full_scale_g,
            "samples_lost": window.samples_lost,
            "gaps": window.gaps,
            "flags": int(window.flags),
            "trigger": window.trigger,
            "anomaly": window.anomaly,
            "class": window.class_name or None,
            "class_probability": window.class_probability,
            "acceleration": [[float(str(value)) for value in row] for row in window.acceleration],
        }
        out.write(json.dumps(fields) + "\n")


def write_csv(windows: Sequence[Window], out: TextIO) -> None:
    """One line a sample; time_s counts from the window's first sample and is empty when the interval is unknown."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["device", "boot", "sequence", "label", "time_s", "x_m_s2", "y_m_s2", "z_m_s2"])
    for window in windows:
        head = [window.device, window.boot, window.sequence, window.label]
        for i, row in enumerate(window.acceleration):
            time_s = "" if window.interval_s is None else f"{i * window.interval_s:.9f}"
            writer.writerow([*head, time_s, *row])


def write_npz(windows: Sequence[Window], path: Path) -> None:
    """Arrays acceleration (n, 3) or (windows, n, 3) in m/s2, interval_s, unit. Raises ValueError when they differ."""
    lengths = {len(window.acceleration) for window in windows}
    if len(lengths) != 1:
        raise ValueError(f"--npz wants windows of one length, not of {sorted(lengths)}; use --json or --csv")
    acceleration = np.stack([window.acceleration for window in windows])
    interval_s = np.array([np.nan if window.interval_s is None else window.interval_s for window in windows])
    if len(windows) == 1:
        acceleration, interval_s = acceleration[0], interval_s[0]
    with path.open("wb") as file:  # given a name, numpy would add to it
        np.savez_compressed(file, acceleration=acceleration, interval_s=interval_s, unit="m/s2")


if sys.platform == "win32":  # the decoder runs there; the bench does not
    raise ImportError("judder's commands need Linux or macOS; on Windows use WSL")
