"""The whole loop: unmodified firmware and libraries on the emulated bench, real HTTP, the real server and store.

Conditions of every run (judder.emulator.bench): ODR off by up to 5 %, crystal by up to 20 ppm, clock ticks of
30.5 us, CPU, garbage collection and bus time charged, stalls of up to 10 ms in 2 % of the acquisition's rounds.
"""

import itertools
import json
import random
import shutil

import numpy as np
import pytest

from judder import Flags, decode, demo, fat12
from judder.board import Tree, tree
from judder.emulator import faults
from judder.emulator.flash import BLOCK_BYTES, Torn
from judder.emulator.i2c import ADDRESS_NACK, Injected
from judder.emulator.lis3dh import ADDRESS as LIS3DH_ADDRESS
from judder.emulator.lis3dh import response
from judder.emulator.notecard import Fault
from judder.emulator.notecard.faults import AnsweredInstead, BadStream, BrownOut, LostReply
from judder.emulator.notecard.line import seal
from judder.emulator.notecard.link import WebResponse
from judder.emulator.power import PowerCuts
from judder.emulator.recording import Recording
from judder.emulator.runtime import RUNTIMES, RuntimeMissingError
from judder.emulator.swan import PowerCut, Timing
from judder.frame import HEADER, HEADER_LENGTH

HOUR_S = 3600


def payload_bytes(window):
    fields = HEADER.unpack_from(window.frame)
    gaps, text_length = fields[20], fields[22]
    return len(window.frame) - HEADER_LENGTH - text_length - 4 * gaps - 4


# --- what the demo shows ----------------------------------------------------------------------------------------------


def test_over_208_windows_of_8_parts_interval_samples_peak_and_size_are_as_promised(tmp_path):
    finished = demo.run(demo.Options(tmp_path, windows=26, devices=8))
    report = finished.report
    assert finished.wrong == []  # also: each sample as the sensor gave it, each peak within its tolerance
    assert report.windows_captured == report.windows_stored == report.windows_delivered == 208
    assert (report.lost, report.duplicates, report.samples_lost, report.samples_lost_reported) == (0, 0, 0, 0)
    assert report.interval_error_ppm_rms <= 250
    assert report.interval_error_ppm_max <= 600
    assert all(len(window) == 1024 for window in finished.stored.values())
    samples = finished.samples
    assert sum(map(payload_bytes, finished.stored.values())) / samples <= 2.2
    assert report.bytes_on_air / samples <= 2.4
    assert report.bytes_article == 12 * samples
    rates = {round(1 / truth.interval_s) for truth in finished.truths.values()}
    assert len(rates) == 8
    assert max(rates) - min(rates) > 40  # the parts do differ
    for key, window in finished.stored.items():
        truth = finished.truths[key]
        assert abs(window.interval_s - truth.interval_s) < 4.5 * window.interval_sigma_s
        if window.started_at is not None:
            error_s = abs(window.started_at.timestamp() - truth.first_sample_utc_s)
            assert error_s <= window.started_at_uncertainty_s
    assert sum(window.started_at is None for window in finished.stored.values()) <= 8  # before the first sync


def test_noise_and_machine_are_those_the_figures_are_stated_for(tmp_path):
    """5.7 mg rms of noise, 0.1 g at 29.2 Hz."""
    finished = demo.run(demo.Options(tmp_path, windows=3))
    for window in finished.stored.values():
        t = np.arange(len(window)) * window.interval_s
        orders = np.concatenate(
            [np.outer(t, 29.2 * np.arange(1, 5)), np.outer(t, 29.2 * 3.57 * np.arange(1, 7))], axis=1
        )
        model = np.concatenate([np.cos(2 * np.pi * orders), np.sin(2 * np.pi * orders), np.ones((len(t), 1))], axis=1)
        fit, *_ = np.linalg.lstsq(model, window.acceleration / 9.80665, rcond=None)
        rest = window.acceleration / 9.80665 - model @ fit
        assert np.hypot(fit[0, 0], fit[10, 0]) == pytest.approx(0.1, rel=0.05)
        assert rest.std() == pytest.approx(5.7e-3, rel=0.15)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", faults.MEANINGS)
def test_no_fault_loses_or_doubles_a_window(tmp_path, name):
    lines = []
    finished = demo.run(demo.Options(tmp_path, windows=30, fault=name), on_line=lambda device, line: lines.append(line))
    assert finished.wrong == []
    assert (
        finished.report.windows_captured == finished.report.windows_stored + finished.report.windows_reported_lost >= 30
    )
    assert (finished.report.lost, finished.report.duplicates) == (0, 0)
    assert finished.report.windows_delivered + finished.held.total() == finished.report.windows_stored
    (bench,) = finished.benches
    assert name == "power-cut" or finished.report.windows_reported_lost == 0
    evidence = {
        "nack": lambda: bench.bus.injected,
        "eio": lambda: bench.bus.injected,
        "stall": lambda: finished.report.samples_lost,
        "edge-impulse-down": lambda: finished.service.refused["503"],
        "offline": lambda: [line for line in lines if "not connected to Notehub" in line],
        "power-cut": lambda: bench.power_failures >= 3,
    }
    struck = evidence.get(name, lambda: all(fault.hits for fault in bench.notecard.faults))
    assert struck(), "the fault never happened"


def test_a_stall_of_40_ms_is_seen_and_what_it_cost_is_counted(tmp_path):
    lines = []
    finished = demo.run(
        demo.Options(tmp_path, windows=80, fault="stall", seed=5), on_line=lambda device, line: lines.append(line)
    )
    assert finished.wrong == []
    overran = [key for key, truth in finished.truths.items() if truth.lost]
    assert len(overran) >= 5
    for key in overran:
        window, truth = finished.stored[key], finished.truths[key]
        assert Flags.GAP in window.flags
        assert window.samples_lost is not None
        assert abs(window.samples_lost - truth.lost) <= 2
        assert window.interval_s is not None
        assert abs(window.interval_s / truth_interval_s(finished, key) - 1) < 5000e-6
    started_again = [line for line in lines if "captured" in line and ", 1 tries," not in line]
    assert len(started_again) > len(overran)


def truth_interval_s(finished, key):
    return finished.truths[key].interval_s


class Picky(Fault):
    """Answers that name nothing, somebody else's window, or only some, and sometimes the server's."""

    def __init__(self):
        self.calls = 0
        self.named = set()

    def answer(self, request, response):
        self.calls += 1
        held = [[found.boot, found.sequence] for found in decode(request.body)]
        stored = [[], [[1, 2]], [[held[0][0], 999]], held[-1:]][self.calls % 4]
        self.named.update(map(tuple, stored))
        return WebResponse(200, json.dumps({"stored": stored, "rejected": []}).encode())


def test_a_window_is_released_only_when_it_is_named(loop):
    running = loop()
    picky = Picky()
    running.bench.notecard.faults.append(picky)
    with running.bench as bench:
        bench.run(20)
    assert bench.acknowledged <= picky.named
    assert running.said("the server's answer names none of the")
    running.check_nothing_lost_or_doubled()
    assert picky.calls > 40


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (AnsweredInstead(status=401, times=3), "token of the Notehub route"),
        (AnsweredInstead(status=404, times=3), "no proxy route with this alias"),
        (AnsweredInstead(status=503, times=3), "kept, will be sent again"),
        (AnsweredInstead(status=200, body=b"<html>", times=3), "no acknowledgement of ours"),
        (AnsweredInstead(status=200, body=b'{"stored": 5}', times=3), "no acknowledgement of ours"),
        (AnsweredInstead(status=200, body=b'{"stored": [], "rejected": []}', times=3), "names none"),
        (AnsweredInstead(status=413, times=3), "lower POST_BYTES"),
        (AnsweredInstead(status=507, times=3), "disk is full"),
        (BadStream(times=7), "no good answer from the Notecard to card.binary"),
        (LostReply(times=12), "no good answer from the Notecard to web.post"),
    ],
)
def test_each_trouble_is_one_line_that_says_what_to_do(loop, answer, hint):
    running = loop()
    running.bench.notecard.faults.append(answer)
    with running.bench as bench:
        bench.run(6)
    assert answer.hits >= 3
    assert running.said(hint)
    running.check_nothing_lost_or_doubled()


def test_a_refused_frame_is_given_up_after_three_refusals_and_holds_up_nobody(loop):
    class Refusing(Fault):
        def answer(self, request, response):
            held = [(found.boot, found.sequence) for found in decode(request.body)]
            stored = [list(key) for key in held if key[1] != 2]
            rejected = [[*key, "conflict"] for key in held if key[1] == 2]
            return WebResponse(200, json.dumps({"stored": stored, "rejected": rejected}).encode())

    running = loop()
    running.bench.notecard.faults.append(Refusing())
    with running.bench as bench:
        bench.run(8)
    assert len(running.said("refused by the server: conflict")) == 3
    assert {key[1]: why for key, why in bench.given_up.items()} == {2: "refused"}
    assert {sequence for _, sequence in bench.acknowledged} == set(range(8)) - {2}


def test_while_offline_windows_wait_and_when_the_ring_is_full_capture_pauses(loop):
    running = loop(settings={"RING_BYTES": 16384}, ring_bytes=0)
    start_ns, end_ns = 120 * 10**9, (120 + 4 * HOUR_S) * 10**9
    running.bench.notecard.link.outages.append((start_ns, end_ns))
    with running.bench as bench:
        bench.run_for(3 * HOUR_S)
        waiting = len(bench.captured) - len(bench.acknowledged)
        assert 3 <= waiting <= 10  # what 16 KB hold
        bench.run(30)
    running.check_nothing_lost_or_doubled()
    sequences = sorted(sequence for _, sequence in bench.captured)
    assert sequences == list(range(len(sequences)))


def test_a_backlog_goes_out_of_a_small_heap(loop):
    """256 KB, of objects twice a board's size: no piece of it is free that would take several windows at once."""
    try:
        runtime = RUNTIMES["micropython"]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = loop(settings={"CAPTURE_EVERY_S": 600, "RING_BYTES": 24576}, runtime=runtime, ring_bytes=0)
    running.bench.notecard.link.outages.append((700 * 10**9, 4 * HOUR_S * 10**9))
    with running.bench as bench:
        bench.run(18)
    assert not running.said("MemoryError")
    running.check_nothing_lost_or_doubled()


# --- trouble with the parts -------------------------------------------------------------------------------------------


def test_an_old_notecard_is_named_and_the_board_goes_on_trying(loop):
    running = loop()
    running.bench.notecard.version = "notecard-4.4.1.4015903"
    with running.bench as bench:
        bench.run_for(HOUR_S)
        assert (
            len(running.said("4.4.1.4015903 lacks card.binary, needs 5.3.1 or later: `firmware install latest` in the"))
            >= 3
        )
        assert not bench.captured
        bench.notecard.version = "notecard-5.3.1.17004"
        bench.run(3)
    running.check_nothing_lost_or_doubled()


def test_a_notecard_that_is_not_there_is_one_line_a_try(loop):
    running = loop()
    card = running.bench.bus.chips.pop(0x17)
    with running.bench as bench:
        bench.run_for(HOUR_S)
        complaints = running.said("no Notecard at 0x17: FEATHER power switch on? Qwiic cable? a supply that gives 2 A?")
        assert 5 <= len(complaints) <= 60
        bench.bus.attach(0x17, card)
        bench.run(3)
    running.check_nothing_lost_or_doubled()


def test_a_notecard_without_a_product_is_named_once_and_windows_are_captured(loop):
    running = loop()
    running.bench.notecard.hub.clear()
    with running.bench as bench:
        bench.run(3)
    assert len(running.said("set PRODUCT_UID in settings.toml")) == 1
    running.check_nothing_lost_or_doubled()


@pytest.mark.parametrize("trouble", ["missing", "wrong WHO_AM_I", "stuck FIFO"])
def test_a_sensor_in_trouble_is_one_line_a_try_and_used_when_it_is_back(loop, trouble):
    running = loop()
    chip = running.bench.lis3dh
    if trouble == "missing":
        del running.bench.bus.chips[LIS3DH_ADDRESS]
    elif trouble == "wrong WHO_AM_I":
        chip.who_am_i = 0x32
    else:
        chip.stuck_fifo = True
    with running.bench as bench:
        bench.run_for(HOUR_S)
        assert running.said("LIS3DH FIFO does not fill" if trouble == "stuck FIFO" else "no LIS3DH at 0x18")
        assert not bench.captured
        bench.bus.attach(LIS3DH_ADDRESS, chip)
        chip.who_am_i, chip.stuck_fifo = 0x33, False
        bench.run(3)
    running.check_nothing_lost_or_doubled()


def test_a_sensor_that_browns_out_spoils_no_window(loop):
    running = loop()
    bursts = 0

    def brown_out(transfer):
        nonlocal bursts
        if transfer.address == LIS3DH_ADDRESS and transfer.read_length > 6:
            bursts += 1
            if bursts % 300 == 150:
                running.bench.lis3dh.brown_out()

    running.bench.bus.faults.append(brown_out)
    with running.bench as bench:
        bench.run(12)
    assert bursts > 600
    running.check_nothing_lost_or_doubled()
    for key, window in running.stored().items():
        assert window.interval_s == pytest.approx(bench.captured[key].interval_s, rel=600e-6)


def test_a_notecard_that_browns_out_costs_nothing(loop):
    running = loop()
    brown_out = BrownOut(times=4, every=3)
    running.bench.notecard.faults.append(brown_out)
    with running.bench as bench:
        bench.run(12)
    assert brown_out.hits == 4
    running.check_nothing_lost_or_doubled()


def test_a_bus_too_bad_for_400_khz_falls_back_and_says_so_in_each_window(loop):
    running = loop()

    def too_fast(transfer):
        fast = running.bench.bus.frequency_hz > 100_000
        return Injected(ADDRESS_NACK) if fast and transfer.address == LIS3DH_ADDRESS else None

    running.bench.bus.faults.append(too_fast)
    with running.bench as bench:
        bench.run(3)
    assert running.said("100 kHz and 400 Hz from now on; check pull-ups")
    running.check_nothing_lost_or_doubled()
    for window in running.stored().values():
        assert Flags.SLOW_BUS in window.flags
        assert window.odr_hz == 400
        assert window.samples_lost == 0


def test_one_nack_is_no_reason_to_fall_back(loop):
    running = loop()
    transfers = 0

    def once(transfer):
        nonlocal transfers
        transfers += transfer.address == LIS3DH_ADDRESS
        return Injected(ADDRESS_NACK) if transfers == 60 and transfer.address == LIS3DH_ADDRESS else None

    running.bench.bus.faults.append(once)
    with running.bench as bench:
        bench.run(3)
    assert bench.bus.injected >= 1
    assert {window.odr_hz for window in running.stored().values()} == {1344}


def test_a_bus_that_is_good_again_is_used_fast_again(loop):
    running = loop()
    bad = True

    def fault(transfer):
        if transfer.address != LIS3DH_ADDRESS:
            return None
        fast = running.bench.bus.frequency_hz > 100_000
        return Injected(ADDRESS_NACK) if (bad and fast) or bad == "gone" else None

    running.bench.bus.faults.append(fault)
    with running.bench as bench:
        bench.run(2)
        bad = "gone"  # pulled out, mended and put back
        bench.run_for(300)
        bad = False
        bench.run(6)
    rates = [running.stored()[key].odr_hz for key in sorted(bench.captured, key=lambda key: key[1])]
    assert rates[0] == 400
    assert rates[-1] == 1344


def test_the_nack_fault_keeps_the_rate(tmp_path):
    finished = demo.run(demo.Options(tmp_path, windows=40, fault="nack", seed=2))
    assert finished.wrong == []
    assert {window.odr_hz for window in finished.stored.values()} == {1344}
    assert finished.report.windows_delivered == 40


def test_windows_back_to_back_still_learn_the_time(loop):
    running = loop(settings={"CAPTURE_EVERY_S": 1, "SAMPLES": 2048})
    with running.bench as bench:
        bench.run(60)
    known = [window.started_at is not None for _, window in sorted(running.stored().items(), key=lambda one: one[0][1])]
    assert all(known[-20:])


def test_an_answer_about_windows_of_others_makes_the_board_pause(loop):
    class Foreign(Fault):
        def answer(self, request, response):
            return WebResponse(200, b'{"stored": [], "rejected": [[9, 9, "no"]]}')

    running = loop()
    running.bench.notecard.faults.append(Foreign())
    with running.bench as bench:
        bench.run_for(1800)
        assert running.notehub.posts <= 40
        bench.notecard.faults.clear()
        bench.run(1)
    running.check_nothing_lost_or_doubled()


def test_a_run_that_stops_short_is_not_called_good(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "PATIENCE_S", 600.0)
    monkeypatch.setattr(faults, "inject", lambda name, bench, seed: bench.bus.chips.pop(LIS3DH_ADDRESS))
    finished = demo.run(demo.Options(tmp_path, windows=2, fault="nack"))
    assert any("captured 0 of 2 windows" in line for line in finished.wrong)


def test_a_second_run_in_the_same_folder_has_windows_of_its_own(tmp_path):
    for fault in ("nack", None, None):
        finished = demo.run(demo.Options(tmp_path, windows=3, fault=fault))
        assert finished.wrong == []
        assert finished.report.windows_stored == finished.report.windows_delivered == 3


def test_whatever_goes_wrong_at_any_moment_no_key_is_used_twice_and_the_loop_goes_on(loop, tmp_path):
    """The board's memory runs out in a report: the window has been kept, the next one gets another key."""
    shutil.copytree(tree().device, tmp_path / "device")
    main = tmp_path / "device" / "node" / "node.py"
    text = main.read_text()
    assert "def describe(error):\n" in text
    text = text.replace("def describe(error):\n", "def describe(error):\n    raise MemoryError\n", 1)
    rate = '    rate = "unknown rate"\n'
    assert rate in text
    text = text.replace(rate, "    if filled.sequence % 3 == 2:\n        raise MemoryError\n" + rate, 1)
    main.write_text(text)
    running = loop(firmware=Tree(tmp_path / "device", tree().boot))
    with running.bench as bench:
        bench.run_for(1200)
    assert running.said("an error that could not be reported; going on")
    sequences = sorted(sequence for _, sequence in running.stored())
    assert len(sequences) >= 10
    assert sequences == list(range(len(sequences)))
    assert not running.server.queue.quarantined()


def test_the_board_s_power_may_fail_at_any_time(loop):
    """What was in RAM is gone, as said; what was acknowledged is stored; nothing is stored twice."""
    running = loop()
    with running.bench as bench:
        for windows in (2, 4, 5):
            bench.run(windows)
            bench.swan.reset()
        bench.run(8)
    boots = {boot for boot, _ in bench.captured}
    assert len(boots) == 4
    stored = running.stored()
    assert bench.acknowledged <= stored.keys() <= bench.captured.keys()
    assert len(list(running.server.queue.windows())) == len(stored)


# --- the ring's file --------------------------------------------------------------------------------------------------


def safe(running):
    """Whether all that was captured is acknowledged or in the file."""
    last = next((line for line in reversed(running.lines) if " captured: " in line or "moved to" in line), "")
    return "moved to" in last and last.endswith(" 0 in RAM")


@pytest.mark.parametrize("name", RUNTIMES)
def test_windows_that_wait_for_the_link_outlive_power_cuts(loop, name):
    try:
        runtime = RUNTIMES[name]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = loop(settings={"CAPTURE_EVERY_S": 600}, runtime=runtime)
    running.bench.notecard.link.outages.append((700 * 10**9, 4 * HOUR_S * 10**9))
    with running.bench as bench:
        for windows in (6, 11, 16):
            bench.swan.run(lambda windows=windows: len(bench.captured) >= windows and safe(running))
            bench.swan.reset()
        assert len(bench.acknowledged) < 6
        bench.run(len(bench.captured) + 2)
    assert running.said("frames of earlier starts in ring.bin")
    assert len({boot for boot, _ in bench.captured}) == 4
    running.check_nothing_lost_or_doubled()


def test_a_ring_larger_than_ram_takes_a_longer_outage(loop):
    running = loop(settings={"RING_BYTES": 16384, "CAPTURE_EVERY_S": 300})
    running.bench.notecard.link.outages.append((400 * 10**9, 4 * HOUR_S * 10**9))
    with running.bench as bench:
        bench.run_for(3.9 * HOUR_S)
        assert len(bench.captured) - len(bench.acknowledged) > 35  # 16 KB of RAM hold 6
        bench.run(46)
    running.check_nothing_lost_or_doubled()


@pytest.mark.parametrize("step", [3, 4, 9])
@pytest.mark.parametrize("torn", Torn)
def test_power_cut_at_a_step_of_the_ring_s_flash_costs_no_window_that_was_safe(loop, step, torn):
    running = loop(settings={"CAPTURE_EVERY_S": 300})
    running.bench.notecard.link.outages.append((400 * 10**9, HOUR_S * 10**9))
    swan = running.bench.swan
    swan.flash.cut_at, swan.flash.torn = step, torn
    with running.bench as bench:
        kept = set()

        def until():
            if safe(running):
                kept.update(bench.captured)
            return not swan.has_power

        swan.run(until)
        swan.flash.cut_at = None
        swan.power_on()
        bench.run_for(1.5 * HOUR_S)
    stored = running.stored()
    assert kept <= stored.keys()
    assert stored.keys() <= bench.captured.keys()
    assert len(list(running.server.queue.windows())) == len(stored)


def test_power_fails_at_each_moment_and_takes_only_what_was_in_ram(loop):
    """And of that the server knows: the boot ended, and nobody can say how many windows it had captured."""
    running = loop()
    cuts = PowerCuts(running.bench, random.Random(4))
    with running.bench as bench:
        bench.run(45, give_up_after_s=4 * HOUR_S)
    assert {"acquiring", "talking", "idle"} < set(cuts.struck)
    assert len(set(cuts.struck) & set(Torn)) >= 3
    assert bench.drained
    stored = running.stored()
    assert len(list(running.server.queue.windows())) == len(stored)
    assert bench.acknowledged <= stored.keys() <= bench.captured.keys()
    assert bench.power_failures == bench.swan.boots - 1 >= 6
    missing = {(bench.device, *key) for key in bench.captured.keys() - stored.keys()}
    assert demo.fate(missing, running.server.queue.accounts()).unreported == 0


# --- nothing is written while measuring -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("windows", [1000])
def test_the_flash_rests_while_samples_come_in(loop, windows):
    """A page stops the CPU for 64 ms, twice what the FIFO holds at 1344 Hz. Nothing else here could overrun it."""
    running = loop(
        settings={"SAMPLES": 64, "CAPTURE_EVERY_S": 2, "POST_BYTES": 4096}, timing=Timing(stall_probability=0.0)
    )
    outages = [(start_s * 10**9, (start_s + 120) * 10**9) for start_s in range(30, 20_000, 240)]
    running.bench.notecard.link.outages += outages
    with running.bench as bench:
        bench.run(windows)
    running.check_nothing_lost_or_doubled()
    assert len(running.said("moved to ring.bin")) >= 4
    assert bench.swan.flash.steps > 100
    assert sum(truth.flash_steps for truth in bench.captured.values()) == 0
    assert sum(truth.lost for truth in bench.captured.values()) == 0
    assert not [line for line in running.said("captured:") if ", 1 tries," not in line]
    assert bench.swan.drive_steps == []


def test_nothing_that_could_tear_the_drive_s_table_is_done_while_windows_come_and_go(loop):
    """A cut into page 0 would cost the drive (PowerCut.table). Captured, sent, spilled, released, found again."""
    running = loop(settings={"CAPTURE_EVERY_S": 120})
    running.bench.notecard.link.outages += [(300 * 10**9, 1500 * 10**9), (2400 * 10**9, 3600 * 10**9)]
    flash = running.bench.swan.flash
    with running.bench as bench:
        bench.swan.run(lambda: safe(running) and len(running.said("moved to")) > 2)
        bench.swan.reset()
        bench.run(40)
    assert running.said("frames of earlier starts")
    assert flash.steps > 20
    assert bench.swan.drive_steps == []
    assert sum(flash.erases[:5]) == 0  # neither table nor directory
    running.check_nothing_lost_or_doubled()


def test_a_torn_table_costs_the_drive_with_the_ring_on_it(loop, tmp_path):
    shutil.copytree(tree().device, tmp_path / "device")
    main = tmp_path / "device" / "main.py"
    main.write_text(main.read_text().replace('\nif __name__ == "__main__":', "\nos.mkdir('logs')\nif True:"))
    running = loop(firmware=Tree(tmp_path / "device", tree().boot))
    with running.bench as bench:
        bench.swan.cut_at, bench.swan.cut = 1, PowerCut.table
        bench.swan.run(lambda: not bench.swan.has_power)
        assert bench.swan.drive_steps == ["mkdir"]
        bench.swan.power_on()
        bench.run(1)
        assert sorted(path.name for path in bench.swan.drive.iterdir()) == ["code.py", "lib", "logs", "settings.toml"]
    assert fat12.locate(b"".join(bench.swan.flash.pages), "ring.bin") is None


def test_a_step_of_the_flash_in_a_window_would_be_counted(loop):
    running = loop(ring_bytes=4096)
    flash = running.bench.swan.flash
    running.bench.bus.faults.append(write_in_mid_window(flash))
    with running.bench as bench:
        bench.run(1)
    (truth, *_) = bench.captured.values()
    assert truth.flash_steps >= 2
    assert truth.lost > 0


def write_in_mid_window(flash):
    bursts = itertools.count()

    def fault(transfer):
        if transfer.address == LIS3DH_ADDRESS and transfer.read_length > 6:
            number = next(bursts)
            if number % 20 == 0:
                flash.write(0, number.to_bytes(4, "little") * (BLOCK_BYTES // 4))
                flash.flush()

    return fault


# --- watchdog ---------------------------------------------------------------------------------------------------------


class Attn(Fault):
    """Notes when card.attn is asked for what; answers with `err` if there is one."""

    def __init__(self, bench, err=None):
        self.asked = []
        self.err = err
        self._clock = bench.clock

    def replies(self, request, lines):
        if request.name != "card.attn":
            return lines
        self.asked.append((self._clock.now_ns() / 1e9, request.fields["mode"], request.fields.get("seconds")))
        return [seal({"err": self.err}, request.sequence)] if self.err else lines


def longest_gap_s(attn, until_s):
    times = [at_s for at_s, _, _ in attn.asked] + [until_s]
    return max(after - before for before, after in itertools.pairwise(times))


def test_the_watchdog_is_renewed_while_windows_wait_for_the_link(loop):
    running = loop(settings={"WATCHDOG_S": 1800, "RING_BYTES": 16384})
    attn = Attn(running.bench)
    running.bench.notecard.faults.append(attn)
    running.bench.notecard.link.outages.append((60 * 10**9, 6 * HOUR_S * 10**9))
    with running.bench as bench:
        bench.run_for(5 * HOUR_S)
        waiting = len(bench.captured) - len(bench.acknowledged)
        assert waiting >= 3
        assert {asked[1:] for asked in attn.asked} == {("watchdog", 1800)}
        assert longest_gap_s(attn, 5 * HOUR_S) < 1800 / 4 + 120  # an attempt to send takes its time
        assert not bench.notecard.attn.pulses
        assert len(running.said("not connected")) < 80  # a renewal that works is no reason to post more often
        bench.run(waiting + 5)
    running.check_nothing_lost_or_doubled()


def test_the_watchdog_waits_for_no_more_than_one_window(loop, tmp_path):
    """The console is so slow that the next window is due as soon as one is reported."""
    shutil.copytree(tree().device, tmp_path / "device")
    main = tmp_path / "device" / "node" / "node.py"
    head = "def say_captured(what, filled, tries, length):\n"
    assert head in main.read_text()
    main.write_text(main.read_text().replace(head, head + "    clock.sleep_ms(1100)\n"))
    running = loop(
        settings={"WATCHDOG_S": 1800, "CAPTURE_EVERY_S": 1, "ODR_HZ": 25},
        firmware=Tree(tmp_path / "device", tree().boot),
    )
    attn = Attn(running.bench)
    running.bench.notecard.faults.append(attn)
    with running.bench as bench:
        bench.run_for(1500)
    window_s = 1.1 * 1024 / 25
    assert len(bench.captured) > 0.8 * 1500 / window_s
    assert not bench.acknowledged
    assert longest_gap_s(attn, 1500) < 1800 / 4 + window_s + 10


def test_a_board_that_hangs_is_pulled_up_by_the_watchdog(loop):
    running = loop(settings={"CAPTURE_EVERY_S": 900})
    with running.bench as bench:
        bench.run(2)
        bench.swan.power_off()  # as good as hung: it says nothing
        bench.clock.sleep(7190 * 10**9)
        bench.notecard.agenda.advance()
        assert not bench.notecard.attn.pulses
        bench.clock.sleep(20 * 10**9)
        bench.notecard.agenda.advance()
        assert len(bench.notecard.attn.pulses) == 1
        bench.swan.power_on()
        bench.run(4)


def test_watchdog_s_0_calls_off_what_an_earlier_start_armed(loop):
    running = loop(settings={"WATCHDOG_S": 0})
    attn = Attn(running.bench)
    running.bench.notecard.faults.append(attn)
    running.bench.notecard.attn.set_mode(["watchdog"], 1800, None, 0)
    with running.bench as bench:
        bench.run(2)
        assert [asked[1:] for asked in attn.asked] == [("disarm,-all", None)]
        bench.swan.power_off()
        bench.clock.sleep(2 * 86400 * 10**9)
        bench.notecard.agenda.advance()
        assert not bench.notecard.attn.pulses


@pytest.mark.parametrize("watchdog_s", [0, 1800])
def test_a_notecard_that_refuses_the_watchdog_is_named_once_and_the_loop_goes_on(loop, watchdog_s):
    running = loop(settings={"WATCHDOG_S": watchdog_s})
    attn = Attn(running.bench, err="unknown request {not-supported}")
    running.bench.notecard.faults.append(attn)
    with running.bench as bench:
        bench.run_for(1000)
        bench.run(3)
    assert len(running.said("Notecard: card.attn: unknown request {not-supported}: no watchdog")) == (watchdog_s > 0)
    assert len(attn.asked) >= (3 if watchdog_s else 1)
    running.check_nothing_lost_or_doubled()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_wrong_settings_are_reported_and_the_rest_is_used(loop):
    running = loop(settings={"SAMPLES": 7, "LABEL": "idle", "NONSENSE": 1, "CAPTURE_EVERY_S": 30})
    with running.bench as bench:
        bench.run(2)
    assert running.said("SAMPLES = 7; must be a whole number from 64 to 4096; using 1024")
    assert running.said("NONSENSE is no setting")
    for window in running.stored().values():
        assert (len(window), window.label) == (1024, "idle")


@pytest.mark.parametrize(
    ("settings", "odr_hz", "samples", "full_scale_g"),
    [
        ({"ODR_HZ": 10, "SAMPLES": 64}, 10, 64, 2),
        ({"ODR_HZ": 400, "SAMPLES": 4096, "FULL_SCALE_G": 16}, 400, 4096, 16),
        ({"SAMPLES": 4096, "RING_BYTES": 65536, "FULL_SCALE_G": 8}, 1344, 4096, 8),
    ],
)
def test_other_profiles_are_as_trustworthy(loop, settings, odr_hz, samples, full_scale_g):
    running = loop(settings=settings)
    with running.bench as bench:
        bench.run(3)
    running.check_nothing_lost_or_doubled()
    for key, window in running.stored().items():
        assert (window.odr_hz, len(window), window.full_scale_g) == (odr_hz, samples, full_scale_g)
        assert (
            abs(window.interval_s / bench.captured[key].interval_s - 1)
            < 4.5 * window.interval_sigma_s / window.interval_s
        )
        assert window.acceleration[:, 2].mean() == pytest.approx(9.80665, rel=0.03)


def test_note_python_s_own_transfer_delivers_the_same_bytes(loop, tmp_path):
    running = loop(settings={"TRANSFER": "stock"})
    with running.bench as bench:
        bench.run(4)
    running.check_nothing_lost_or_doubled()
    assert bench.notecard.executed["card.binary.put"] == bench.notecard.executed["web.post"] == 4


def test_a_link_too_bad_for_long_posts_takes_short_ones(loop):
    """Each sixtieth segment arrives broken, and note-python's own transfer of a backlog takes more than that."""
    running = loop(settings={"TRANSFER": "stock", "POST_BYTES": 65536})
    running.bench.notecard.link.outages.append((0, 1200 * 10**9))
    faults.inject("flipped:60", running.bench, 1)
    with running.bench as bench:
        bench.run(24, give_up_after_s=12 * HOUR_S)
    assert running.said("waiting, next try")
    running.check_nothing_lost_or_doubled()


def test_a_heap_without_room_for_note_python_s_own_transfer_goes_on_with_chunks(loop):
    """It wants the body in one piece, and copies of it: as long as that is tried again, nothing is ever sent."""
    try:
        runtime = RUNTIMES["micropython"]()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = loop(settings={"TRANSFER": "stock"}, runtime=runtime, ring_bytes=0)
    running.bench.notecard.link.outages.append((0, 900 * 10**9))
    with running.bench as bench:
        bench.run(12, give_up_after_s=HOUR_S)
    assert len(running.said("memory has no room for TRANSFER = stock; using chunks")) == 1
    running.check_nothing_lost_or_doubled()


def test_the_notecard_object_is_renewed_before_its_sequence_number_overflows(loop, tmp_path):
    numbers = []

    class Spy(Fault):
        def replies(self, request, lines):
            if request.sequence is not None:
                numbers.append(int(request.sequence, 16))
            return lines

    shutil.copytree(tree().device, tmp_path / "device")
    uplink = tmp_path / "device" / "node" / "uplink.py"
    text = uplink.read_text()
    assert "RENEW_AFTER = 60000" in text
    uplink.write_text(text.replace("RENEW_AFTER = 60000", "RENEW_AFTER = 30"))
    running = loop(firmware=Tree(tmp_path / "device", tree().boot))
    running.bench.notecard.faults.append(Spy())
    with running.bench as bench:
        bench.run(30)
    running.check_nothing_lost_or_doubled()
    assert 25 <= max(numbers) <= 31
    assert len(numbers) > 150


def test_the_article_s_set_up_requests_are_made(loop):
    requests = []

    class Spy(Fault):
        def replies(self, request, lines):
            requests.append((request.name, request.fields))
            return lines

    running = loop(settings={"PRODUCT_UID": "com.example:pump", "DEVICE_SN": "pump-3"})
    running.bench.notecard.faults.append(Spy())
    with running.bench as bench:
        bench.run(1)
        bench.run_for(120)
    names = [name for name, _ in requests]
    assert names[0] == "card.version"
    hub_set = next(fields for name, fields in requests if name == "hub.set")
    assert {"mode": "continuous", "sn": "pump-3", "product": "com.example:pump"}.items() <= hub_set.items()
    dfu = [fields for name, fields in requests if name == "card.dfu"]
    assert all(fields["name"] == "stm32" for fields in dfu)
    assert all(fields["off"] for fields in dfu)  # nobody has looked at what would be flashed
    assert dfu[0]["seconds"] == 7 * 86400  # while windows wait; never for good, or a board that has died is lost
    assert dfu[-1]["seconds"] == HOUR_S
    assert {"hub.get", "card.time", "card.binary", "card.binary.put", "web.post"} <= set(names)


# --- replay -----------------------------------------------------------------------------------------------------------


def test_a_replayed_recording_arrives_with_its_spectrum_aliased_only_as_the_chip_would(tmp_path):
    rate_hz, seconds = 5000.0, 8
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    tones = [(0, 0.20, 61.0), (1, 0.15, 233.0), (2, 0.40, 1000.0)]
    samples = np.zeros((len(t), 3))
    samples[:, 2] = 1.0
    for axis, amplitude_g, frequency_hz in tones:
        samples[:, axis] += amplitude_g * np.sin(2 * np.pi * frequency_hz * t)
    path = tmp_path / "shaker.csv"
    rows = "\n".join(f"{i / rate_hz:.6f},{x:.6f},{y:.6f},{z:.6f}" for i, (x, y, z) in enumerate(samples))
    path.write_text("time_s,x_g,y_g,z_g\n" + rows)
    finished = demo.run(demo.Options(tmp_path / "data", windows=3, replay=Recording.load(path)))
    assert finished.wrong == []
    assert finished.report.windows_stored == 3
    for key, window in finished.stored.items():
        true_hz = 1 / finished.truths[key].interval_s
        t = np.arange(len(window)) * window.interval_s
        for axis, amplitude_g, frequency_hz in tones:
            seen_hz = frequency_hz if frequency_hz < true_hz / 2 else true_hz - frequency_hz
            gain = float(response(1344 / 2, 0.0)(np.array([frequency_hz]))[0])
            model = np.stack(
                [np.cos(2 * np.pi * seen_hz * t), np.sin(2 * np.pi * seen_hz * t), np.ones(len(t))], axis=1
            )
            fit, *_ = np.linalg.lstsq(model, window.acceleration[:, axis] / 9.80665, rcond=None)
            assert np.hypot(fit[0], fit[1]) == pytest.approx(amplitude_g * gain, rel=0.08, abs=0.002)
            rest = window.acceleration[:, axis] / 9.80665 - model @ fit
            assert rest.std() < 0.012
