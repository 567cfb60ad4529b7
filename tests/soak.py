"""`make soak`: fifty devices, 10,000 windows, whatever can fail, and memory that stays flat.

Each device is unmodified firmware on an emulated bench; its seed draws interpreter, settings and faults. All post to
one `judder serve` in a process of its own, so that its memory is seen alone, and that delivers to one emulated Edge
Impulse, which is down for a fifth of the windows. A few devices run at a time: the others have not been made yet.

When a device has its windows, power cuts end and its sensor is taken away, so that what waits can go out whatever
DAILY_KB is; the other faults stay. Then each window captured is stored as the sensor gave it, or the server's account
says what became of it. A device depends on its seed alone and can be run again alone.
"""

import argparse
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from judder import demo
from judder.background import background
from judder.board import RING_BYTES
from judder.emulator import edge_impulse, faults
from judder.emulator.bench import Bench
from judder.emulator.edge_impulse import EdgeImpulse, Mode
from judder.emulator.i2c import ADDRESS_NACK, Injected
from judder.emulator.lis3dh import ADDRESS as LIS3DH_ADDRESS
from judder.emulator.machine import Machine
from judder.emulator.notecard import faults as notecard_faults
from judder.emulator.notecard.link import NEVER
from judder.emulator.notehub import Notehub
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.queue import Queue
from judder.records import State

AT_A_TIME = 4
RUNTIME_OF = (  # by the last digit of a device's number; the first few devices have them all
    *("cpython", "cpython", "cpython", "micropython", "cpython"),
    *("wasm", "cpython", "micropython", "cpython", "cpython"),
)
WASM_MAY_CAPTURE = 50  # windows: it frees no memory while the firmware runs, and 2 GB are its limit
DAY_S = 86400
SECOND_NS = 10**9
PATIENCE_S = 60 * DAY_S  # of the bench's time: the tightest DAILY_KB takes a month for a full ring
REPORTED_WITHIN_S = 1300  # two reports on losses, and some time between them
DOWN_IN = (2, 6)  # the tenths of all windows in which Edge Impulse is down
SAMPLES_OF_MEMORY = 200
SERVER_MAY_GROW_KB = 8192
BENCHES_MAY_GROW_BLOCKS = 500_000  # one has some 60,000, four run at a time, and of fifty none may be left
HEAP_MAY_GROW_BYTES = 2048
FEWEST_COLLECTIONS = 100  # of a heap that say something about its growth


@dataclass(frozen=True)
class Options:
    devices: int = 50
    windows: int = 200
    """Of each device, at least."""
    seed: int = 1
    most_samples: int = 1024
    device: int | None = None
    """Only this one."""


@dataclass(frozen=True)
class Plan:
    """What a device is, drawn from its seed."""

    number: int
    seed: int
    runtime: str
    settings: dict[str, str | int]
    faults: tuple[str, ...]
    ring_bytes: int
    outages_s: tuple[tuple[float, float], ...]

    def __str__(self) -> str:
        settings = " ".join(f"{name}={value}" for name, value in self.settings.items() if name != "LABEL")
        ring = "" if self.ring_bytes else ", no ring.bin"
        return f"device {self.number} ({self.runtime}, {settings}{ring}, faults {' '.join(self.faults) or 'none'})"


def plan(options: Options, number: int) -> Plan:
    drawn = random.Random(f"{options.seed} {number}")
    runtime = RUNTIME_OF[number % len(RUNTIME_OF)]
    every_s = drawn.choice((20, 60, 300, 900))
    settings: dict[str, str | int] = {
        "LABEL": "soak",
        "SAMPLES": round(64 * (options.most_samples / 64) ** drawn.random()),
        "ODR_HZ": drawn.choice((400, 1344, 1344)),
        "CAPTURE_EVERY_S": every_s,
        "DROP": drawn.choice(("newest", "oldest")),
        "RING_BYTES": drawn.choice((16384, 32768, 98304)),
        "POST_BYTES": drawn.choice((4096, 16384, 65536)),
        "DAILY_KB": drawn.choice((0, 0, 0, 64, 256, 1000)),
        "REPORT_EVERY_S": drawn.choice((3600, 21600)),
        "TRANSFER": drawn.choice(("chunks", "chunks", "stock")),
    }
    names = [name for name in faults.MEANINGS if name != demo.EDGE_IMPULSE_DOWN]
    chosen = drawn.sample(names, drawn.randrange(6))
    lasts_s = options.windows * every_s
    starts_s = sorted(drawn.uniform(0, lasts_s) for _ in range(drawn.randrange(4)))
    return Plan(
        number=number,
        seed=options.seed * 1000 + number,
        runtime=runtime if runtime != "wasm" or options.windows <= WASM_MAY_CAPTURE else "micropython",
        settings=settings,
        faults=tuple(_how_often(name, drawn) for name in chosen),
        ring_bytes=drawn.choice((RING_BYTES, RING_BYTES, RING_BYTES, 0)),
        outages_s=tuple((start_s, start_s + drawn.uniform(0, lasts_s / 4)) for start_s in starts_s),
    )


def _how_often(name: str, drawn: random.Random) -> str:
    """Those of the Notecard as often as by default, down to a fourth of that."""
    kind = notecard_faults.KINDS.get(name)
    return name if kind is None else f"{name}:{drawn.randint(kind.every, 4 * kind.every)}"


@dataclass
class Found:
    """What became of the windows of a device, or of all."""

    captured: int = 0
    stored: int = 0
    reported: Counter[str] = field(default_factory=Counter)
    """Lost, by the reason that the server's account gives."""
    tail: int = 0
    unreported: int = 0
    boots: int = 0
    samples_lost: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        for name in ("captured", "stored", "tail", "unreported", "boots", "samples_lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reported.update(other.reported)
        self.wrong += other.wrong


@dataclass
class Memory:
    """Of a process after so many windows.

    Of the server in kB; of the benches in blocks of Python's that are in use, since four of them, each of another
    size, leave the allocator with more than it uses: from 12 to 19 MB in three runs, while what was in use fell.
    """

    unit: str
    may_grow: int
    after: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)

    def figures(self, total: int) -> tuple[float, float, float]:
        """After the first tenth: where the fitted line starts, how far it rises to its end, and by 1,000 windows."""
        after, used = np.array(self.after), np.array(self.used)
        warm = after >= total / 10
        slope, start = np.polyfit(after[warm], used[warm], 1)
        return start + slope * total / 10, slope * 0.9 * total, 1000 * slope


class Soak:
    """One run. `on_line` sees what a device does wrong, as soon as that is known, and what it says if it is alone."""

    def __init__(
        self,
        options: Options,
        data: Path,
        on_progress: Callable[["Soak"], None] = lambda soak: None,
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.options = options
        self.found = Found()
        self.delivered: Counter[tuple[str, int, int]] = Counter()
        self.states: Counter[str] = Counter()
        self.held: Counter[str] = Counter()
        self.conflicts = self.quarantined = 0
        self.server, self.benches = Memory("kB", SERVER_MAY_GROW_KB), Memory("blocks", BENCHES_MAY_GROW_BLOCKS)
        self.heap_growth: dict[int, int] = {}
        """By device, in bytes."""
        self.finished = 0
        self.captured = 0
        self.missing_runtimes: Counter[str] = Counter()
        self.service = EdgeImpulse(api_key=demo.API_KEY, hmac_key=demo.HMAC_KEY, keep_bodies=False)
        self._on_progress, self._on_line = on_progress, on_line
        self._data = data
        self._lock = threading.Lock()
        self._running: set[Bench] = set()
        self._stopped = False
        numbers = range(options.devices) if options.device is None else [options.device]
        self.plans = [plan(options, number) for number in numbers]
        self.total = len(self.plans) * options.windows

    def run(self) -> None:
        with background(lambda: edge_impulse.running(self.service)), _server(self._data, self.service) as (pid, url):
            self._pid, self._notehub = pid, Notehub({"ingest": url})
            with Queue(self._data, beside=True) as self._queue:
                with ThreadPoolExecutor(AT_A_TIME) as pool:
                    try:
                        for found in pool.map(self._run_device, self.plans):
                            self.found.add(found)
                    except BaseException:  # interrupted: do not wait for the end of the run
                        self._stop()
                        raise
                self.service.mode = Mode()
                demo._wait_for_delivery(self._queue)
                self._drain_service()
                self._count()

    def _stop(self) -> None:
        self._stopped = True
        for bench in self._running.copy():
            bench.stop()

    def _run_device(self, what: Plan) -> Found:
        try:
            runtime = RUNTIMES[what.runtime]()
        except RuntimeMissingError:
            self.missing_runtimes[what.runtime] += 1
            runtime = RUNTIMES["cpython"]()
        last_lines: deque[str] = deque(maxlen=3)

        def see(device: str, line: str) -> None:
            last_lines.append(line)
            if self.options.device is not None:
                self._on_line(line)
            if " captured: " in line:
                self._tick()

        bench = Bench(
            Machine.demo(),
            self._notehub.send,
            seed=what.seed,
            settings=what.settings,
            ring_bytes=what.ring_bytes,
            runtime=runtime,
            on_line=see,
        )
        bench.notecard.link.outages += [
            (round(start_s * SECOND_NS), round(end_s * SECOND_NS)) for start_s, end_s in what.outages_s
        ]
        for name in what.faults:
            faults.inject(name, bench, what.seed)
        found = Found()
        self._running.add(bench)
        try:
            with bench:
                self._capture_and_settle(bench, what, found)
            self._compare(bench, found)
        except Exception as error:  # noqa: BLE001  # named with its device, and the soak fails
            found.wrong.append(f"{type(error).__name__}: {error}")
        self._running.discard(bench)
        if runtime.name == "micropython":
            self._see_heap(what.number, [kept for _, kept in bench.swan.heap_bytes])
        del bench
        gc.collect()  # it is a large knot of references, and would stay until some later collection
        found.wrong = [f"{what}: {one}" for one in found.wrong]
        if found.wrong:
            found.wrong += [f"  it said: {line}" for line in last_lines]
            found.wrong.append(
                f"  alone: .venv/bin/python -m tests.soak --device {what.number} --seed {self.options.seed}"
                f" --windows {self.options.windows}"
            )
            self._on_line("\n".join(found.wrong))
        self.finished += 1
        return found

    def _capture_and_settle(self, bench: Bench, what: Plan, found: Found) -> None:
        until_ns = PATIENCE_S * SECOND_NS
        while len(bench.captured) < self.options.windows and not self._stopped and bench.clock.now_ns() < until_ns:
            bench.run_for(float(what.settings["CAPTURE_EVERY_S"]))
        if len(bench.captured) < self.options.windows:
            found.wrong.append(f"captured {len(bench.captured)} windows in {PATIENCE_S // DAY_S} days")
        bench.swan.faults.clear()
        bench.bus.faults.insert(0, lambda one: Injected(ADDRESS_NACK) if one.address == LIS3DH_ADDRESS else None)
        if bench.swan.flash is not None:
            bench.swan.flash.cut_at = None
        until_ns = bench.clock.now_ns() + PATIENCE_S * SECOND_NS
        for _ in range(2):
            bench.run_for(REPORTED_WITHIN_S)
            bench.swan.run(lambda: self._stopped or _holds_nothing(bench) or bench.clock.now_ns() > until_ns)
        if not _holds_nothing(bench):
            found.wrong.append(f"still holds windows after {PATIENCE_S // DAY_S} days")

    def _compare(self, bench: Bench, found: Found) -> None:
        truths = {(bench.device, *key): truth for key, truth in bench.captured.items()}
        ours = [one.window() for one in self._queue.stored() if one.device == bench.device]
        stored = {(one.device, one.boot, one.sequence): one for one in ours}
        invented = stored.keys() - truths.keys()
        if invented:
            found.wrong.append(f"{len(invented)} windows are stored that were never captured")
        checked = demo.Run([], self.service, truths, {key: stored[key] for key in stored.keys() & truths.keys()})
        demo._check_samples(checked)
        fate = demo.fate(truths.keys() - stored.keys(), self._queue.accounts(bench.device))
        found.wrong += checked.wrong
        found.wrong += [f"{name} was given up: {why}" for name, why in bench.given_up.items() if why == "refused"]
        if fate.unreported:
            found.wrong.append(f"{fate.unreported} windows are missing and not reported")
        found.captured, found.stored, found.boots = len(truths), len(stored), bench.swan.boots
        found.reported, found.tail, found.unreported = fate.reported, fate.tail, fate.unreported
        found.samples_lost = sum(truth.lost for truth in truths.values())

    def _tick(self) -> None:
        """A window has been captured."""
        with self._lock:
            self.captured += 1
            tenth = 10 * self.captured // self.total
            self.service.mode = Mode("status", 503) if tenth in DOWN_IN else Mode()
            if self.captured % max(1, self.total // SAMPLES_OF_MEMORY) == 0:
                self._drain_service()
                for memory, used in (
                    (self.server, _resident_kb(self._pid)),
                    (self.benches, sys.getallocatedblocks()),
                ):
                    memory.after.append(self.captured)
                    memory.used.append(used)
                self._on_progress(self)

    def _see_heap(self, number: int, kept: list[int]) -> None:
        """What is kept when least waits, from the second fifth of the run to the last."""
        fifth = len(kept) // 5
        if len(kept) >= FEWEST_COLLECTIONS:
            self.heap_growth[number] = min(kept[-fifth:]) - min(kept[fifth : 2 * fifth])

    def _drain_service(self) -> None:
        accepted = self.service.accepted
        while accepted:
            known = accepted.pop(0).metadata
            self.delivered[known["device"], int(known["boot"], 16), int(known["sequence"])] += 1

    def _count(self) -> None:
        for one in self._queue.stored():
            self.states[one.state] += 1
            if one.state is State.HELD:
                self.held[one.reason] += 1
        reasons = [reason for reason, _ in self._queue.quarantined()]
        self.quarantined = len(reasons)
        self.conflicts = sum(reason.startswith("conflict") for reason in reasons)

    @property
    def twice(self) -> int:
        return self.delivered.total() - len(self.delivered)

    def verdict(self) -> list[str]:
        """Everything wrong, one line each."""
        wrong = list(self.found.wrong)
        found = self.found
        accounted = found.stored + found.reported.total() + found.tail + found.unreported
        for number, what in (
            (found.unreported, "windows are missing and not reported"),
            (found.captured - accounted, "windows are in no account, or in two"),
            (self.twice, "windows were delivered twice"),
            (self.conflicts, "windows are in quarantine because their key was taken"),
            (found.stored - len(self.delivered) - self.held.total(), "windows are stored and were not delivered"),
        ):
            if number:
                wrong.append(f"{number} {what}")
        for name, memory in (("server", self.server), ("benches", self.benches)):
            _, growth, _ = memory.figures(self.total)
            if growth > memory.may_grow:
                wrong.append(
                    f"{name}: {growth:.0f} {memory.unit} more in the end, and at most {memory.may_grow} are allowed"
                )
        for number, growth in self.heap_growth.items():
            if growth > HEAP_MAY_GROW_BYTES:
                wrong.append(f"device {number} kept {growth} bytes more on its heap in the end")
        return wrong

    def lines(self) -> Iterator[str]:
        """The figures."""
        found = self.found
        runtimes = Counter(one.runtime for one in self.plans)
        yield f"devices      {len(self.plans)} ({_listed(runtimes)}), {found.boots} starts"
        if self.missing_runtimes:
            yield f"             not on this machine, cpython instead: {_listed(self.missing_runtimes)}"
        yield f"captured     {found.captured}, {found.samples_lost} samples lost in them by faults, each flagged"
        yield f"stored       {found.stored}, quarantined {self.quarantined}, conflicts {self.conflicts}"
        yield f"delivered    {len(self.delivered)}, twice {self.twice}, held {_listed(self.held) or 0}"
        yield f"lost         reported {_listed(found.reported) or 0}, in an unknown tail {found.tail}"
        yield f"unreported   {found.unreported}"
        for name, memory in (("server", self.server), ("benches", self.benches)):
            start, growth, slope = memory.figures(self.total)
            yield (
                f"{name:12} {start:.0f} {memory.unit} after the first tenth, {growth:+.0f} to the end"
                f" ({slope:+.0f} per 1,000 windows), at most {max(memory.used)}; {memory.may_grow:+d} are allowed"
            )
        if self.heap_growth:
            yield (
                f"boards' heap {max(self.heap_growth.values()):+d} bytes kept at most, of {len(self.heap_growth)}"
                f" MicroPythons; {HEAP_MAY_GROW_BYTES:+d} are allowed"
            )


def _listed(numbers: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in numbers.most_common())


def _holds_nothing(bench: Bench) -> bool:
    """Only then does the board allow outboard updates."""
    return bench.notecard.outboard.allowed_from_ns != NEVER


def _resident_kb(pid: int) -> int:
    statm = Path(f"/proc/{pid}/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return int(subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True).stdout)


@contextmanager
def _server(data: Path, service: EdgeImpulse) -> Iterator[tuple[int, str]]:
    """`judder serve` in a process of its own: its number and its address."""
    command = [sys.executable, "-m", "judder", "serve", "--data", str(data), "--port", "0"]
    child = subprocess.Popen(
        [*command, "--edge-impulse-url", service.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"EDGE_IMPULSE_API_KEY": demo.API_KEY, "EDGE_IMPULSE_HMAC_KEY": demo.HMAC_KEY},
        cwd=data.parent,  # where no judder.toml is
    )
    with child:
        try:
            line = child.stdout.readline()
            assert line.startswith("ready ")
            yield child.pid, line.split()[1]
        finally:
            child.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--devices", type=int, default=Options.devices)
    parser.add_argument("--windows", type=int, default=Options.windows, help="of each device")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--device", type=int, help="only this one, with what it says")
    options = Options(**vars(parser.parse_args()))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or server and folder would stay
    began_s = time.monotonic()

    def show(soak: Soak) -> None:
        if sys.stdout.isatty() and options.device is None:
            print(
                f"\r{soak.captured} of {soak.total} windows, {soak.finished} of {len(soak.plans)} devices done,"
                f" server {soak.server.used[-1] // 1024} MB, {(time.monotonic() - began_s) / 60:.0f} min ",
                end="",
                flush=True,
            )

    with tempfile.TemporaryDirectory(prefix="judder-soak-") as folder:
        soak = Soak(options, Path(folder) / "data", show, print)
        if options.device is not None:
            print(soak.plans[0])
        soak.run()
    print("\n" if sys.stdout.isatty() else "", end="")
    print(*soak.lines(), sep="\n")
    wrong = soak.verdict()
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"{'FAIL' if wrong else 'PASS'}: seed {options.seed}, {(time.monotonic() - began_s) / 60:.1f} min")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
