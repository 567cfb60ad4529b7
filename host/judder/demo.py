"""`judder demo`: the whole loop on the emulated bench, and what came of it.

Emulated: the machine, the LIS3DH, the Notecard, Notehub, Edge Impulse, the Swan's processor and all time on the
device. Real and unmodified: the firmware of device/, adafruit_lis3dh, adafruit_bus_device, note-python, HTTP, the
server, SQLite and the decoder.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from zlib import crc32

import numpy as np
from pydantic import SecretStr

from judder import overhaul
from judder.account import Account
from judder.background import background as on_thread
from judder.config import Config
from judder.defect import Defect, Outcome, Plan
from judder.emulator import edge_impulse, faults
from judder.emulator.bench import Bench, Truth
from judder.emulator.edge_impulse import EdgeImpulse, Mode
from judder.emulator.machine import Machine, Service
from judder.emulator.notehub import Notehub
from judder.emulator.recording import Recording
from judder.emulator.runtime import Runtime
from judder.emulator.swan import settings_toml
from judder.overhaul import Overhaul, Update
from judder.queue import Queue
from judder.records import State
from judder.server import background
from judder.spectrum import strongest_peak
from judder.window import Window

CAPTURE_EVERY_S = 60
PATIENCE_S = 7 * 86400.0  # of the bench's own time, after which a window that has not arrived counts as lost
DELIVERY_PATIENCE_S = 90.0  # of ours: longer than the longest pause after a failure
EDGE_IMPULSE_DOWN = "edge-impulse-down"
API_KEY, HMAC_KEY = "ei_demo", "0123456789abcdef0123456789abcdef"  # the emulated service's own
PEAK_TOLERANCE = 0.002
PEAK_TOLERANCE_BINS = 0.1

Key = tuple[str, int, int]


@dataclass(frozen=True)
class Options:
    """What to run: `windows` from each of `devices`, kept in folder `data`."""

    data: Path
    windows: int = 200
    devices: int = 1
    seed: int = 1
    fault: str | None = None
    replay: Recording | None = None
    runtime: Runtime | None = None
    defect: Defect | None = None
    """What the machine develops, after a model was trained on its healthy windows."""
    update: Update | None = None
    """What the boards get over the Notecard when half of the windows are captured."""


@dataclass
class Report:
    """What the run showed; the fields of `judder demo --json` (None: not part of this version, or not measurable)."""

    windows_captured: int = 0
    posts: int = 0
    windows_stored: int = 0
    windows_delivered: int | None = None
    lost: int = 0
    duplicates: int = 0
    samples_lost: int = 0
    samples_lost_reported: int = 0
    interval_error_ppm_rms: float | None = None
    interval_error_ppm_max: float | None = None
    bytes_on_air: int = 0
    bytes_article: int = 0
    peak_hz_true: float | None = None
    peak_hz_seen: float | None = None
    windows_reported_lost: int = 0  # named as lost by the server's account, or in the unknown tail of a boot
    model: Outcome | None = None
    update: overhaul.Outcome | None = None


@dataclass
class Run:
    """A finished demo: what really happened, what was stored, the report, and everything wrong (one line each)."""

    benches: list[Bench]
    service: EdgeImpulse
    truths: dict[Key, Truth]
    stored: dict[Key, Window]
    report: Report = field(default_factory=Report)
    wrong: list[str] = field(default_factory=list)
    held: Counter[str] = field(default_factory=Counter)
    """Windows that are stored and not delivered on purpose, by reason."""

    @property
    def last(self) -> Window | None:
        return max(self.stored.values(), key=lambda window: window.sequence, default=None)

    @property
    def samples(self) -> int:
        return sum(map(len, self.stored.values()))


def run(options: Options, on_line: Callable[[str, str], None] = lambda device, line: None) -> Run:
    """Run the loop; `on_line` sees every (device, line) of the firmware's console, from the benches' threads.

    Raises QueueError when the folder cannot be used.
    """
    service = EdgeImpulse(api_key=API_KEY, hmac_key=HMAC_KEY)
    with on_thread(lambda: edge_impulse.running(service)), background(_config(options, service)) as server:
        notehub = Notehub({"ingest": server.url})
        salt = sum(server.queue.counts().values())  # other boot ids than those of an earlier run in the same folder
        plan = Plan(options.defect, options.windows) if options.defect else None
        work = Overhaul(options.update, settings_toml(_settings()), options.windows // 2) if options.update else None
        image = work.image if work else None
        benches = [_bench(options, number, notehub, salt, on_line, image) for number in range(options.devices)]
        service.mode = Mode("status", 503) if options.fault == EDGE_IMPULSE_DOWN else Mode()
        crashes = _run_all(benches, options.windows, plan or work, server.queue)
        service.mode = Mode()
        _wait_for_delivery(server.queue)
        accounts = server.queue.accounts()
        truths = {(bench.device, *key): truth for bench in benches for key, truth in bench.captured.items()}
        arrived = [
            (stored, stored.window())
            for stored in server.queue.stored()
            if (stored.device, stored.boot, stored.sequence) in truths  # others: of an older run
        ]
    finished = Run(benches, service, truths, {_key(window): window for _, window in arrived})
    finished.held = Counter(stored.reason for stored, _ in arrived if stored.state is State.HELD)
    finished.report.posts = notehub.posts
    _count_delivered(finished, service)
    for stored, window in arrived:
        if stored.state in (State.WAITING, State.DEAD):
            finished.wrong.append(
                f"{_name(_key(window))} is {stored.state}: {stored.reason or 'not delivered in time'}"
            )
    given_up = {(bench.device, *key) for bench in benches for key in bench.given_up}
    finished.wrong += crashes
    for bench in benches:
        if len(bench.captured) < options.windows:
            finished.wrong.append(f"{bench.device} captured {len(bench.captured)} of {options.windows} windows in time")
        if not bench.drained:
            finished.wrong.append(f"{bench.device} still holds windows")
    _count(finished, given_up, fate(truths.keys() - finished.stored.keys(), accounts))
    _check_samples(finished)
    _measure_intervals(finished)
    if options.replay is None:
        _compare_peaks(finished)
    if plan is not None:
        finished.wrong += plan.judge(benches, finished.stored)
        finished.report.model = plan.outcome
    if work is not None:
        finished.wrong += work.judge(_last_firmware(finished))
        finished.report.update = work.outcome
    return finished


def _last_firmware(finished: Run) -> list[str]:
    """What the newest window of each board says that it runs."""
    found: dict[str, str] = {}
    for key in finished.truths:
        if key in finished.stored:
            found[key[0]] = finished.stored[key].firmware
    return list(found.values())


def _config(options: Options, service: EdgeImpulse) -> Config:
    # not Config(): a token or limit meant for the real server is none of the demo's business
    return Config.model_construct(
        data=options.data,
        port=0,
        edge_impulse_url=service.url,
        edge_impulse_api_key=SecretStr(API_KEY),
        edge_impulse_hmac_key=SecretStr(HMAC_KEY),
    )


def _wait_for_delivery(queue: Queue) -> None:
    """Until nothing waits any more, or nothing has moved for a while."""
    counts, since_s = queue.counts(), time.monotonic()
    while counts[State.WAITING] and time.monotonic() - since_s < DELIVERY_PATIENCE_S:
        time.sleep(0.02)
        now = queue.counts()
        if now != counts:
            counts, since_s = now, time.monotonic()


def _count_delivered(finished: Run, service: EdgeImpulse) -> None:
    """What Edge Impulse has, by the key in each sample's metadata."""
    keys = [
        (known["device"], int(known["boot"], 16), int(known["sequence"]))
        for known in (sample.metadata for sample in service.accepted)
        if "device" in known
    ]
    ours = [key for key in keys if key in finished.stored]
    finished.report.windows_delivered = len(set(ours))
    finished.report.duplicates = len(ours) - len(set(ours))


def _key(window: Window) -> Key:
    return window.device, window.boot, window.sequence


def _name(key: Key) -> str:
    return f"window {key[1]:08x}:{key[2]} of {key[0]}"


def _settings() -> dict[str, str | int]:
    return {"CAPTURE_EVERY_S": CAPTURE_EVERY_S, "LABEL": "demo", "SESSION": "emulated"}


def _bench(
    options: Options,
    number: int,
    notehub: Notehub,
    salt: int,
    on_line: Callable[[str, str], None],
    image: bytes | None,
) -> Bench:
    """With an image, its settings are those of all boards."""
    seed = options.seed * 1000 + number
    settings = _settings() | {"DEVICE_SN": f"demo-{number + 1}"}
    source = options.replay or (Service(seed=seed) if options.defect else Machine.demo())
    bench = Bench(
        source,
        notehub.send,
        seed=seed,
        salt=salt,
        settings=None if image else settings,
        on_line=on_line,
        runtime=options.runtime,
        image=image,
    )
    if options.fault and options.fault != EDGE_IMPULSE_DOWN:
        faults.inject(options.fault, bench, seed)
    return bench


def _run_all(benches: list[Bench], windows: int, half: Plan | Overhaul | None, queue: Queue) -> list[str]:
    """Each bench on a thread of its own, with what happens halfway; returns what made one stop early."""
    crashes: list[str] = []
    patience_s = windows * CAPTURE_EVERY_S + PATIENCE_S

    def turn() -> None:
        if half is not None:
            half.turn(benches, queue.windows())

    halfway = Barrier(len(benches), turn)

    def run_one(bench: Bench) -> None:
        try:
            with bench:
                if half is not None:
                    bench.run(half.windows_before, give_up_after_s=patience_s)
                    halfway.wait()
                    half.go_on(bench, CAPTURE_EVERY_S)
                bench.run(windows, give_up_after_s=patience_s)
        except BrokenBarrierError:  # whoever broke it has said why
            pass
        except Exception as error:  # noqa: BLE001  # reported, and the demo fails
            halfway.abort()
            crashes.append(f"{bench.device}: {error}")

    with ThreadPoolExecutor(len(benches)) as pool:
        try:
            list(pool.map(run_one, benches))
        except BaseException:  # interrupted: do not wait for the end of the run
            halfway.abort()
            for bench in benches:
                bench.stop()
            raise
    return crashes


# --- what the run showed ----------------------------------------------------------------------------------------------


@dataclass
class Fate:
    """What the server's account says of windows that are not there."""

    reported: Counter[str] = field(default_factory=Counter)
    """Lost, by reason."""
    tail: int = 0
    """Behind the last one that is known of a boot whose end is unknown."""
    unreported: int = 0


def fate(missing: Set[Key], accounts: Iterable[Account]) -> Fate:
    """Of windows that were captured and are not stored."""
    known = {(account.device, account.boot): account for account in accounts}
    found = Fate()
    sequences: dict[tuple[str, int], list[int]] = {}
    for device, boot, sequence in missing:
        sequences.setdefault((device, boot), []).append(sequence)
    for boot_of_device, ours in sequences.items():
        account = known.get(boot_of_device)
        if account is None:
            found.unreported += len(ours)
            continue
        behind = sum(sequence >= account.captured for sequence in ours)
        found.tail += behind if account.tail_unknown else 0
        found.unreported += 0 if account.tail_unknown else behind
        found.unreported += max(0, len(ours) - behind - sum(account.lost.values()))
        found.reported.update(account.lost)
    return found


def _count(finished: Run, given_up: set[Key], missing: Fate) -> None:
    report, truths, stored = finished.report, finished.truths, finished.stored
    report.windows_captured = len(truths)
    report.windows_stored = len(stored)
    report.windows_reported_lost = missing.reported.total() + missing.tail
    report.lost = missing.unreported
    report.samples_lost = sum(truths[key].lost for key in stored)
    report.samples_lost_reported = sum(window.samples_lost or 0 for window in stored.values())
    report.bytes_on_air = sum(len(window.frame) for window in stored.values())
    report.bytes_article = 12 * finished.samples
    if report.lost:
        finished.wrong.append(f"{report.lost} captured windows never arrived")
    if report.duplicates:
        finished.wrong.append(f"{report.duplicates} windows were delivered twice")
    finished.wrong += [f"{_name(key)} was given up by the firmware" for key in sorted(given_up)]


def _check_samples(finished: Run) -> None:
    for key, window in finished.stored.items():
        truth, reported = finished.truths[key], window.samples_lost
        if window.counts is None or crc32(window.counts.astype("<i2").tobytes()) != truth.counts_crc:
            finished.wrong.append(f"{_name(key)} holds other samples than the sensor gave")
        if truth.repeated:
            finished.wrong.append(f"{_name(key)} holds {truth.repeated} samples twice")
        if truth.lost and reported == 0:
            finished.wrong.append(f"{_name(key)} lost {truth.lost} samples silently")
        elif reported is not None and abs(truth.lost - reported) > 2:
            finished.wrong.append(f"{_name(key)} lost {truth.lost} samples and says {reported}")


def _measure_intervals(finished: Run) -> None:
    errors_ppm = [
        (window.interval_s / finished.truths[key].interval_s - 1) * 1e6
        for key, window in finished.stored.items()
        if window.interval_s is not None and not finished.truths[key].lost
    ]
    if errors_ppm:
        finished.report.interval_error_ppm_rms = round(float(np.sqrt(np.mean(np.square(errors_ppm)))), 1)
        finished.report.interval_error_ppm_max = round(float(np.max(np.abs(errors_ppm))), 1)


def _compare_peaks(finished: Run) -> None:
    """Of all windows with the shaft's rate as it was then; the report has the one that is farthest off."""
    found: list[tuple[float, float]] = []
    of = {bench.device: bench for bench in finished.benches}
    for key, window in finished.stored.items():
        if window.interval_s is None or window.gaps:
            continue
        true_hz = _shaft_hz(of[key[0]], finished.truths[key])
        seen_hz = strongest_peak(window.acceleration, window.interval_s)[0]
        found.append((true_hz, seen_hz))
        allowed_hz = max(PEAK_TOLERANCE * true_hz, PEAK_TOLERANCE_BINS / (len(window) * window.interval_s))
        if abs(seen_hz - true_hz) > allowed_hz:
            finished.wrong.append(f"{_name(key)} has its peak at {seen_hz:.2f} Hz")
    finished.report.peak_hz_true = Machine.demo().shaft_hz
    if found:
        true_hz, seen_hz = max(found, key=lambda both: abs(both[1] - both[0]))
        finished.report.peak_hz_true, finished.report.peak_hz_seen = round(true_hz, 3), round(seen_hz, 3)


def _shaft_hz(bench: Bench, truth: Truth) -> float:
    """In the middle of the window."""
    source = bench.lis3dh.source
    if isinstance(source, Service):
        return source.at(bench.time_s(truth) + truth.samples * truth.interval_s / 2).shaft_hz
    return Machine.demo().shaft_hz
