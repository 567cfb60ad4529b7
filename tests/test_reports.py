"""What boards report, and what the server asks of them: boots, losses, health, the day's budget, requests to resend."""

import shutil
from contextlib import contextmanager

import pytest
from tests.chain import SETTINGS
from tests.loop import Loop
from tests.test_loop import HOUR_S

from judder import demo
from judder.config import Config
from judder.emulator.i2c import DATA_NACK, Injected
from judder.emulator.lis3dh import ADDRESS as LIS3DH_ADDRESS
from judder.emulator.notecard import Fault
from judder.emulator.notecard.line import seal
from judder.queue import FILE, Queue
from judder.server import background

SECOND_NS = 10**9


@pytest.fixture
def loop(tmp_path):
    """Makes a loop with small windows; its bench is not yet running."""
    with background(Config(data=tmp_path / "data", port=0)) as server:
        yield lambda **options: Loop(server, settings=SETTINGS | options.pop("settings", {}), **options)


def reports(running):
    return list(running.server.queue.reports())


def of_boot(running, number):
    """Reports of the board's first boot, its second ..."""
    boots = list(dict.fromkeys(boot for boot, _ in running.bench.captured))
    return [report for report in reports(running) if report.boot == boots[number]]


def start_each_half_hour(bench, times):
    """The power fails, and is back at once."""
    for _ in range(times):
        bench.run_for(HOUR_S / 2)
        bench.swan.reset()


class Refused(Fault):
    """The Notecard refuses requests whose name begins so, but for those of windows that somebody asks for."""

    def __init__(self, name, text="unknown request {not-supported}"):
        self.name = name
        self.text = text
        self.times = 0

    def replies(self, request, lines):
        if not request.name.startswith(self.name) or request.fields.get("file") == "capture.qi":
            return lines
        self.times += 1
        return [seal({"err": self.text}, request.sequence)]


# --- boots ------------------------------------------------------------------------------------------------------------


def test_after_a_power_cut_the_board_names_the_boot_before_and_what_it_found(loop):
    running = loop()
    running.bench.notecard.link.outages.append((HOUR_S * SECOND_NS, 3 * HOUR_S * SECOND_NS))
    with running.bench as bench:
        bench.run_for(2 * HOUR_S)
        kept = [key for key in bench.captured if key not in bench.acknowledged]
        bench.swan.power_off()
        bench.swan.power_on(reset_reason="BROWNOUT")
        bench.run(len(bench.captured) + 3)
    assert len(kept) > 5
    first, *_ = of_boot(running, 0)
    assert first.previous_boot is None
    after, *_ = of_boot(running, 1)
    assert (after.previous_boot, after.previous_captured, after.reset) == (kept[0][0], None, "BROWNOUT")
    (persisted,) = after.persisted
    assert persisted >= kept[-2]  # the newest may have been in RAM
    before, now = sorted(running.server.queue.accounts(), key=lambda one: one.seen_us)
    assert (before.ended, before.tail_unknown, now.ended) == (True, True, False)


def test_a_board_that_keeps_starting_names_each_boot(loop):
    running = loop()
    with running.bench as bench:
        for windows in (2, 4, 6, 8):
            bench.run(windows)
            bench.swan.reset()
        bench.run(10)
    boots = list(dict.fromkeys(boot for boot, _ in bench.captured))
    assert len(boots) == 5
    named = {report.boot: report.previous_boot for report in reports(running)}
    assert [named[boot] for boot in boots] == [None, *boots[:-1]]


def test_of_more_boots_than_the_note_holds_the_number_is_reported(loop):
    running = loop(ring_bytes=0)
    with running.bench as bench:
        bench.run(2)
        bench.notecard.link.outages.append((bench.clock.now_ns(), bench.clock.now_ns() + 24 * HOUR_S * SECOND_NS))
        start_each_half_hour(bench, times=19)
        bench.run_for(24 * HOUR_S)
    (report, *_) = of_boot(running, -1)
    assert (len(report.earlier_boots), report.earlier_boots_more) == (15, 19 - 16)
    (first,) = (one for one in running.server.queue.accounts() if one.stored == 2)
    assert first.tail_unknown


def test_what_an_orderly_stop_left_behind_is_still_known_two_boots_later(loop):
    running = loop(ring_bytes=0)
    note = {"boot": "0000000a", "captured": 10, "untold": [["00000009", 3, 2]]}
    running.bench.notecard.notefiles.add("judder.dbx", "boot", note, b"", 0, 0)
    running.bench.notecard.link.outages.append((0, HOUR_S * SECOND_NS))
    with running.bench as bench:
        bench.run_for(HOUR_S / 2)
        bench.swan.reset()
        bench.run_for(2 * HOUR_S)
    report, *_ = of_boot(running, 1)
    assert report.earlier_boots == ((9, 3), (10, 10))
    assert report.persisted == ((9, 2),)
    lost = {one.boot: (one.lost, one.tail_unknown) for one in running.server.queue.accounts()}
    assert (lost[9], lost[10]) == (({"reset": 3}, False), ({"reset": 10}, False))


@pytest.mark.parametrize(
    "note", [{}, {"boot": 7}, {"boot": "x"}, {"boot": "7", "untold": 5}, {"boot": "7", "more": "x"}]
)
def test_a_note_that_is_not_ours_is_none(loop, note):
    running = loop()
    running.bench.notecard.notefiles.add("judder.dbx", "boot", note, b"", 0, 0)
    with running.bench as bench:
        bench.run(2)
    report, *_ = reports(running)
    assert report.previous_boot == (7 if "more" in note else None)
    running.check_nothing_lost_or_doubled()


def test_a_notecard_that_will_not_say_what_it_keeps_holds_up_nobody_for_long(loop):
    running = loop()
    refused = Refused("note.get", "notefile is busy {notefile-busy}")
    running.bench.notecard.faults.append(refused)
    with running.bench as bench:
        bench.run(3)
    assert 3 < refused.times < 8
    assert len(running.said("going on without what it keeps of earlier starts")) >= 1
    running.check_nothing_lost_or_doubled()


def test_boots_whose_power_fails_before_their_report_is_out_are_named_by_the_next_that_gets_through(loop):
    """Without network and flash nothing is left of them but their number on the Notecard."""
    running = loop(ring_bytes=0)
    with running.bench as bench:
        bench.run(2)
        bench.notecard.link.outages.append((bench.clock.now_ns(), bench.clock.now_ns() + 2 * HOUR_S * SECOND_NS))
        start_each_half_hour(bench, times=3)
        bench.run_for(2 * HOUR_S)
        bench.swan.reset()
        bench.run_for(HOUR_S)
    boots = list(dict.fromkeys(boot for boot, _ in bench.captured))
    assert len(boots) == 5
    named = {report.boot: (report.previous_boot, report.earlier_boots) for report in reports(running)}
    assert named == {
        boots[0]: (None, None),
        boots[3]: (boots[2], ((boots[0], None), (boots[1], None))),
        boots[4]: (boots[3], None),
    }
    fate = demo.fate(
        {(bench.device, *key) for key in bench.captured.keys() - running.stored().keys()},
        running.server.queue.accounts(),
    )
    assert fate.tail > 15
    assert fate.unreported == 0


def test_a_notecard_that_keeps_no_notes_is_named_once_a_boot_and_the_loop_goes_on(loop):
    running = loop()
    refused = Refused("note.")
    running.bench.notecard.faults.append(refused)
    with running.bench as bench:
        bench.run(3)
        bench.swan.reset()
        bench.run(5)
    assert refused.times >= 4
    assert len(running.said("what a power cut takes cannot be named")) == 2
    assert all(report.previous_boot is None for report in reports(running))


# --- health -----------------------------------------------------------------------------------------------------------


def test_reports_come_at_their_rate_with_the_board_s_health(loop):
    running = loop(settings={"REPORT_EVERY_S": 7200})
    bursts = 0

    def spoilt(transfer):
        nonlocal bursts
        bursts += transfer.address == LIS3DH_ADDRESS and transfer.read_length > 6
        return Injected(DATA_NACK, consumed=True) if bursts % 50 == 49 and transfer.read_length > 6 else None

    running.bench.bus.faults.append(spoilt)
    with running.bench as bench:
        bench.run_for(10 * HOUR_S)
    found = reports(running)
    assert [report.sequence - 2**31 for report in found] == list(range(len(found)))
    assert len(found) == 5
    for report in found:
        assert report.device == bench.device
        assert report.firmware.startswith("judder ")
        assert (report.voltage_v, report.temperature_degc, report.bars, report.rssi_dbm) == (5.1, 27.5, 3, -71)
        assert report.card == bench.notecard.version
        assert report.samples_lost == report.overruns == report.skipped == 0
        assert not report.lost
    newest = found[-1]
    assert newest.bus_errors > 0
    assert newest.retries > 0
    assert newest.captured >= 95
    assert newest.transactions > 100
    assert newest.uptime_s == pytest.approx(8 * HOUR_S, rel=0.02)
    assert newest.written_at.timestamp() == pytest.approx(bench.clock._epoch_utc_ns / 1e9 + 8 * HOUR_S, abs=600)
    stored = [window.frame for window in running.server.queue.windows()]
    assert newest.posted_bytes > sum(map(len, stored)) // 2


def test_a_board_whose_sensor_fails_still_reports(loop):
    running = loop()
    del running.bench.bus.chips[LIS3DH_ADDRESS]
    with running.bench as bench:
        bench.run_for(5 * HOUR_S)
    found = reports(running)
    assert len(found) >= 4
    assert found[-1].captured == 0
    assert found[-1].skipped >= 45
    assert found[-1].bus_errors > 100


# --- budget -----------------------------------------------------------------------------------------------------------


def test_the_day_s_budget_holds_and_what_is_over_it_waits_for_the_next_day(loop):
    running = loop(settings={"DAILY_KB": 64, "CAPTURE_EVERY_S": 900})
    sent = []

    class Scale(Fault):
        def answer(self, request, response):
            sent.append((bench.clock.now_ns() / SECOND_NS, len(request.body) + 1024))
            return response

    with running.bench as bench:
        bench.notecard.faults.append(Scale())
        bench.run_for(3 * 86400)
        per_day = [sum(size for at_s, size in sent if day <= at_s / 86400 < day + 1) for day in range(3)]
        assert all(60_000 < one < 64_000 + 1500 for one in per_day)
        waiting = len(bench.captured) - len(bench.acknowledged)
        assert waiting > 50
        bench.swan.power_off()  # what waits for tomorrow is in flash
        bench.swan.power_on()
        bench.run_for(2 * 86400)
    stored = running.stored()
    unsettled = [key for key in bench.captured if key not in stored]
    assert len({boot for boot, _ in bench.captured if (boot, 0) in stored}) == 2
    assert len(unsettled) < waiting + 300


# --- resend -----------------------------------------------------------------------------------------------------------


@contextmanager
def a_server(data, bench_clock):
    """One that lives in the bench's time: it asks for what it misses ten minutes after it has noticed."""
    config = Config(data=data, port=0)
    with background(config, now_us=lambda: bench_clock.utc_ns() // 1000) as server:
        yield server


def after_going_back_to_a_backup(tmp_path, *, outages=(), settings=None):
    """Windows that were acknowledged are missing: the server's disk died, and the copy is some hours old."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    copy.mkdir()
    running = None

    class Clock:
        def utc_ns(self):
            return running.bench.clock.utc_ns() if running else 0

    with a_server(data, Clock()) as server:
        running = Loop(server, settings=SETTINGS | (settings or {}))
        running.bench.notecard.link.outages += [(start * SECOND_NS, end * SECOND_NS) for start, end in outages]
        bench = running.bench.__enter__()
        bench.run_for(HOUR_S)
        server.queue.backup(copy / FILE)
        bench.run_for(2 * HOUR_S)
        bench.run(len(bench.captured))
        acknowledged = set(bench.acknowledged)
    shutil.rmtree(data)
    with a_server(copy, Clock()) as server:
        running.server = server
        missing = acknowledged - running.stored().keys()
        assert len(missing) > 20
        running.notehub.add_route("ingest", server.url)
        bench.run_for(6 * HOUR_S)
        bench.run(len(bench.captured))
        bench.__exit__(None, None, None)
        return running, missing, running.stored(), server.queue.accounts()


def test_what_the_server_has_lost_again_is_sent_again_from_ram(tmp_path):
    running, missing, stored, (account,) = after_going_back_to_a_backup(tmp_path)
    again = missing & stored.keys()
    assert running.said("the server asks for")
    assert len(again) > 10
    assert account.lost == ({"gone": len(missing - again)} if missing - again else {})
    assert (account.missing, account.on_the_way) == (0, 0)


def test_what_the_server_has_lost_again_is_sent_again_from_flash(tmp_path):
    """And what is nowhere any more is reported as gone."""
    _, missing, stored, (account,) = after_going_back_to_a_backup(
        tmp_path, outages=[(HOUR_S + 300, 2 * HOUR_S)], settings={"RING_BYTES": 16384, "SAMPLES": 512}
    )
    again = missing & stored.keys()
    assert len(again) > 10
    assert account.lost == {"gone": len(missing - again)}
    assert (account.missing, account.on_the_way) == (0, 0)


def test_a_copy_of_the_store_can_be_read_beside_the_server(loop, tmp_path):
    running = loop()
    with running.bench as bench:
        bench.run(3)
    with Queue(tmp_path / "data", beside=True) as beside:
        assert [report.boot for report in beside.reports()] == [report.boot for report in reports(running)]
        assert sum(account.stored for account in beside.accounts()) == 3


# --- the link ---------------------------------------------------------------------------------------------------------


def test_a_notecard_that_never_says_it_is_connected_is_not_believed_for_ever(loop):
    running = loop(settings={"CAPTURE_EVERY_S": 1800})

    class Silent(Fault):
        def replies(self, request, lines):
            return [seal({"status": "?"}, request.sequence)] if request.name == "hub.status" else lines

    running.bench.notecard.faults.append(Silent())
    with running.bench as bench:
        bench.run_for(12 * HOUR_S)
    assert running.said("hub.status: not connected to Notehub")
    assert len(bench.acknowledged) > 10
