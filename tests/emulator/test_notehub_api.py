"""The emulated Notehub API: each call of the client that it gets, as Notehub documents it, and a foreign client."""

import asyncio
import hashlib
import importlib.util
import json
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest
from tests.fleet import START_S, TOKEN, Clock, ask, asked, binpack, model_file, sent, service, simulated

from judder import route as routes
from judder.background import background
from judder.config import Config
from judder.emulator.bench import Bench
from judder.emulator.clock import VirtualClock
from judder.emulator.machine import Machine
from judder.emulator.notecard import Notecard, WebRequest, WebResponse
from judder.emulator.notehub import Notehub as Hub
from judder.emulator.notehub_api import Fault, NotehubApi, running
from judder.emulator.notehub_project import CardDevice, Entry, Project
from judder.notehub import PROJECT, NotehubError, Scope, UncertainError, UpdateStatus
from judder.server import background as serving

ONE, TWO = "dev:864475040000000", "dev:864475040000001"
FIRST = {"deviceUID": [ONE]}


def machines(api):
    return next(iter(api.project.fleets))


# --- every call -------------------------------------------------------------------------------------------------------


async def _every_call(hub, api):
    """Method, path and query as documented, body; each with what makes the client send it."""
    fleet, data = machines(api), binpack()
    name = (await hub.upload("app one.binpack", data, "2.0.0", "notes & more")).name
    stored = name.replace("$", "%24").replace(" ", "%20")
    in_fleet, of_device = Scope("fleet", fleet), Scope("device", ONE)
    fleet_path, device_path = f"/fleets/{fleet.replace(':', '%3A')}", f"/devices/{ONE.replace(':', '%3A')}"
    md5 = hashlib.md5(data).hexdigest()
    proxy = {"type": "proxy", "label": "l", "proxy": {"alias": "ingest", "url": "http://127.0.0.1:1"}}
    await hub.create_route(proxy)
    route = (await hub.routes())[0]["uid"]
    route_path = f"/routes/{route.replace(':', '%3A')}"
    api.requests.clear()
    paged = "pageSize=500&pageNum=1"
    variables = {"environment_variables": {"ODR_HZ": "400"}}
    return [
        (hub.devices(), "GET", f"/devices?{paged}", None),
        (
            hub.devices({"tag": ["lab", "field"], "sku": ["NOTE-WBNAW"]}),
            "GET",
            f"/devices?tag=lab&tag=field&sku=NOTE-WBNAW&{paged}",
            None,
        ),
        (hub.fleets(), "GET", "/fleets", None),
        (hub.firmware(), "GET", "/firmware?firmwareType=host", None),
        (
            hub.firmware(version="2.0.0", md5=md5),
            "GET",
            f"/firmware?firmwareType=host&version=2.0.0&md5={md5}",
            None,
        ),
        (
            hub.upload("app one.binpack", data, "2.0.0", "notes & more"),
            "PUT",
            "/firmware/host/app%20one.binpack?version=2.0.0&notes=notes+%26+more",
            data,
        ),
        (hub.download(name), "GET", f"/firmware/host/{stored}", None),
        (
            hub.start_update(name, {"deviceUID": [ONE, TWO]}),
            "POST",
            "/dfu/host/update?deviceUID=dev%3A864475040000000&deviceUID=dev%3A864475040000001",
            {"filename": name},
        ),
        (
            hub.cancel_update({"fleetUID": [fleet]}),
            "POST",
            f"/dfu/host/cancel?fleetUID={fleet.replace(':', '%3A')}",
            None,
        ),
        (hub.update_statuses(FIRST), "GET", f"/dfu/host/status?deviceUID=dev%3A864475040000000&{paged}", None),
        (hub.update_status(ONE), "GET", f"{device_path}/dfu/host/status", None),
        (hub.update_histories(), "GET", f"/dfu/host/history?{paged}", None),
        (hub.update_history(ONE), "GET", f"{device_path}/dfu/host/history", None),
        (hub.set_variables(PROJECT, {"ODR_HZ": "400"}), "PUT", "/environment_variables", variables),
        (hub.set_variables(in_fleet, {"ODR_HZ": "400"}), "PUT", f"{fleet_path}/environment_variables", variables),
        (hub.set_variables(of_device, {"ODR_HZ": "400"}), "PUT", f"{device_path}/environment_variables", variables),
        (hub.variables(PROJECT), "GET", "/environment_variables", None),
        (hub.variables(of_device), "GET", f"{device_path}/environment_variables", None),
        (hub.unset_variable(of_device, "ODR_HZ"), "DELETE", f"{device_path}/environment_variables/ODR_HZ", None),
        (hub.unset_variable(in_fleet, "ODR_HZ"), "DELETE", f"{fleet_path}/environment_variables/ODR_HZ", None),
        (hub.hierarchy(PROJECT), "GET", "/environment_hierarchy", None),
        (hub.hierarchy(in_fleet), "GET", f"{fleet_path}/environment_hierarchy", None),
        (hub.hierarchy(of_device), "GET", f"{device_path}/environment_hierarchy", None),
        (
            hub.events(["a.qo", "b.qo"], [ONE], newest_first=True, limit=7, cursor="c"),
            "GET",
            "/events-cursor?limit=7&sortOrder=desc&files=a.qo%2Cb.qo&cursor=c&deviceUID=dev%3A864475040000000",
            None,
        ),
        (
            hub.send_note(ONE, "capture.qi", {"id": "1"}, b"\0\1"),
            "POST",
            f"{device_path}/notes/capture.qi",
            {"body": {"id": "1"}, "payload": "AAE="},
        ),
        (hub.signal(ONE, {"capture": "1"}), "POST", f"{device_path}/signal", {"body": {"capture": "1"}}),
        (hub.routes(), "GET", "/routes", None),
        (hub.create_route(proxy), "POST", "/routes", proxy),
        (hub.route(route), "GET", route_path, None),
        (hub.change_route(route, proxy), "PUT", route_path, proxy),
        (hub.route_logs(route), "GET", f"{route_path}/route-logs", None),
    ]


def test_every_call_is_made_as_documented():
    api, clock = service(2)

    async def work():
        async with asked(api, clock) as hub:
            for call, method, path, body in await _every_call(hub, api):
                api.requests.clear()
                await call
                seen = api.requests[-1]
                assert sent(api) == [(method, path)]
                assert seen.body == (
                    b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
                )

    asyncio.run(work())


def test_what_is_uploaded_is_told_and_given_back():
    api, clock = service(1)
    data = binpack("2.1.0")

    async def work(hub):
        told = await hub.upload("app.binpack", data)
        again = await hub.upload("app.binpack", data)
        assert told.name == "app$20261118110640.binpack"
        assert told.name != again.name
        assert (told.version, told.md5) == ("2.1.0", hashlib.md5(data).hexdigest())
        assert await hub.download(told.name) == data
        assert [one.name for one in await hub.firmware(filename=told.name)] == [told.name]
        assert (await hub.upload("other.bin", b"\1", "7")).version == "7"
        assert [one.version for one in await hub.firmware(version="7")] == ["7"]

    ask(api, clock, work)


def test_an_update_goes_through_its_phases():
    api, clock = service(2)
    device = simulated(api)[ONE]

    async def work(hub):
        kept = await hub.upload("app.binpack", binpack("2.0.0"))
        assert (await hub.update_status(ONE)).phase == ""
        await hub.start_update(kept.name, FIRST)
        phases = []
        for _ in range(60):
            status = await hub.update_status(ONE)
            if not phases or status.phase != phases[-1]:
                phases.append(status.phase)
            assert status.in_progress == (status.phase != "completed")
            await clock.sleep(1)
        assert phases == ["downloading", "updating", "completed"]
        assert (status.version, status.requested_version) == ("2.0.0", "2.0.0")
        assert status.initiated == "2026-11-18T11:06:40Z"
        history = await hub.update_history(ONE)
        assert [one["phase"] for one in history[0]["updates"]] == ["requested", *phases]
        assert await hub.update_histories(FIRST) == {ONE: history}
        assert (await hub.devices(FIRST))[0].firmware == "2.0.0"
        assert [one.uid for one in await hub.devices({"hostFirmware": ["1.0.0"]})] == [TWO]

    ask(api, clock, work)
    assert device.offered == ["app$20261118110640.binpack"]


def test_a_model_changes_the_description_only():
    from judder.artefact import recognise

    api, clock = service(1)
    found = recognise(model_file())

    async def work(hub):
        kept = await hub.upload("model.judder", found.data, found.version)
        await hub.start_update(kept.name, FIRST)
        await clock.sleep(60)
        status = await hub.update_status(ONE)
        assert (status.version, status.model) == ("1.0.0", found.model)

    ask(api, clock, work)


def test_without_a_filter_an_update_goes_to_all_so_the_client_refuses():
    api, clock = service(3)

    async def work(hub):
        kept = await hub.upload("app.binpack", binpack())
        for filters in ({}, {"deviceUID": []}, {"deviceUID": [""]}):
            for call in (hub.start_update(kept.name, filters), hub.cancel_update(filters)):
                with pytest.raises(ValueError, match="every device"):
                    await call
        with pytest.raises(ValueError, match="chooses no devices"):
            await hub.start_update(kept.name, {"fleet": ["x"]})
        assert not sent(api, "POST")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        url = f"{api.url}/v1/projects/{api.project.uid}/dfu/host/update"
        async with hub.session.post(url, json={"filename": kept.name}, headers=headers) as answer:
            assert answer.status == 200

    ask(api, clock, work)
    assert all(len(device.offered) == 1 for device in simulated(api).values())


def test_cancelled_is_what_was_still_to_come():
    api, clock = service(2)
    fast, slow = simulated(api).values()
    fast.download_s, slow.download_s, fast.restart_s = 1, 50, 50

    async def work(hub):
        kept = await hub.upload("app.binpack", binpack())
        both = {"deviceUID": [ONE, TWO]}
        await hub.start_update(kept.name, both)
        await clock.sleep(10)
        await hub.cancel_update(both)
        assert [one.phase for one in await hub.update_statuses(both)] == ["updating", "cancelled"]
        await clock.sleep(100)
        assert [one.version for one in await hub.update_statuses(both)] == ["2.0.0", "1.0.0"]

    ask(api, clock, work)


def test_variables_of_the_device_come_before_the_fleets_before_the_projects():
    api, clock = service(2)
    device = simulated(api)[ONE]

    async def work(hub):
        scopes = PROJECT, Scope("fleet", machines(api)), Scope("device", ONE)
        for scope, odr_hz in zip(scopes, ("100", "200", "400"), strict=True):
            await hub.set_variables(scope, {"ODR_HZ": odr_hz, f"OF_{scope.kind}": "1"})
        effective = api.project.environment(api.project.devices[ONE])
        assert effective == {"ODR_HZ": "400", "OF_project": "1", "OF_fleet": "1", "OF_device": "1"}
        assert device.effective == {"ODR_HZ": 400}
        await hub.unset_variable(scopes[2], "ODR_HZ")
        assert device.effective == {"ODR_HZ": 200}
        await hub.unset_variable(scopes[1], "ODR_HZ")
        assert device.effective == {"ODR_HZ": 100}
        await hub.unset_variable(scopes[1], "ODR_HZ")  # gone already
        assert await hub.variables(scopes[1]) == {"OF_fleet": "1"}

    ask(api, clock, work)


def test_events_come_in_pages_by_cursor():
    api, clock = service(3)

    async def work(hub):
        for number in range(5):
            for uid in api.project.devices:
                await hub.send_note(uid, "capture.qi", {"id": str(number)})
            await clock.sleep(10)
        seen, cursor = [], ""
        while True:
            events, cursor = await hub.events(["capture.qo"], limit=4, cursor=cursor)
            seen += [one for one in events if one["event"] not in {other["event"] for other in seen}]
            if not cursor:
                break
        assert len(seen) == 15
        assert {one["body"]["id"] for one in seen} == {"0", "1", "2", "3", "4"}
        assert [one["received"] for one in seen] == sorted(one["received"] for one in seen)
        newest, _ = await hub.events(["capture.qo"], [ONE], newest_first=True, limit=1)
        assert (newest[0]["device"], newest[0]["body"]["id"], newest[0]["sn"]) == (ONE, "4", "machine-000")
        assert await hub.events(["other.qo"]) == ([], "")

    ask(api, clock, work)


def test_a_route_leads_cards_with_its_headers():
    got = {}

    async def serve(reader, writer):
        got["head"] = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    api, clock = service(1)
    api.project.hub = Hub()

    async def work(hub):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        headers = {"X-Ingest-Token": "t0"}
        proxy = {"alias": "ingest", "url": f"http://127.0.0.1:{port}", "http_headers": headers}
        await hub.create_route({"type": "proxy", "label": "l", "proxy": proxy})
        card = Notecard(VirtualClock(), api.project.hub.send)
        answer = await asyncio.to_thread(card.send, WebRequest("POST", "ingest", "/ingest", "application/json", b"{}"))
        assert answer == WebResponse(200, b"{}")
        logs = await hub.route_logs((await hub.routes())[0]["uid"])
        assert [(one["status"], one["attn"]) for one in logs] == [("200", False)]
        elsewhere = {"type": "proxy", "proxy": {"alias": "a", "url": "http://example.com"}}
        with pytest.raises(NotehubError, match="not this machine"):
            await hub.create_route(elsewhere)
        server.close()

    ask(api, clock, work)
    assert b"X-Ingest-Token: t0" in got["head"]


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "work", "status", "why"),
    [
        ({"token": "other"}, lambda hub: hub.fleets(), 401, "JUDDER_NOTEHUB_TOKEN"),
        ({"token": "reader"}, lambda hub: hub.start_update("x", FIRST), 403, "may not"),
        ({"project": "app:other"}, lambda hub: hub.fleets(), 404, "JUDDER_NOTEHUB_PROJECT"),
        ({}, lambda hub: hub.update_status("dev:none"), 404, "device dev:none not found"),
        ({}, lambda hub: hub.start_update("none", FIRST), 404, "firmware none not found"),
        ({}, lambda hub: hub.send_note(ONE, "out.qo", {}), 400, "no Notefile"),
        ({}, lambda hub: hub.upload("empty.bin", b""), 400, "has to be a file"),
    ],
)
def test_refusals_are_one_line_with_advice(options, work, status, why):
    api, clock = service(1, reader_token="reader")
    with pytest.raises(NotehubError, match=why) as raised:
        ask(api, clock, work, **options)
    assert raised.value.status == status
    assert "\n" not in str(raised.value)
    assert len(api.requests) == 1  # what is refused is not repeated
    assert clock.s == START_S


def test_an_error_has_the_members_that_notehub_gives_it():
    api, _ = service(1)

    async def work():
        async with (
            running(api),
            aiohttp.ClientSession() as session,
            session.get(f"{api.url}/v1/projects/x/fleets") as got,
        ):
            return got.status, await got.json()

    assert asyncio.run(work()) == (
        401,
        {"err": "unauthorized: no valid access token", "code": 401, "status": "Unauthorized"},
    )


def test_the_rate_limit_is_waited_for():
    api, clock = service(1, requests_per_min=7)

    async def work(hub):
        for _ in range(22):
            await hub.fleets()

    ask(api, clock, work)
    answered_per_min = 22 / ((clock.s - START_S) / 60 + 1)
    assert 180 <= clock.s - START_S <= 190
    assert answered_per_min <= 7
    assert len(api.requests) == 25  # three were refused, once each


@pytest.mark.parametrize("fault", [Fault("status", times=3), Fault("reset", times=3), Fault("lose", times=3)])
def test_trouble_is_tried_again(fault):
    api, clock = service(1, faults=[fault])
    assert len(ask(api, clock, lambda hub: hub.devices())) == 1
    assert len(api.requests) == 4
    assert 3.5 <= clock.s - START_S <= 14


def test_trouble_that_stays_is_an_error_in_the_end():
    api, clock = service(1, faults=[Fault("status", times=100, retry_after="5")])
    with pytest.raises(NotehubError, match=r"answered 503: as told; 6 attempts"):
        ask(api, clock, lambda hub: hub.devices())
    assert clock.s - START_S == 25
    api.faults = [Fault("status", status=429, retry_after="3000")]
    with pytest.raises(NotehubError, match="asks to wait 3000 s"):
        ask(api, clock, lambda hub: hub.devices())


@pytest.mark.parametrize("kind", ["status", "reset", "lose"])
@pytest.mark.parametrize("call", ["upload", "start", "create"])
def test_what_must_not_happen_twice_is_left_to_the_caller(kind, call):
    api, clock = service(1)
    work = {
        "upload": lambda hub: hub.upload("app.binpack", binpack()),
        "start": lambda hub: hub.start_update("x", FIRST),
        "create": lambda hub: hub.create_route({"type": "http"}),
    }[call]
    if call == "start":
        ask(api, clock, lambda hub: hub.upload("x.bin", b"1"))
        api.project.firmware["x"] = next(iter(api.project.firmware.values()))
    api.faults, api.requests = [Fault(kind)], []
    with pytest.raises(UncertainError):
        ask(api, clock, work)
    assert len(api.requests) == 1
    carried_out = {"upload": api.project.firmware, "start": simulated(api)[ONE].offered, "create": api.project.routes}[
        call
    ]
    assert len(carried_out) == (kind == "lose")


def test_429_is_no_uncertainty():
    api, clock = service(1, faults=[Fault("status", status=429, retry_after="20")])
    assert ask(api, clock, lambda hub: hub.upload("app.binpack", binpack())).version == "2.0.0"
    assert clock.s - START_S == 20
    assert len(api.project.firmware) == 1


def test_nobody_there():
    from judder.notehub import connected

    clock = Clock()

    async def work():
        async with connected("t", "p", "http://127.0.0.1:9", sleep=clock.sleep) as hub:
            await hub.upload("x", b"1")

    with pytest.raises(NotehubError, match="no answer") as raised:
        asyncio.run(work())
    assert not isinstance(raised.value, UncertainError)  # it was never sent


def test_partial_answers_lose_devices_and_members():
    api, clock = service(6)
    simulated(api)[ONE].version = "1.5.0"
    api.faults = [Fault("partial", "/dfu/host/status")]
    found = ask(api, clock, lambda hub: hub.update_statuses())
    assert [bool(one.version) for one in found] == [True, True, True, True]
    assert len(found) == 4
    assert len(ask(api, clock, lambda hub: hub.update_statuses())) == 6


def test_the_last_phase_is_the_latest_in_whatever_order_they_come():
    phases = [{"phase": "updating", "datetime": "2026-05-04T12:01:00Z"}, {"phase": "downloading", "datetime": ""}]
    for updates in (phases, phases[::-1]):
        status = UpdateStatus.of({"device_uid": ONE, "status": {"updates": updates}})
        assert (status.phase, status.since) == ("updating", "2026-05-04T12:01:00Z")
    for members in ({}, {"status": None, "current": None}, {"status": {"updates": None}}):
        assert UpdateStatus.of({"device_uid": ONE, **members}) == UpdateStatus(ONE)


def test_answers_that_are_not_as_described():
    from aiohttp import web

    from judder.emulator.edge_impulse import listening
    from judder.notehub import connected

    answers = [web.Response(text="<html>hello</html>"), web.json_response([]), web.json_response({"devices": [{}]})]
    app = web.Application()

    async def answer(request):
        return answers.pop(0)

    app.router.add_get("/{path:.*}", answer)

    async def work():
        async with listening(app) as url, connected("t", "p", url) as hub:
            for _ in range(3):
                with pytest.raises(NotehubError, match="not as Notehub describes"):
                    await hub.devices()

    asyncio.run(work())


# --- a card -----------------------------------------------------------------------------------------------------------


def card(clock, send=lambda request: WebResponse(200), **hub):
    made = Notecard(clock, send, hub={"mode": "continuous", "sync": True, "product": "p", **hub})
    clock.sleep(20_000_000_000)
    made.agenda.advance()
    return made


def say(made, clock, **request):
    made.feed(json.dumps(request).encode() + b"\n")
    clock.sleep(1_000_000_000)
    reply = b""
    while made.available():
        reply += made.read(255)
    return json.loads(reply)


def test_a_card_takes_part():
    clock = VirtualClock()
    made = card(clock)
    project = Project(lambda: clock.utc_ns() / 1e9)
    project.variables = {"ODR_HZ": "400"}
    project.add(Entry(CardDevice(made), "pump-3"))
    api, uid = NotehubApi(project, TOKEN), made.device

    async def work(hub):
        assert say(made, clock, req="env.get", name="ODR_HZ")["text"] == "400"
        await hub.set_variables(Scope("device", uid), {"ODR_HZ": "100"})
        assert say(made, clock, req="env.get", name="ODR_HZ")["text"] == "100"
        await hub.unset_variable(Scope("device", uid), "ODR_HZ")
        assert say(made, clock, req="env.get", name="ODR_HZ")["text"] == "400"
        await hub.send_note(uid, "capture.qi", {"id": "7"})
        assert say(made, clock, req="note.get", file="capture.qi", delete=True)["body"] == {"id": "7"}
        assert await hub.signal(uid, {"capture": "8"})
        assert made.signals[0] == {"capture": "8"}
        say(made, clock, req="note.add", file="capture.qo", body={"id": "7"}, sync=True)
        clock.sleep(5_000_000_000)
        made.agenda.advance()
        events, _ = await hub.events(["capture.qo"])
        assert [(one["device"], one["sn"], one["body"]) for one in events] == [(uid, "pump-3", {"id": "7"})]
        assert len((await hub.events(["capture.qo"]))[0]) == 1  # not once more
        say(made, clock, req="dfu.status", on=True, version={"version": "1.0", "description": "model 5b1f00c2"})
        clock.sleep(5_000_000_000)
        made.agenda.advance()
        status = await hub.update_status(uid)
        assert (status.version, status.model) == ("1.0", "5b1f00c2")
        kept = await hub.upload("app.bin", bytes(40_000), "2.0")
        await hub.start_update(kept.name, {"serialNumber": ["pump-3"]})
        assert (await hub.update_status(uid)).phase == "requested"
        say(made, clock, req="dfu.status")
        assert (await hub.update_status(uid)).phase == "downloading"
        clock.sleep(5_000_000_000)
        assert say(made, clock, req="dfu.status")["mode"] == "ready"
        assert (await hub.update_status(uid)).phase == "ready"
        say(made, clock, req="dfu.status", stop=True, status="done", version="2.0")
        say(made, clock, req="hub.sync")
        status = await hub.update_status(uid)
        assert (status.phase, status.version, status.in_progress) == ("completed", "2.0", False)

    ask(api, Clock(), work)


def test_a_cards_download_is_called_off():
    clock = VirtualClock()
    made = card(clock)
    project = Project(lambda: clock.utc_ns() / 1e9)
    project.add(Entry(CardDevice(made)))

    async def work(hub):
        kept = await hub.upload("app.bin", bytes(400_000), "2.0")
        await hub.start_update(kept.name, {"deviceUID": [made.device]})
        say(made, clock, req="dfu.status")
        assert (await hub.update_status(made.device)).phase == "downloading"
        await hub.cancel_update({"deviceUID": [made.device]})
        clock.sleep(60_000_000_000)
        assert say(made, clock, req="dfu.status")["mode"] == "idle"
        assert (await hub.update_status(made.device)).phase == "cancelled"

    ask(NotehubApi(project, TOKEN), Clock(), work)


def test_a_board_posts_through_a_route_that_was_made_by_the_api(tmp_path):
    """And only with the token that the route adds."""
    hub = Hub()
    with serving(Config(data=tmp_path, port=0, ingest_token="t0")) as server:
        bench = Bench(Machine.demo(), hub.send, seed=1, settings={"CAPTURE_EVERY_S": 60})
        project = Project(lambda: bench.clock.utc_ns() / 1e9, hub=hub)
        project.add(Entry(CardDevice(bench.notecard), "pump-3"))
        api = NotehubApi(project, TOKEN)
        for token, change in (("old", False), ("t0", True)):
            wanted = routes.proxy(server.url, token)
            ask(api, Clock(), lambda client, wanted=wanted, change=change: routes.bring(client, wanted, change=change))
            if not change:
                assert hub.send(WebRequest("POST", "ingest", "/ingest", "application/json", b"{}")).status == 401
        with bench:
            bench.run(windows=2)
        assert sum(server.queue.counts().values()) == 2
    logs = ask(api, Clock(), lambda client: client.route_logs(next(iter(project.routes))))
    assert [one["status"] for one in logs[:2]] == ["401", "200"]


# --- a foreign client -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("notehub_py") is None, reason="notehub-py is not installed")
@pytest.mark.filterwarnings("ignore")
def test_blues_own_client_gets_along():
    import notehub_py
    from notehub_py.exceptions import NotFoundException

    api, clock = service(3)
    data = binpack("2.0.0")
    with background(lambda: running(api)):
        configuration = notehub_py.Configuration(host=api.url, access_token=TOKEN)
        with notehub_py.ApiClient(configuration) as client:
            project, device = notehub_py.ProjectApi(client), notehub_py.DeviceApi(client)
            uid = api.project.uid
            info = project.upload_firmware(uid, "host", "app.binpack", data, version="2.0.0")
            assert (info.md5, info.version) == (hashlib.md5(data).hexdigest(), "2.0.0")
            assert [one.filename for one in project.get_firmware_info(uid, firmware_type="host")] == [info.filename]
            request = notehub_py.DfuActionRequest(filename=info.filename)
            project.perform_dfu_action(uid, "host", "update", device_uid=[ONE, TWO], dfu_action_request=request)
            clock.s += 100
            page = project.get_devices_dfu_status(uid, "host", fleet_uid=machines(api), page_size=2)
            assert [(one.device_uid, one.current.version) for one in page.devices] == [(ONE, "2.0.0"), (TWO, "2.0.0")]
            assert page.has_more
            assert page.devices[0].status.updates[-1].phase == "completed"
            assert project.get_device_dfu_history(uid, ONE, "host").history[0].requested_version == "2.0.0"
            variables = notehub_py.EnvironmentVariables(environment_variables={"ODR_HZ": "400"})
            device.set_device_environment_variables(uid, ONE, variables)
            assert device.get_device_environment_variables(uid, ONE).environment_variables == {"ODR_HZ": "400"}
            tree = device.get_device_environment_hierarchy(uid, ONE)
            assert tree.children[0].children[0].variables[0].key == "ODR_HZ"
            assert device.get_devices(uid, page_size=50).devices[0].serial_number == "machine-000"
            device.add_qi_note(uid, ONE, "capture.qi", notehub_py.NoteInput(body={"id": "1"}))
            clock.s += 100
            events = notehub_py.EventApi(client).get_events_by_cursor(uid, files="capture.qo")
            assert events.events[0].body["id"] == "1"
            with pytest.raises(NotFoundException):
                device.get_device(uid, "dev:none")
    paths = [urlsplit(one.path) for one in api.requests if "/dfu/host/update" in one.path]
    assert parse_qsl(paths[0].query) == [("deviceUID", ONE), ("deviceUID", TWO)]
