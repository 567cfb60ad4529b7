"""What Notehub asks of a board: settings as environment variables, and a window right now."""

import pytest

from judder.emulator.notecard import Fault
from judder.emulator.notecard.line import seal
from judder.emulator.notecard.twin import Inbound
from judder.emulator.runtime import RuntimeMissingError, micropython

FAST = {"CAPTURE_EVERY_S": 120, "LISTEN_EVERY_S": 10, "SAMPLES": 128}


def echoed(bench):
    return [event.body for event in bench.notecard.twin.events if event.file == "settings.qo"]


def answered(bench):
    return [event.body for event in bench.notecard.twin.events if event.file == "capture.qo"]


def in_order(running):
    stored = running.stored()
    return [stored[key] for key in running.bench.captured]


def test_a_variable_changes_the_next_window_s_rate_and_all_that_can_change_does(loop):
    running = loop(settings=FAST)
    with running.bench as bench:
        bench.run(2)
        variables = {"odr_hz": "400", "FULL_SCALE_G": "8", "SAMPLES": "256", "LABEL": "worn", "CAPTURE_EVERY_S": "30"}
        bench.notecard.twin.set_environment(variables)
        bench.run_for(30)
        before = len(bench.captured)
        bench.run(before + 4)
        bench.run_for(30)
    running.check_nothing_lost_or_doubled()
    first, *_, last = in_order(running)
    assert (first.odr_hz, first.full_scale_g, len(first), first.label) == (1344, 2, 128, "")
    assert (last.odr_hz, last.full_scale_g, len(last), last.label) == (400, 8, 256, "worn")
    assert 1 / last.interval_s == pytest.approx(400, rel=0.06)
    assert first.settings != last.settings == echoed(bench)[-1]["hash"]
    assert echoed(bench)[-1]["settings"]["ODR_HZ"] == 400
    moments = [window.started_at for window in in_order(running)[-3:]]
    assert (moments[-1] - moments[-2]).total_seconds() == pytest.approx(30, abs=1)


def test_a_wrong_value_is_refused_with_the_reason_and_the_last_good_one_stays_also_after_a_reset(loop):
    running = loop(settings=FAST)
    with running.bench as bench:
        twin = bench.notecard.twin
        twin.set_environment({"ODR_HZ": "400"})
        bench.run(3)
        twin.set_environment({"ODR_HZ": "1000", "SAMPLES": "many", "PRODUCT_UID": "com.example:other", "RING": "1"})
        bench.run(len(bench.captured) + 2)
        bench.swan.reset()
        bench.run(len(bench.captured) + 2)
        refused = echoed(bench)[-1]["refused"]
        twin.set_environment({"ODR_HZ": None, "SAMPLES": None, "PRODUCT_UID": None})
        bench.run(len(bench.captured) + 2)
    running.check_nothing_lost_or_doubled()
    assert refused.keys() == {"ODR_HZ", "SAMPLES", "PRODUCT_UID"}
    assert refused["ODR_HZ"] == "ODR_HZ = 1000; must be one of 10, 25, 50, 100, 200, 400, 1344"
    assert running.said("not set from afar: SAMPLES = many; must be a whole number from 64 to 4096")
    assert {window.odr_hz for window in in_order(running)[3:-3]} == {400}
    assert in_order(running)[-1].odr_hz == 1344
    assert "refused" not in echoed(bench)[-1]
    assert bench.notecard.hub["product"] == "com.example.judder:bench"


def test_windows_that_no_memory_has_room_for_are_refused_and_the_rest_is_taken(loop):
    try:
        runtime = micropython()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = loop(settings=FAST, runtime=runtime)
    with running.bench as bench:
        bench.run(2)
        bench.notecard.twin.set_environment({"SAMPLES": "4096", "LABEL": "worn"})
        bench.run(5)
    running.check_nothing_lost_or_doubled()
    last = in_order(running)[-1]
    assert (len(last), last.label) == (128, "worn")
    assert echoed(bench)[-1]["refused"] == {"SAMPLES": "SAMPLES = 4096; memory has no room for so many"}


def test_upload_and_thresholds_change_the_policy_and_change_back(loop):
    running = loop(settings=FAST)
    with running.bench as bench:
        bench.run(2)
        bench.notecard.twin.set_environment({"UPLOAD": "off"})
        bench.run_for(600)
        kept_back = len(bench.kept_back)
        assert kept_back >= 3
        bench.notecard.twin.set_environment({"UPLOAD": None})
        bench.run(len(bench.captured) + 3)
        assert len(bench.kept_back) <= kept_back + 1
    running.check_nothing_lost_or_doubled()


@pytest.mark.parametrize("signal", [True, False])
def test_a_window_that_is_asked_for_comes_at_once_once_and_names_its_request(loop, signal):
    running = loop(settings=FAST | {"CAPTURE_EVERY_S": 3600, "UPLOAD": "schedule", "UPLOAD_EVERY_S": 86400})

    def ask(bench, number):
        if signal:
            assert bench.notecard.signal({"capture": number})
        else:
            bench.notecard.twin.send_note(Inbound("capture.qi", {"id": number}))

    with running.bench as bench:
        bench.run(1)
        bench.run_for(100)
        for number in ("first", "second", "first"):
            ask(bench, number)
            bench.run_for(60)
        bench.swan.reset()
        bench.run_for(100)
        ask(bench, "second")
        ask(bench, "third")
        bench.run_for(100)
    running.check_nothing_lost_or_doubled()
    asked = [window for window in in_order(running) if window.trigger == 4]
    assert [window.request for window in asked] == ["first", "second", "third"]
    assert [body["id"] for body in answered(bench)] == ["first", "second", "third"]
    assert [(int(body["boot"], 16), body["sequence"]) for body in answered(bench)] == [
        (window.boot, window.sequence) for window in asked
    ]
    assert not bench.notecard.notefiles.held("capture.qi").notes if not signal else True


def test_an_order_without_an_id_is_put_away_and_the_next_is_heard(loop):
    running = loop(settings=FAST | {"CAPTURE_EVERY_S": 3600})
    with running.bench as bench:
        bench.run(1)
        for body in ({}, None, {"id": 5}, {"id": "x" * 40}, {"capture": "no"}, {"id": "good"}):
            bench.notecard.twin.send_note(Inbound("capture.qi", body, b"" if body is not None else b"x"))
        bench.run_for(200)
    running.check_nothing_lost_or_doubled()
    assert len(running.said("without an id of 1 to 32 bytes")) == 5
    assert [window.request for window in in_order(running)][-1] == "good"


def test_a_power_cut_before_the_answer_repeats_the_capture_and_not_the_answer(loop):
    running = loop(settings=FAST | {"CAPTURE_EVERY_S": 3600})
    with running.bench as bench:
        bench.run(1)
        bench.notecard.twin.send_note(Inbound("capture.qi", {"id": "one"}))
        bench.swan.run(lambda: running.said("asked for a window"))
        bench.swan.run(lambda: len(bench.captured) == 2)
        bench.swan.power_off()
        bench.swan.power_on()
        bench.run_for(200)
    assert [body["id"] for body in answered(bench)] == ["one"]
    assert [window.request for window in running.stored().values()].count("one") == 1


def test_a_board_that_sends_no_windows_says_what_it_runs_all_the_same(loop):
    running = loop(settings=FAST | {"UPLOAD": "off"})
    with running.bench as bench:
        bench.run_for(400)
    assert bench.kept_back
    assert bench.notecard.host_version["version"] == "0.1.0"


def test_a_watchdog_that_is_called_off_from_afar_is_disarmed(loop):
    running = loop(settings=FAST | {"WATCHDOG_S": 1800})
    with running.bench as bench:
        bench.run(2)
        bench.notecard.twin.set_environment({"WATCHDOG_S": "0"})
        bench.run_for(2 * 3600)
    assert not bench.notecard.attn.pulses


@pytest.mark.parametrize("name", ["env.get", "env.modified", "note.add", "hub.signal", "dfu.status"])
def test_a_notecard_that_refuses_what_is_asked_from_afar_keeps_no_board_from_measuring(loop, name):
    class Refused(Fault):
        def replies(self, request, lines):
            return [seal({"err": "no {refused}"}, request.sequence)] if request.name == name else lines

    running = loop(settings=FAST)
    running.bench.notecard.faults.append(Refused())
    with running.bench as bench:
        bench.notecard.twin.set_environment({"LABEL": "worn"})
        bench.run(3)
        bench.notecard.twin.send_note(Inbound("capture.qi", {"id": "one"}))
        bench.run(len(bench.captured) + 3)
    running.check_nothing_lost_or_doubled()


def test_the_last_good_number_of_samples_stays_when_memory_has_no_room_for_another(loop):
    try:
        runtime = micropython()
    except RuntimeMissingError as error:
        pytest.skip(str(error))
    running = loop(settings=FAST, runtime=runtime)
    with running.bench as bench:
        for samples in ("512", "4096"):
            bench.notecard.twin.set_environment({"SAMPLES": samples})
            bench.run(len(bench.captured) + 3)
        bench.swan.reset()
        bench.run(len(bench.captured) + 3)
    running.check_nothing_lost_or_doubled()
    assert len(in_order(running)[-1]) == 512
    assert not running.said("MemoryError")


def test_what_the_board_corrects_is_said(loop):
    running = loop(settings=FAST)
    with running.bench as bench:
        bench.run(1)
        bench.notecard.twin.set_environment({"RING_BYTES": "16384", "SAMPLES": "4096"})
        bench.run_for(60)
    assert running.said("not set from afar: settings.toml: RING_BYTES = 16384 holds no window of SAMPLES = 4096")
    assert echoed(bench)[-1]["settings"]["RING_BYTES"] == 27648
