"""Delivery to the emulated Edge Impulse over real HTTP, in a time that the tests move: hours pass in a moment."""

import asyncio
import json
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from tests.frames import encode, motor, window

from judder import decode
from judder.dataset import Project
from judder.emulator import edge_impulse
from judder.emulator.edge_impulse import EdgeImpulse, Mode
from judder.forwarder import ALARM_PAUSE_S, Destination, Forwarder, Verdict, judge
from judder.queue import Queue
from judder.records import LabelRule, State, entry

KEY, HMAC = "ei_test", "0123456789abcdef0123456789abcdef"
STARTED_US = round(datetime(2026, 5, 4, tzinfo=UTC).timestamp() * 1e6)


class Time:
    """The time of queue and forwarder; sleeping moves it."""

    def __init__(self):
        self.s = 1000.0

    def now_s(self):
        return self.s

    def now_us(self):
        return round(self.s * 1e6)

    async def sleep(self, seconds):
        await asyncio.sleep(0.002)  # lets real HTTP go on
        self.s += seconds


def an_entry(sequence, device="dev:1", label="idle", **fields):
    fields = {"interval_ns": 744048, "started_at_us": STARTED_US} | fields
    filled = window(motor(16, seed=sequence), boot=7, sequence=sequence, **fields)
    return entry(decode(encode(filled, [device, "", "", "", label, ""]))[0])


class Loop:
    def __init__(self, queue, service, time, projects, **options):
        self.queue, self.service, self.time = queue, service, time
        self.forwarder = Forwarder(queue, projects, now_s=time.now_s, sleep=time.sleep, **options)

    def put(self, *entries):
        self.queue.put(entries).result(10)

    async def until(self, condition, limit_s=86400):
        end_s = self.time.s + limit_s
        while not condition():
            assert self.time.s < end_s, (self.queue.counts(), self.service)
            await asyncio.sleep(0.005)

    async def delivered(self, number):
        await self.until(lambda: self.queue.counts()[State.DELIVERED] == number)

    async def passes(self, seconds):
        start_s = self.time.s
        await self.until(lambda: self.time.s > start_s + seconds, seconds + 86400)


@asynccontextmanager
async def delivering(tmp_path, projects=None, service=None, **options):
    time = Time()
    service = service or EdgeImpulse(api_key=KEY, hmac_key=HMAC)
    async with edge_impulse.running(service):
        with Queue(tmp_path, now_us=time.now_us) as queue:
            loop = Loop(queue, service, time, projects or [Project("p", service.url, KEY, HMAC)], **options)
            task = asyncio.create_task(loop.forwarder.run())
            try:
                yield loop
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def run(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 60))


def check_each_once(loop, number):
    names = [sample.name for sample in loop.service.accepted]
    assert len(names) == len(set(names)) == number
    assert loop.service.doubled == 0


def test_windows_arrive_signed_labelled_and_once(tmp_path):
    async def scenario():
        async with delivering(tmp_path) as loop:
            loop.put(*(an_entry(i, label="idle" if i % 2 else "Läuft 2") for i in range(40)))
            await loop.delivered(40)
            check_each_once(loop, 40)
            by_name = {sample.name: sample for sample in loop.service.accepted}
            sample = by_name["dev-1.00000007.4.json"]
            assert sample.label == "Läuft 2"
            assert sample.metadata["device"] == "dev:1"
            assert json.loads(sample.body)["payload"]["device_name"] == "dev:1"
            assert {one.category for one in loop.service.accepted} <= {"training", "testing"}
            assert len({one.category for one in loop.service.accepted}) == 1  # one device, one day
            assert loop.service.requests == 40

    run(scenario())


@pytest.mark.parametrize(
    ("mode", "most_requests"),
    [
        (Mode("status", 500), 700),
        (Mode("status", 503, retry_after_s=600), 60),
        (Mode("status", 429, retry_after_s=600), 60),
        (Mode("status", 401), 120),
        (Mode("status", 403), 120),
        (Mode("status", 404), 120),
        (Mode("reset"), 700),
    ],
)
def test_hours_of_trouble_waste_few_requests_and_lose_nothing(tmp_path, mode, most_requests):
    async def scenario():
        async with delivering(tmp_path) as loop:
            loop.service.mode = mode
            loop.put(*(an_entry(i) for i in range(30)))
            await loop.passes(4 * 3600)
            assert loop.queue.counts()[State.WAITING] == 30
            assert 2 <= loop.service.requests <= most_requests
            loop.put(*(an_entry(i) for i in range(30, 50)))  # taken in all the while
            loop.service.mode = Mode()
            await loop.delivered(50)
            check_each_once(loop, 50)

    run(scenario())


def test_a_service_that_is_not_there_is_trouble_too(tmp_path):
    async def scenario():
        nowhere = Project("p", "http://127.0.0.1:9", KEY, HMAC)
        async with delivering(tmp_path, [nowhere]) as loop:
            loop.put(an_entry(1))
            await loop.passes(600)
            assert loop.queue.counts()[State.WAITING] == 1
            assert loop.forwarder.destinations["p"].failures > 3

    run(scenario())


def test_a_service_that_hangs_is_given_up_on_and_what_it_took_meanwhile_counts_once(tmp_path):
    async def scenario():
        async with delivering(tmp_path, timeout_s=0.1) as loop:
            loop.service.mode = Mode("hang")
            loop.put(*(an_entry(i) for i in range(5)))
            await loop.until(lambda: loop.forwarder.destinations["p"].failures >= 2)
            loop.service.mode = Mode()
            await loop.delivered(5)
            check_each_once(loop, 5)

    run(scenario())


def test_a_slow_service_slows_delivery_alone(tmp_path):
    async def scenario():
        async with delivering(tmp_path) as loop:
            loop.service.mode = Mode("slow", 0.2)
            loop.put(*(an_entry(i) for i in range(24)))
            assert loop.queue.counts()[State.WAITING] + loop.queue.counts()[State.DELIVERED] == 24
            await loop.delivered(24)
            check_each_once(loop, 24)
            assert loop.forwarder.destinations["p"].answers[Verdict.TROUBLE.value] == 0

    run(scenario())


def test_an_answer_that_is_lost_makes_a_repeat_of_the_same_bytes_which_counts_as_delivered(tmp_path):
    class Forgetful(EdgeImpulse):
        lost = 0

        async def take(self, request):
            response = await super().take(request)
            if self.lost < 7:
                self.lost += 1
                request.transport.abort()
            return response

    async def scenario():
        async with delivering(tmp_path, service=Forgetful(api_key=KEY, hmac_key=HMAC)) as loop:
            loop.put(*(an_entry(i) for i in range(20)))
            await loop.delivered(20)
            check_each_once(loop, 20)
            assert loop.service.repeats >= 7

    run(scenario())


def test_a_file_that_fails_inside_a_success_is_sent_again(tmp_path):
    async def scenario():
        async with delivering(tmp_path) as loop:
            loop.service.mode = Mode("file", 3)
            loop.put(*(an_entry(i) for i in range(30)))
            await loop.delivered(30)
            check_each_once(loop, 30)
            assert loop.service.refused["mode"] >= 10

    run(scenario())


def test_a_file_that_always_fails_is_dead_and_holds_up_nobody(tmp_path):
    async def scenario():
        async with delivering(tmp_path, [Project("p", "", KEY, "another key")]) as loop:
            loop.forwarder.destinations["p"].project = Project("p", loop.service.url, KEY, "another key")
            loop.put(an_entry(1))
            await loop.until(lambda: loop.queue.counts()[State.DEAD] == 1)
            (dead,) = loop.queue.stored(State.DEAD)
            assert dead.reason == "Edge Impulse refused the file: Invalid signature"

    run(scenario())


def test_400_is_about_the_window_and_replay_gives_it_another_chance(tmp_path):
    async def scenario():
        async with delivering(tmp_path) as loop:
            loop.service.mode = Mode("status", 422)
            loop.put(an_entry(1), an_entry(2))
            await loop.until(lambda: loop.queue.counts()[State.DEAD] == 2)
            loop.service.mode = Mode()
            assert await asyncio.wrap_future(loop.queue.reopen(State.DEAD)) == 2
            await loop.delivered(2)

    run(scenario())


def test_a_limited_rate_is_kept_to(tmp_path):
    async def scenario():
        async with delivering(tmp_path) as loop:
            loop.service.mode = Mode("rate", 40, retry_after_s=1)
            loop.put(*(an_entry(i) for i in range(60)))
            await loop.delivered(60)
            check_each_once(loop, 60)

    run(scenario())


def test_held_windows_go_out_when_a_label_rule_comes(tmp_path):
    async def scenario():
        async with delivering(tmp_path) as loop:
            loop.put(an_entry(1, label=""), an_entry(2, label="", device="dev:2"), an_entry(3, flags=4))
            await loop.until(lambda: loop.queue.counts()[State.HELD] == 3)
            await asyncio.wrap_future(loop.queue.add_label(LabelRule("found", device="dev:2")))
            await loop.delivered(1)
            assert loop.service.accepted[0].label == "found"
            await loop.until(lambda: loop.queue.counts()[State.HELD] == 2)

    run(scenario())


def test_paused_means_paused(tmp_path):
    async def scenario():
        async with delivering(tmp_path) as loop:
            await asyncio.wrap_future(loop.queue.switch("paused", "yes"))
            loop.put(an_entry(1))
            await loop.passes(100)
            assert loop.service.requests == 0
            await asyncio.wrap_future(loop.queue.switch("paused", "no"))
            await loop.delivered(1)

    run(scenario())


def test_two_projects_and_the_trouble_of_one_is_not_the_other_s(tmp_path):
    async def scenario():
        other = EdgeImpulse(api_key="other")
        other.mode = Mode("status", 503)
        async with edge_impulse.running(other), delivering(tmp_path) as loop:
            first = Project("a", loop.service.url, KEY, HMAC, devices="dev:1")
            second = Project("b", other.url, "other", devices="dev:2")
            loop.forwarder._projects = (first, second)
            loop.forwarder.destinations = {one.name: Destination(one) for one in (first, second)}
            loop.put(*(an_entry(i, device=f"dev:{1 + i % 3}") for i in range(30)))
            await loop.delivered(10)
            await loop.until(lambda: loop.queue.counts()[State.HELD] == 10)
            (reason,) = {stored.reason for stored in loop.queue.stored(State.HELD)}
            assert reason == "no project takes windows of this device"
            await loop.passes(1200)
            assert loop.queue.counts()[State.WAITING] == 10
            other.mode = Mode()
            await loop.delivered(20)
            assert {sample.metadata["device"] for sample in other.accepted} == {"dev:2"}

    run(scenario())


def test_a_wrong_key_is_an_alarm_and_ends_when_it_is_right(tmp_path, caplog):
    async def scenario():
        async with delivering(tmp_path) as loop:
            loop.service.api_key = "changed"
            loop.put(an_entry(1))
            await loop.passes(2 * ALARM_PAUSE_S)
            destination = loop.forwarder.destinations["p"]
            assert "401" in destination.alarm
            assert loop.queue.counts()[State.DEAD] == 0
            loop.service.api_key = KEY
            await loop.delivered(1)
            assert destination.alarm == ""

    run(scenario())
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] != []
    assert KEY not in caplog.text
    assert HMAC not in caplog.text


# --- single answers ---------------------------------------------------------------------------------------------------

GOOD = b'{"success": true, "files": [{"success": true, "fileName": "x"}]}'


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, GOOD, Verdict.DELIVERED),
        (200, b'{"success": false, "files": [{"success": false, "error": "bad"}]}', Verdict.BAD_FILE),
        (200, b'{"success": true, "files": [{"success": false, "error": "bad"}]}', Verdict.BAD_FILE),
        (200, b'{"success": false, "files": [{"error": "hash already exists"}]}', Verdict.DUPLICATE),
        (200, b'{"success": false, "files": [{"success": false, "error": "Already Exists"}]}', Verdict.DUPLICATE),
        (200, b"<html>tunnel</html>", Verdict.TROUBLE),
        (200, b"[]", Verdict.TROUBLE),
        (200, b'{"success": true}', Verdict.TROUBLE),
        (200, b"", Verdict.TROUBLE),
        (201, GOOD, Verdict.MISCONFIGURED),
        (302, b"", Verdict.MISCONFIGURED),
        (400, b"", Verdict.BAD_PAYLOAD),
        (400, b"duplicate sample", Verdict.DUPLICATE),
        (401, b"", Verdict.MISCONFIGURED),
        (403, b"", Verdict.MISCONFIGURED),
        (404, b"", Verdict.MISCONFIGURED),
        (408, b"", Verdict.TROUBLE),
        (413, b"", Verdict.BAD_PAYLOAD),
        (425, b"", Verdict.TROUBLE),
        (429, b"", Verdict.TROUBLE),
        (500, b"", Verdict.TROUBLE),
        (599, b"", Verdict.TROUBLE),
    ],
)
def test_what_an_answer_means(status, body, verdict):
    answer = judge(status, body, None)
    assert answer.verdict is verdict
    assert "\n" not in answer.reason


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("0", 0), ("-5", 0), ("1e9", 3600), ("soon", None), ("nan", None), (None, None)],
)
def test_retry_after(text, seconds):
    assert judge(503, b"", text).retry_after_s == seconds


def test_retry_after_may_be_a_date():
    assert judge(429, b"", "Thu, 01 Jan 2099 00:00:00 GMT").retry_after_s == 3600
    assert judge(429, b"", "Thu, 01 Jan 2009 00:00:00 GMT").retry_after_s == 0


def test_pauses_grow_to_a_minute_and_are_drawn():
    destination = Destination(Project("p", "", ""))
    jitter = random.Random(1)
    pauses = []
    for _ in range(200):
        destination.note(judge(500, b"", None), 0.0, jitter)
        pauses.append(destination.paused_until_s)
    assert max(pauses) <= 60
    assert destination.failures == 200
    destination.note(judge(200, GOOD, None), 0.0, jitter)
    assert destination.failures == 0
