"""Whatever fails between sensor and training set: each window captured arrives once, or its loss is reported.

Each row runs the unmodified firmware on emulated benches against the real server and store, and ends in figures, which
pytest prints as a table in the end. "Reported": the server's account names reason and number. "Tail": the account says
that the boot ended with an unknown number of windows after those it knows.
"""

import itertools
import os
import random
import subprocess
import sys
import threading
from dataclasses import asdict
from zlib import crc32

import pytest
from tests.chain import Chain, Figures, chain, server_config

from judder import decode_each, demo, fat12
from judder.background import background as on_thread
from judder.board import RING_BYTES, RING_FILE, SETTINGS_FILE
from judder.config import Config
from judder.emulator import edge_impulse
from judder.emulator.clock import VirtualClock
from judder.emulator.edge_impulse import EdgeImpulse, Mode
from judder.emulator.flash import PowerLostError, Torn
from judder.emulator.notecard import ADDRESS as NOTECARD_ADDRESS
from judder.emulator.notehub import Notehub
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError, cpython
from judder.server import background

pytestmark = pytest.mark.slow

HOUR_S = 3600
SECOND_NS = 10**9
REPORTED_WITHIN_S = 1300  # two reports on losses, and a window between them


@pytest.fixture
def row(record_property):
    """Checks and keeps the figures of a row."""

    def keep(name, figures):
        record_property("fault", name)
        for field, value in asdict(figures).items():
            record_property(field, sum(value.values()) if field == "reported" else value)
        assert figures.captured > 0
        assert figures.unreported == 0
        assert figures.twice == 0
        assert figures.delivered == figures.stored
        assert figures.captured == figures.stored + sum(figures.reported.values()) + figures.tail
        return figures

    return keep


@pytest.fixture
def runtime():
    """A real MicroPython with its own FAT on the flash, where there is one."""
    try:
        return RUNTIMES["micropython"]()
    except RuntimeMissingError:
        return cpython()


def outage(bench, start_s, end_s):
    bench.notecard.link.outages.append((int(start_s * SECOND_NS), int(end_s * SECOND_NS)))


def settle(bench, limit_s=4 * 86400):
    """Until nothing waits on the board and all that it had to report is reported."""
    deadline_ns = bench.clock.now_ns() + limit_s * SECOND_NS
    for _ in range(2):
        bench.run_for(REPORTED_WITHIN_S)
        bench.swan.run(lambda: bench.drained or bench.clock.now_ns() > deadline_ns)
        assert bench.drained


def live_through_cut(bench):
    """Until the power goes; then it comes back."""
    deadline_ns = bench.clock.now_ns() + 86400 * SECOND_NS
    bench.swan.run(lambda: not bench.swan.has_power or bench.clock.now_ns() > deadline_ns)
    assert not bench.swan.has_power
    bench.clock.sleep(20 * SECOND_NS)
    bench.swan.power_on()


# --- power ------------------------------------------------------------------------------------------------------------

OUTAGE_OF_A_LIFE = 100, 1700


def test_power_cut_at_every_flash_step_of_a_window_s_life(tmp_path, row, runtime):
    """From the first window that waits for the link to the mark that the last one is released."""
    total = Figures()
    with chain(tmp_path) as whole:
        with whole.bench(runtime=runtime) as bench:
            outage(bench, *OUTAGE_OF_A_LIFE)
            settle(bench)
        steps = bench.swan.flash.steps
        assert steps >= 20
        for seed, (step, torn) in enumerate(itertools.product(range(1, steps + 1), (Torn.erased, Torn.garbage)), 1):
            with whole.bench(seed=seed, runtime=runtime) as bench:
                outage(bench, *OUTAGE_OF_A_LIFE)
                bench.swan.flash.cut_at, bench.swan.flash.torn = step, torn
                live_through_cut(bench)
                settle(bench)
            total.runs += 1
        total.add(whole.figures())
    row(f"power cut at each of {steps} flash steps", total)
    assert total.tail <= 2 * total.runs  # one that has not failed to be sent twice, and the next
    assert not total.reported  # least of all one that was safe in flash


def test_power_cut_at_every_notecard_step(tmp_path, row, runtime):
    """Before each transfer from the start to the acknowledgement; every other time the Notecard goes too."""

    def life(whole, cut_at, seed):
        transfers = 0

        def cut(transfer):
            nonlocal transfers
            transfers += transfer.address == NOTECARD_ADDRESS
            if transfers == cut_at and transfer.address == NOTECARD_ADDRESS:
                if cut_at % 2:
                    bench.notecard.brown_out()
                raise PowerLostError

        with whole.bench(seed=seed, runtime=runtime, settings={"CAPTURE_EVERY_S": 1200}) as bench:
            bench.bus.faults.append(cut)
            if cut_at:
                live_through_cut(bench)
            else:
                bench.swan.run(lambda: bench.captured and bench.drained)
            first_life = transfers
            settle(bench)
        return first_life

    with chain(tmp_path) as whole:
        steps = life(whole, 0, 0)
        assert steps > 100
        for step in range(1, steps + 1):
            life(whole, step, step)
        figures = whole.figures()
        figures.runs = steps
        row(f"power cut at each of {steps} Notecard transfers", figures)
    assert figures.tail <= steps


def test_notecard_brown_out_in_mid_transaction(tmp_path, row):
    def life(whole, seed):
        drawn = random.Random(seed)

        def brown_out(transfer):
            if transfer.address == NOTECARD_ADDRESS and drawn.random() < 0.004:
                bench.notecard.brown_out()

        with whole.bench(seed=seed) as bench:
            bench.bus.faults.append(brown_out)
            bench.run_for(12 * HOUR_S)
            bench.bus.faults.clear()
            settle(bench)

    with chain(tmp_path) as whole:
        for seed in range(4):
            life(whole, seed)
        figures = row("Notecard brown-outs in mid-transaction", whole.figures())
    assert figures.captured == figures.stored


def test_a_drive_that_is_wiped_while_windows_wait(tmp_path, row):
    with chain(tmp_path) as whole:
        with whole.bench() as bench:
            outage(bench, HOUR_S, 3 * HOUR_S)
            bench.run_for(2 * HOUR_S)
            bench.swan.power_off()
            last = {RING_FILE: b"\xff" * RING_BYTES}
            bench.swan.flash.load(fat12.volume({SETTINGS_FILE: b"\n"}, last=last))  # as an update leaves it
            bench.swan.power_on()
            settle(bench)
        figures = row("a wiped drive", whole.figures())
    assert figures.tail > 5


# --- the way to the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop", ["newest", "oldest"])
def test_link_down_for_a_week_then_back(tmp_path, row, drop):
    with chain(tmp_path) as whole:
        settings = {"CAPTURE_EVERY_S": 3600, "SAMPLES": 128, "RING_BYTES": 16384, "DROP": drop}
        with whole.bench(settings=settings, ring_bytes=65536) as bench:
            outage(bench, HOUR_S, 7 * 86400 + HOUR_S)
            bench.run_for(7 * 86400 + 2 * HOUR_S)
            settle(bench)
        figures = row(f"link down for a week, DROP = {drop}", whole.figures())
        skipped = max(report.skipped for report in whole.queue.reports())
    assert figures.captured + skipped >= 7 * 24
    assert bool(skipped > 50) == (drop == "newest")
    assert figures.reported.keys() == ({"dropped"} if drop == "oldest" else set())


def test_a_power_cut_a_day_while_the_link_is_down_and_the_oldest_give_way(tmp_path, row, runtime):
    """What gives way is listed in RAM until a report is out; what the power takes of it, the next boots make known."""
    with chain(tmp_path) as whole:
        settings = {"CAPTURE_EVERY_S": 900, "SAMPLES": 128, "RING_BYTES": 16384, "DROP": "oldest"}
        with whole.bench(settings=settings, ring_bytes=65536, runtime=runtime) as bench:
            outage(bench, HOUR_S, 6 * 86400 + HOUR_S)
            drawn = random.Random(6)
            for day in range(6):
                bench.run_for((day + drawn.uniform(0.5, 1)) * 86400 - bench.clock.now_ns() / SECOND_NS)
                bench.swan.reset()
            settle(bench)
        figures = row("link down for six days, a power cut a day, DROP = oldest", whole.figures())
    assert sum(figures.reported.values()) > 200
    assert figures.tail <= 6 * 9  # they move to flash in groups of eight


class Unreliable:
    """Sends on some posts twice, and old ones again after newer ones."""

    def __init__(self, send, seed):
        self._send = send
        self._old = []
        self._random = random.Random(seed)
        self.repeated = 0

    def __call__(self, request):
        response = self._send(request)
        self._old.append(request)
        for again in [one for one in self._old if self._random.random() < 0.3]:
            self._send(again)
            self.repeated += 1
        del self._old[:-5]
        return response


def test_duplicated_and_reordered_posts(tmp_path, row):
    with chain(tmp_path) as whole:
        send = Unreliable(whole.notehub.send, 1)
        with whole.bench(send=send) as bench:
            outage(bench, 2 * HOUR_S, 5 * HOUR_S)
            bench.run_for(8 * HOUR_S)
            settle(bench)
        figures = row("posts duplicated and reordered", whole.figures())
    assert send.repeated > 20
    assert figures.captured == figures.stored


def test_two_devices_with_one_serial_number(tmp_path, row):
    with chain(tmp_path) as whole:
        for seed in (1, 2):
            with whole.bench(seed=seed, settings={"DEVICE_SN": "pump-3"}) as bench:
                bench.run_for(3 * HOUR_S)
                settle(bench)
        figures = row("two devices with one serial number", whole.figures())
    assert figures.captured == figures.stored


def test_two_boards_that_take_turns_on_one_notecard(tmp_path, row):
    with chain(tmp_path) as whole:
        with whole.bench(seed=5) as first:
            first.run_for(HOUR_S)
            settle(first)
        second = whole.bench(seed=5, salt=1)
        second.clock.sleep(777 * SECOND_NS)  # or it measures the very same, and Edge Impulse takes it for a repeat
        with second:
            second.notecard.notefiles = first.notecard.notefiles
            second.run_for(HOUR_S)
            settle(second)
        assert first.device == second.device
        figures = row("two boards on one Notecard", whole.figures())
    assert figures.captured == figures.stored


# --- server and beyond ------------------------------------------------------------------------------------------------


class Mortal:
    """`judder serve` in a process of its own that is killed at random moments of a post, and started again."""

    def __init__(self, data, service, seed):
        self._command = [
            sys.executable,
            "-m",
            "judder",
            "serve",
            "--data",
            str(data),
            "--edge-impulse-url",
            service.url,
        ]
        self._environment = os.environ | {"EDGE_IMPULSE_API_KEY": demo.API_KEY, "EDGE_IMPULSE_HMAC_KEY": demo.HMAC_KEY}
        self._folder = data.parent
        self._random = random.Random(seed)
        self.kills = 0
        self._start()

    def _start(self):
        self._child = subprocess.Popen(
            [*self._command, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment,
            cwd=self._folder,
        )
        line = self._child.stdout.readline()
        assert line.startswith("ready ")
        self.notehub = Notehub({"ingest": line.split()[1]})

    def send(self, request):
        if self._random.random() < 0.6:
            return self.notehub.send(request)
        self.kills += 1
        killer = threading.Timer(self._random.random() * 0.02, self._child.kill)
        killer.start()
        response = self.notehub.send(request)
        killer.join()
        self.stop()
        self._start()
        return response

    def stop(self):
        self._child.kill()
        self._child.wait()
        self._child.stdout.close()


def test_server_killed_at_random_moments(tmp_path, row):
    service = EdgeImpulse(api_key=demo.API_KEY, hmac_key=demo.HMAC_KEY)
    with on_thread(lambda: edge_impulse.running(service)):
        mortal = Mortal(tmp_path / "data", service, 1)
        try:
            whole = Chain(service, None, None)
            with whole.bench(send=mortal.send) as bench:
                bench.run_for(2 * HOUR_S)
                settle(bench)
        finally:
            mortal.stop()
        with background(server_config(tmp_path / "data", service)) as server:
            whole.queue = server.queue
            figures = row(f"server killed {mortal.kills} times", whole.figures())
    assert mortal.kills >= 8
    assert figures.captured == figures.stored


def test_disk_full_at_the_server(tmp_path, row):
    with (
        chain(tmp_path / "data") as whole,
        background(Config(data=tmp_path / "full", port=0, free_disk_bytes=1 << 60)) as full,
    ):
        url = whole.notehub.routes["ingest"].url.geturl()
        with whole.bench() as bench:
            bench.run_for(HOUR_S)
            whole.notehub.add_route("ingest", full.url)
            bench.run_for(6 * HOUR_S)
            assert whole.said("the server's disk is full")
            whole.notehub.add_route("ingest", url)
            settle(bench)
        figures = row("disk full at the server", whole.figures())
    assert figures.captured == figures.stored


def test_no_room_for_the_ring_s_file_on_the_device(tmp_path, row):
    """Windows wait in RAM; when that is full, the newest are not captured."""
    with chain(tmp_path) as whole:
        with whole.bench(ring_bytes=0, settings={"RING_BYTES": 16384, "SAMPLES": 512}) as bench:
            outage(bench, HOUR_S, 12 * HOUR_S)
            bench.run_for(13 * HOUR_S)
            settle(bench)
        figures = row("no room on the device's drive", whole.figures())
        assert max(report.skipped for report in whole.queue.reports()) > 50
    assert figures.captured == figures.stored


def test_edge_impulse_down(tmp_path, row):
    with chain(tmp_path) as whole:
        whole.service.mode = Mode("status", 503)
        with whole.bench() as bench:
            bench.run_for(6 * HOUR_S)
            settle(bench)
        assert not whole.service.accepted
        whole.service.mode = Mode()
        figures = row("Edge Impulse down", whole.figures())
    assert figures.captured == figures.stored


# --- identity and time ------------------------------------------------------------------------------------------------


def test_clock_jumps_and_unknown_time(tmp_path, row):
    """No network, and so no time, for a day from the start; then the Notecard's clock jumps to and fro."""
    clock = VirtualClock()
    with chain(tmp_path) as whole:
        with whole.bench(clock=clock) as bench:
            outage(bench, 0, 12 * HOUR_S)
            bench.run_for(13 * HOUR_S)
            for years in (10, -10, -1, 1):
                clock._epoch_utc_ns += years * 365 * 86400 * SECOND_NS
                bench.run_for(2 * HOUR_S)
            settle(bench)
        figures = row("clock jumps and unknown time", whole.figures())
        unknown = sum(window.started_at is None for window in whole.queue.windows())
    assert unknown > 50
    assert figures.captured == figures.stored


def test_a_key_that_is_used_again_with_other_data(tmp_path, row):
    """The board's random numbers come out the same at each start: the second boot takes the first one's keys."""
    with chain(tmp_path) as whole:
        with whole.bench() as bench:
            before = bench.swan._random.getstate()
            bench.run_for(HOUR_S)
            first = dict(bench.captured)
            bench.swan.power_off()
            bench.swan._random.setstate(before)
            bench.captured.clear()
            bench.acknowledged.clear()
            bench.swan.power_on()
            bench.run_for(3 * HOUR_S)
            settle(bench)
        again = [key for key in bench.captured if key in first]
        assert len(again) > 5
        quarantined = [
            (found.boot, found.sequence) for _, body in whole.queue.quarantined() for found in decode_each(body)
        ]
        assert set(quarantined) == set(again)  # kept apart, and none overwritten
        stored = {(found.boot, found.sequence): found for found in whole.queue.windows()}
        for key, truth in first.items():
            assert crc32(stored[key].counts.astype("<i2").tobytes()) == truth.counts_crc
        bench.captured.update(first)
        figures = row("a key used again with other data", whole.figures())
    assert figures.captured == figures.stored
