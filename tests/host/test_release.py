"""Releases on emulated fleets: waves, the rule that stops them, interruptions at every step, rollback."""

import asyncio
import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fleet import ask, asked, binpack, model_file, sent, service, simulated

from judder import release as releases
from judder import rollout
from judder.artefact import recognise
from judder.emulator.notehub_api import Fault
from judder.emulator.notehub_project import OVER
from judder.emulator.simulated_device import Fate
from judder.fleet import FleetError, select
from judder.notehub import Device, Notehub, NotehubError
from judder.release import Journal, Release, ReleaseError, State, plan, read
from judder.rollout import run

ALL = ("machines",)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "app.binpack"
    path.write_bytes(binpack("2.0.0"))
    return path


async def planned(hub, clock, file, fleets=ALL, **options):
    chosen = await select(hub, fleets=fleets)
    options = {"timeout_s": 600, "percents": (100,)} | options
    return plan(read(file), chosen.devices, chosen.filters, source=file, now_s=clock.s, **options)


def released(api, clock, file, journal, **options):
    """A release from beginning to end, by one command that nothing interrupts."""

    async def work(hub):
        made = await planned(hub, clock, file, **options)
        await run(made, hub, journal, now_s=clock.now_s, sleep=clock.sleep)
        return made

    return ask(api, clock, work)


def starts(api):
    """How often each device was started."""
    return {uid: len(device.offered) for uid, device in simulated(api).items()}


def running(api):
    return {uid: device.running()["version"] for uid, device in simulated(api).items()}


# --- waves ------------------------------------------------------------------------------------------------------------


def devices(number):
    return [Device(f"dev:{one:05d}", f"sn{one}", (), "") for one in range(number)]


def test_waves_depend_on_devices_and_file_alone(file):
    one = plan(read(file), devices(500), {"tag": ["a"]}, percents=(5, 25, 100))
    two = plan(read(file), devices(500)[::-1], {"tag": ["b"]}, percents=(5, 25, 100))
    assert [len(wave.devices) for wave in one.waves] == [25, 100, 375]
    assert [wave.devices for wave in one.waves] == [wave.devices for wave in two.waves]
    assert sorted(uid for wave in one.waves for uid in wave.devices) == [device.uid for device in devices(500)]
    wider = plan(read(file), devices(500), {"tag": ["a"]}, percents=(10,))
    assert set(one.waves[0].devices) < set(wider.waves[0].devices)
    file.write_bytes(binpack("2.0.1"))
    other = plan(read(file), devices(500), {"tag": ["a"]}, percents=(5, 25, 100))
    assert other.waves[0].devices != one.waves[0].devices


def test_small_fleets_have_as_many_waves_as_they_have_devices_for(file):
    made = plan(read(file), devices(3), {"tag": ["a"]}, percents=(5, 25, 100))
    assert [len(wave.devices) for wave in made.waves] == [1, 2]


@pytest.mark.parametrize(
    ("chosen", "filters", "options", "why"),
    [
        (devices(0), {"tag": ["a"]}, {}, "without any it would go to all"),
        (devices(3), {}, {}, "without any it would go to all"),
        (devices(3), {"fleetUID": []}, {}, "without any it would go to all"),
        (devices(3), {"tag": ["a"]}, {"percents": (0, 100)}, "rising percentages"),
        (devices(3), {"tag": ["a"]}, {"percents": (50, 25)}, "rising percentages"),
        (devices(3), {"tag": ["a"]}, {"percents": (50, 50)}, "rising percentages"),
        (devices(3), {"tag": ["a"]}, {"percents": (101,)}, "rising percentages"),
        (devices(3), {"tag": ["a"]}, {"percents": (float("nan"),)}, "rising percentages"),
        (devices(3), {"tag": ["a"]}, {"max_failed": "many"}, "--max-failed many"),
        (devices(3), {"tag": ["a"]}, {"max_failed": "101%"}, "--max-failed 101%"),
        (devices(3), {"tag": ["a"]}, {"max_failed": "-1"}, "--max-failed -1"),
    ],
)
def test_plans_that_are_refused(file, chosen, filters, options, why):
    with pytest.raises(ReleaseError, match=why) as raised:
        plan(read(file), chosen, filters, **options)
    assert "\n" not in str(raised.value)


def test_nobody_named_is_nobody():
    api, clock = service(3)
    for named in ({}, {"devices": ["dev:864475040000000"], "tags": ["lab"]}):
        with pytest.raises(FleetError, match="say for whom"):
            ask(api, clock, lambda hub, named=named: select(hub, **named))
    assert not api.requests
    for named, why in (
        ({"fleets": ["other"]}, "no fleet other in the project; it has machines"),
        ({"tags": ["none"]}, "no device in none"),
        ({"devices": ["machine-001", "machine-9"]}, "no device machine-9 in"),
    ):
        with pytest.raises(FleetError, match=why):
            ask(api, clock, lambda hub, named=named: select(hub, **named))
    chosen = ask(api, clock, lambda hub: select(hub, devices=["machine-001", "dev:864475040000000"]))
    assert {one.serial_number for one in chosen.devices} == {"machine-000", "machine-001"}
    assert [one.uid for one in ask(api, clock, lambda hub: select(hub, tags=["lab"])).devices] == list(starts(api))[:2]


# --- all goes well ----------------------------------------------------------------------------------------------------


def test_a_fleet_of_500_in_waves(tmp_path, file):
    api, clock = service(500, requests_per_min=7)
    made = released(api, clock, file, Journal(tmp_path / "r.json"), percents=(5, 25, 100))
    assert (made.state, made.reason, made.failing(clock.s)) == (State.DONE, "", [])
    assert set(starts(api).values()) == {1}
    assert set(running(api).values()) == {"2.0.0"}
    times = [wave.started_at_s for wave in made.waves]
    assert all(later - earlier >= 30 for earlier, later in pairwise(times))
    assert len(api.requests) < 20
    assert all(len(one.path) < 8000 for one in api.requests)
    assert [path.partition("?")[0] for _, path in sent(api, "POST")] == ["/dfu/host/update"] * 6


def test_what_is_there_already_is_not_done_again(tmp_path, file):
    api, clock = service(4)
    released(api, clock, file, Journal(tmp_path / "a.json"))
    late = next(iter(simulated(api).values()))
    late.version, late._firmware = "1.0.0", None
    made = released(api, clock, file, Journal(tmp_path / "b.json"))
    assert made.state is State.DONE
    assert sorted(starts(api).values()) == [1, 1, 1, 2]
    assert len(sent(api, "PUT")) == 1
    assert made.waves[0].devices
    assert made.targets[late.uid].running_before == "1.0.0"


def test_a_model_is_done_when_the_description_says_so(tmp_path):
    api, clock = service(3)
    path = tmp_path / "model.bin"
    path.write_bytes(model_file())
    made = released(api, clock, path, Journal(tmp_path / "r.json"))
    assert made.state is State.DONE
    assert {device.model for device in simulated(api).values()} == {made.model}
    assert set(running(api).values()) == {"1.0.0"}
    assert next(iter(api.project.firmware)).startswith("model$")
    assert next(iter(api.project.firmware)).endswith(".judder")
    assert {row["model"] for row in releases.rows(made)} == {made.model}


# --- the stop rule ----------------------------------------------------------------------------------------------------


def begun(made):
    """Devices of the waves that were started."""
    return {uid for wave in made.waves if wave.started_at_s is not None for uid in wave.devices}


def test_a_bad_release_stops_names_the_failing_and_is_rolled_back(tmp_path, file):
    """500 devices, of which 10 % fail in different ways; at most 5 % of a wave may."""
    api, clock = service(500, requests_per_min=7, fail_percent=10)
    failing = {uid for uid, device in simulated(api).items() if device.fate is not Fate.GOOD}
    journal = Journal(tmp_path / "r.json")
    made = released(api, clock, file, journal, percents=(5, 25, 100), timeout_s=300)
    assert made.state is State.STOPPED
    assert set(made.failing(clock.s)) == failing & begun(made)
    assert {uid for uid, number in starts(api).items() if number} == begun(made)
    assert len(begun(made)) < 500
    assert "do not report firmware 2.0.0 after 5 min, " in made.reason
    assert journal.load() == made

    before = ask(api, clock, lambda hub: hub.upload("app.binpack", binpack("1.0.0")))
    firmware = ask(api, clock, lambda hub: rollout.previous(made, hub))
    assert firmware == before

    async def back(hub):
        started = [Device(uid, "", (), "") for uid in made.asked()]
        artefact = recognise(await hub.download(firmware.name))
        going = plan(artefact, started, {"deviceUID": made.asked()}, firmware=firmware, timeout_s=600, again=True)
        await run(going, hub, Journal(tmp_path / "back.json"), now_s=clock.now_s, sleep=clock.sleep)
        return going

    assert ask(api, clock, back).state is State.DONE
    assert set(running(api).values()) == {"1.0.0"}


def test_devices_that_died_are_brought_back_though_notehub_still_shows_what_they_said_before(tmp_path, file):
    api, clock = service(6, fail_percent=100, fates=[Fate.SILENT])
    api.project.keep("old.binpack", binpack("1.0.0"), "1.0.0", "")

    async def work(hub):
        chosen = await select(hub, (), ("machines",), ())
        old = tmp_path / "old.binpack"
        old.write_bytes(binpack("1.0.0"))
        ends = []
        for path, again in ((file, False), (old, False), (old, True)):
            planned = plan(
                read(path), chosen.devices, chosen.filters, source=path, max_failed="0", again=again, timeout_s=600
            )
            journal = Journal(tmp_path / f"{len(ends)}.json")
            await run(planned, hub, journal, now_s=clock.now_s, sleep=clock.sleep)
            ends.append((planned.state, len(planned.asked())))
            for entry in api.project.devices.values():  # Notehub gives up what the dead boards do not end
                entry.updates[-1]["updates"].append({"phase": "cancelled", "datetime": api.project.time()})
        return ends

    assert ask(api, clock, work) == [(State.STOPPED, 6), (State.DONE, 0), (State.DONE, 6)]
    assert [len(device.offered) for device in simulated(api).values()] == [2] * 6


def brought_back(tmp_path, api, clock, path, uids):
    """A release of the file, as a rollback makes it; nobody may fail."""

    async def work(hub):
        devices = [Device(uid, "", (), "") for uid in uids]
        options = {"again": True, "timeout_s": 600, "max_failed": "0", "now_s": clock.s}
        made = plan(read(path), devices, {"deviceUID": uids}, source=path, **options)
        await run(made, hub, Journal(tmp_path / f"back-{path.stem}.json"), now_s=clock.now_s, sleep=clock.sleep)
        return made

    return ask(api, clock, work)


def test_boards_that_never_got_the_bad_model_are_back_without_a_boot(tmp_path):
    """An update by file that they run already, live firmware answers as completed at once."""
    api, clock = service(4)
    good, bad = tmp_path / "good.bin", tmp_path / "bad.bin"
    good.write_bytes(model_file(1))
    bad.write_bytes(model_file(2))
    first = released(api, clock, good, Journal(tmp_path / "a.json"))
    spared, *_ = simulated(api).values()
    spared.fate = Fate.ERROR
    assert released(api, clock, bad, Journal(tmp_path / "b.json")).state is State.STOPPED
    boot = spared.running()["description"]
    back = brought_back(tmp_path, api, clock, good, list(starts(api)))
    assert (back.state, set(starts(api).values())) == (State.DONE, {3})
    assert spared.running()["description"] == boot
    assert {device.model for device in simulated(api).values()} == {first.model}


def test_the_end_of_an_update_before_is_not_taken_for_that_of_this_one(tmp_path):
    api, clock = service(1)
    path = tmp_path / "model.bin"
    path.write_bytes(model_file())
    released(api, clock, path, Journal(tmp_path / "a.json"))
    (uid,) = starts(api)
    api.faults = [Fault("status", "/dfu/host/update", "POST")]

    async def work(hub):
        made = plan(read(path), [Device(uid, "", (), "")], {"deviceUID": [uid]}, source=path, again=True)
        while not made.targets[uid].started:
            with suppress(NotehubError):
                await rollout.advance(made, hub, Journal(tmp_path / "b.json"), clock.now_s)
        return made

    made = ask(api, clock, work)
    assert not api.faults[0].times
    assert not made.is_done(uid)


def test_an_image_is_not_back_before_the_board_has_booted(tmp_path, file):
    """That the Notecard has written it is no word of the board."""
    made = plan(read(file), devices(1), {"tag": ["a"]}, again=True)
    (target,) = made.targets.values()
    target.running = target.version = "2.0.0"
    target.started, target.phase, target.boot, target.boot_before = True, "completed", "1", "1"
    assert not made.is_done("dev:00000")
    target.boot = "2"
    assert made.is_done("dev:00000")


@pytest.mark.parametrize(
    ("fate", "phase"), [(Fate.SILENT, "updating"), (Fate.ERROR, "error"), (Fate.FALLS_BACK, "completed")]
)
def test_each_way_to_fail_is_told_by_its_last_phase(tmp_path, file, fate, phase):
    api, clock = service(40, fail_percent=25, fates=[fate])
    for device in simulated(api).values():
        device.falls_back_s = 25  # it may be seen with the new version first
    made = released(api, clock, file, Journal(tmp_path / "r.json"), percents=(50, 100), timeout_s=120)
    failing = {uid for uid, device in simulated(api).items() if device.fate is not Fate.GOOD}
    assert made.state is State.STOPPED
    assert set(made.failing(clock.s)) == failing & set(made.waves[0].devices)
    assert begun(made) == set(made.waves[0].devices)
    assert {row["phase"] for row in releases.rows(made) if row["device"] in failing & begun(made)} == {phase}


@pytest.mark.parametrize(
    ("limit", "state"), [("1", State.STOPPED), ("2", State.DONE), ("9.9%", State.STOPPED), ("10%", State.DONE)]
)
def test_as_many_as_may_fail_do_not_stop_it(tmp_path, file, limit, state):
    api, clock = service(20, fail_percent=10, fates=[Fate.SILENT])
    made = released(api, clock, file, Journal(tmp_path / "r.json"), max_failed=limit, timeout_s=120)
    assert made.state is state
    assert len(made.failing(clock.s)) == 2


def test_pending_downloads_are_called_off_when_it_stops(tmp_path, file):
    api, clock = service(4)
    slow = list(simulated(api).values())[1]
    slow.download_s = 3000
    made = released(api, clock, file, Journal(tmp_path / "r.json"), max_failed="0")
    assert made.state is State.STOPPED
    clock.s += 10_000
    assert running(api)[slow.uid] == "1.0.0"
    assert sent(api, "POST")[-1] == ("POST", f"/dfu/host/cancel?deviceUID={slow.uid.replace(':', '%3A')}")
    status = ask(api, clock, lambda hub: hub.update_status(slow.uid))
    assert (status.phase, status.in_progress) == ("cancelled", False)


def test_cancel_calls_off_what_is_to_come(tmp_path, file):
    api, clock = service(10)
    journal = Journal(tmp_path / "r.json")

    async def work(hub):
        made = await planned(hub, clock, file, percents=(50, 100))
        while made.state is not State.RUNNING or made.waves[0].started_at_s is None:
            await rollout.advance(made, hub, journal, clock.now_s)
        releases.cancel(made)
        journal.save(made)
        made = journal.load()
        await run(made, hub, journal, now_s=clock.now_s, sleep=clock.sleep)
        return made

    made = ask(api, clock, work)
    assert (made.state, made.reason) == (State.CANCELLED, "cancelled")
    clock.s += 1000
    assert set(running(api).values()) == {"1.0.0"}
    assert sum(starts(api).values()) == 5


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_arrives_damaged_is_not_started(tmp_path, file):
    for says_md5, fault in ((True, Fault("corrupt", method="PUT")), (False, Fault("corrupt", method="GET", times=9))):
        api, clock = service(3, says_md5=says_md5, faults=[fault])
        journal = Journal(tmp_path / f"{says_md5}.json")
        with pytest.raises(ReleaseError, match="nothing started"):
            released(api, clock, file, journal)
        assert not sent(api, "POST")
        api.faults.clear()
        assert released(api, clock, file, journal).state is State.DONE  # a repetition is all it takes
        assert set(starts(api).values()) == {1}


def test_a_file_that_changed_meanwhile_is_refused(tmp_path, file):
    api, clock = service(3)

    async def work(hub):
        made = await planned(hub, clock, file)
        for content, why in ((binpack("3.0.0"), "leave --version"), (binpack("2.0.0") + b"x", "has changed")):
            file.write_bytes(content)
            with pytest.raises(ReleaseError, match=why):
                await run(made, hub, Journal(tmp_path / "r.json"), now_s=clock.now_s, sleep=clock.sleep)

    ask(api, clock, work)
    assert not sent(api, "PUT")


def test_going_back_needs_to_know_where_to(tmp_path, file):
    api, clock = service(3)
    made = released(api, clock, file, Journal(tmp_path / "r.json"))
    with pytest.raises(ReleaseError, match=r"no file of version 1\.0\.0; it has 2\.0\.0"):
        ask(api, clock, lambda hub: rollout.previous(made, hub))
    next(iter(made.targets.values())).running_before = "0.9"
    with pytest.raises(ReleaseError, match=r"different things before \(0\.9, 1\.0\.0\)"):
        ask(api, clock, lambda hub: rollout.previous(made, hub))


def test_from_a_first_model_there_is_no_way_back(tmp_path):
    api, clock = service(2)
    path = tmp_path / "model.bin"
    path.write_bytes(model_file())
    made = released(api, clock, path, Journal(tmp_path / "r.json"))
    with pytest.raises(ReleaseError, match="ran no model before: there is nothing to go back to; release a model with"):
        ask(api, clock, lambda hub: rollout.previous(made, hub))


def test_journals_that_are_none(tmp_path):
    path = tmp_path / "r.json"
    for content, why in ((None, "No such file"), ("", "no release"), ("[]", "no release"), ('{"id": 1}', "no release")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ReleaseError, match=why):
            Journal(path).load()
    with Journal(path).alone(), pytest.raises(ReleaseError, match="another judder"), Journal(path).alone():
        raise AssertionError


# --- interruptions ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


class Life:
    """Ends at its n-th step: before or after a request, before or after the file is written."""

    def __init__(self, steps):
        self.left = steps

    def step(self):
        self.left -= 1
        if self.left < 0:
            raise Killed


class Mortal(Notehub):
    async def _attempt(self, call):
        self.life.step()
        found = await super()._attempt(call)
        self.life.step()
        return found


class MortalJournal(Journal):
    def save(self, release: Release) -> None:
        self.life.step()
        super().save(release)
        self.life.step()


async def lived(hub, clock, file, path, steps, **options):
    """One command: goes on with the release, or makes it. Whether it came to an end before it was killed."""
    mortal = Mortal(hub.session, hub.token, hub.project, hub.url, hub.sleep)
    journal = MortalJournal(path)
    mortal.life = journal.life = Life(steps)
    try:
        if path.exists():
            made = Journal(path).load()
        else:
            made = await planned(hub, clock, file, **options)
            journal.save(made)
        with journal.alone():
            await run(made, mortal, journal, now_s=clock.now_s, sleep=clock.sleep, interval_s=60)
    except Killed:
        return False
    return True


def check(api, made):
    """What holds at the end of a release, whatever happened on its way."""
    offered = starts(api)
    assert max(offered.values()) <= 1
    assert {uid for uid, number in offered.items() if number} <= set(made.asked())
    for wave in made.waves:
        if wave.started_at_s is not None:
            assert set(wave.devices) <= set(made.asked())
    if made.state is State.DONE:
        assert set(offered.values()) == {1}
        assert begun(made) == set(offered)
        assert all(len(made.missing(wave)) <= made.allowed(wave) for wave in made.waves)
    for uid in offered:
        assert not made.is_done(uid) or offered[uid]


def test_a_command_killed_at_any_step_can_be_repeated(tmp_path, file, monkeypatch):
    monkeypatch.setattr(rollout, "DEVICES_PER_CALL", 4)
    steps, ended = 0, False
    while not ended:
        api, clock = service(12)
        path = tmp_path / f"{steps}.json"

        async def work(hub, path=path, steps=steps, clock=clock):
            ended = await lived(hub, clock, file, path, steps, percents=(50, 100))
            if not ended:
                assert await lived(hub, clock, file, path, 10_000, percents=(50, 100))
            return ended

        ended = ask(api, clock, work)
        made = Journal(path).load()
        assert made.state is State.DONE
        assert set(starts(api).values()) == {1}
        assert set(running(api).values()) == {"2.0.0"}
        assert len(api.project.firmware) == 1
        check(api, made)
        steps += 1
    assert steps > 30  # or nothing was interrupted


def test_a_command_killed_again_and_again_gets_there(tmp_path, file):
    api, clock = service(12)
    path = tmp_path / "r.json"

    async def work(hub):
        for _ in range(100):
            if await lived(hub, clock, file, path, 11, percents=(25, 50, 100)):
                return
            await clock.sleep(20)
        raise AssertionError("it makes no progress")

    ask(api, clock, work)
    made = Journal(path).load()
    assert made.state is State.DONE
    check(api, made)


FAULTS = st.builds(
    Fault,
    st.sampled_from(["status", "lose", "reset", "partial"]),
    st.sampled_from(["/dfu/host/status", "/dfu/host/update", "/dfu/host/cancel", "/firmware"]),
    times=st.integers(1, 3),
)


@settings(max_examples=15)
@given(
    fates=st.lists(st.sampled_from([*[Fate.GOOD] * 4, *Fate]), min_size=9, max_size=9),
    faults=st.lists(FAULTS, max_size=5),
    lives=st.lists(st.integers(1, 25), max_size=4),
    limit=st.sampled_from(["0", "1", "50%"]),
)
def test_whatever_happens_none_is_started_twice_and_none_forgotten(tmp_path_factory, fates, faults, lives, limit):
    api, clock = service(9, faults=[Fault(**vars(one)) for one in faults])
    for device, fate in zip(simulated(api).values(), fates, strict=True):
        device.fate = fate
    folder = tmp_path_factory.mktemp("release")
    file, path = folder / "app.binpack", folder / "r.json"
    file.write_bytes(binpack("2.0.0"))

    async def work():
        for steps in [*lives, 10_000]:
            async with asked(api, clock) as hub:
                if await lived(hub, clock, file, path, steps, percents=(34, 100), max_failed=limit, timeout_s=120):
                    return

    asyncio.run(work())
    made = Journal(path).load()
    assert made.is_over
    check(api, made)
    if made.state is State.STOPPED:
        statuses = [api.project.status(entry) for entry in api.project.devices.values()]
        pending = [
            one for one in statuses if one["dfu_in_progress"] and one["status"]["updates"][-1]["phase"] not in OVER
        ]
        assert all(one["status"]["updates"][-1]["phase"] == "updating" for one in pending)
    else:
        assert made.state is State.DONE


def test_a_device_that_is_left_out_of_an_answer_is_not_started_again_for_that(tmp_path, file):
    api, clock = service(9)
    api.faults = [Fault("lose", "/dfu/host/update"), Fault("partial", "/dfu/host/status")]
    api.faults[1].times = 0

    async def work(hub):
        made = await planned(hub, clock, file)
        journal = Journal(tmp_path / "r.json")
        await rollout.advance(made, hub, journal, clock.now_s)
        with pytest.raises(NotehubError):
            await rollout.advance(made, hub, journal, clock.now_s)
        api.faults[1].times = 1
        await run(made, hub, journal, now_s=clock.now_s, sleep=clock.sleep)
        return made

    assert ask(api, clock, work).state is State.DONE
    assert set(starts(api).values()) == {1}


def test_answers_that_fail_to_come_for_long_end_the_command_and_not_the_release(tmp_path, file):
    api, clock = service(3)
    path = tmp_path / "r.json"

    async def work(hub):
        made = await planned(hub, clock, file)
        Journal(path).save(made)
        api.faults = [Fault("status", "/dfu/", times=1000)]
        with pytest.raises(NotehubError, match="503"):
            await run(made, hub, Journal(path), now_s=clock.now_s, sleep=clock.sleep)
        api.faults = [Fault("status", "/dfu/host/status", status=403)]
        with pytest.raises(NotehubError, match="may not"):
            await run(made, hub, Journal(path), now_s=clock.now_s, sleep=clock.sleep)
        made = Journal(path).load()
        await run(made, hub, Journal(path), now_s=clock.now_s, sleep=clock.sleep)
        return made

    assert ask(api, clock, work).state is State.DONE
    assert set(starts(api).values()) == {1}


def test_looks_are_not_more_often_than_notehub_allows(tmp_path, file):
    api, clock = service(3)
    times = []

    async def work(hub):
        made = await planned(hub, clock, file)
        journal = Journal(tmp_path / "r.json")
        at = [times.append(clock.s)]
        await run(
            made,
            hub,
            journal,
            now_s=clock.now_s,
            sleep=clock.sleep,
            interval_s=0.1,
            on_step=lambda release: times.append(clock.s),
        )
        return at

    ask(api, clock, work)
    gaps = [later - earlier for earlier, later in pairwise(times) if later > earlier]
    assert gaps
    assert min(gaps) >= 15


def test_the_file_of_a_release_is_small_json(tmp_path, file):
    api, clock = service(3)
    journal = Journal(tmp_path / "deep" / "r.json")
    made = released(api, clock, file, journal)
    members = json.loads(journal.path.read_text())
    assert (members["state"], members["version"], len(members["targets"])) == ("done", "2.0.0", 3)
    assert sorted(path.name for path in journal.path.parent.iterdir()) == ["r.json"]
    assert Path(members["source"]) == file.resolve()
    assert Journal(journal.path).load() == made
