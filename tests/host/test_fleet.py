"""`judder release`, `route`, `env` and `capture` as their users meet them, on an emulated Notehub."""

import json
import os
import signal
import struct
import subprocess
import sys
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests import models
from tests.fleet import START_S, TOKEN, ask, binpack, sent, service, simulated
from typer.testing import CliRunner

from judder import cli_fleet, environment, fat12
from judder import route as routes
from judder.background import background
from judder.binpack import MARKER, Binpack, Part, pack
from judder.board import SLOTS, board_settings
from judder.cli import app
from judder.code import GUARD_BYTES, HEAD_BYTES
from judder.emulator.notecard.twin import Event
from judder.emulator.notehub import Notehub as Hub
from judder.emulator.notehub_api import Fault, running
from judder.emulator.simulated_device import Fate
from judder.inspection import FS_ONLY_WARNING
from judder.notehub import Device, NotehubError
from judder.program import DRIVE
from judder.update import Kind, Update
from node import settings as on_board

HZ = "10, 25, 50, 100, 200, 400, 1344"
ONE, TWO, THREE = (f"dev:86447504000000{number}" for number in range(3))


@pytest.fixture
def fleet(monkeypatch, tmp_path):
    """Three devices on a Notehub that the commands are told of, on time that nobody waits for."""
    api, clock = service(3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_fleet, "now_s", clock.now_s)
    monkeypatch.setattr(cli_fleet, "sleep", clock.sleep)
    with background(lambda: running(api)):
        for name, value in (("TOKEN", TOKEN), ("PROJECT", api.project.uid), ("URL", api.url)):
            monkeypatch.setenv(f"JUDDER_NOTEHUB_{name}", value)
        api.clock = clock
        yield api


def judder(*arguments, code=0):
    done = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    assert TOKEN not in done.output
    return done


def told(*arguments, code=0):
    return json.loads(judder(*arguments, "--json", code=code).stdout)


def refused(*arguments):
    done = judder(*arguments, code=2)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr.strip()


def changes(api):
    """The requests that change something."""
    return [one for one in sent(api) if one[0] != "GET"]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "app.binpack"
    path.write_bytes(binpack("2.0.0"))
    return path


# --- access -----------------------------------------------------------------------------------------------------------


def test_access_is_asked_for(fleet, monkeypatch):
    monkeypatch.setenv("JUDDER_NOTEHUB_TOKEN", "wrong")
    assert "401" in refused("env", "get", "--project")
    monkeypatch.setenv("JUDDER_NOTEHUB_TOKEN", "two words")
    assert "copy it from Notehub again" in refused("env", "get", "--project")
    monkeypatch.delenv("JUDDER_NOTEHUB_TOKEN")
    assert "set JUDDER_NOTEHUB_TOKEN" in refused("env", "get", "--project")
    monkeypatch.setenv("JUDDER_NOTEHUB_TOKEN", TOKEN)
    monkeypatch.setenv("JUDDER_NOTEHUB_PROJECT", "app:other")
    assert "JUDDER_NOTEHUB_PROJECT" in refused("env", "get", "--project")
    monkeypatch.delenv("JUDDER_NOTEHUB_PROJECT")
    assert "set JUDDER_NOTEHUB_PROJECT" in refused("env", "get", "--project")
    assert TOKEN not in judder("config", "check").output


def test_the_product_is_a_name_of_the_project_too(fleet, monkeypatch):
    monkeypatch.setenv("JUDDER_NOTEHUB_PROJECT", fleet.project.product)
    assert told("env", "get", "--project") == {"project": {}}


def test_trouble_of_notehub_is_no_wrong_call(fleet):
    fleet.faults = [Fault("status", times=100)]
    assert "503" in judder("env", "get", "--project", code=1).stderr


# --- release ----------------------------------------------------------------------------------------------------------


def test_a_release_from_push_to_rollback(fleet, file, tmp_path):
    old = tmp_path / "old.binpack"
    old.write_bytes(binpack("1.0.0"))
    ask_uploaded(fleet, old)
    found = told("release", "push", file, "--fleet", "machines", "--wave", "40,100")
    assert (found["state"], found["version"], found["failing"]) == ("done", "2.0.0", [])
    assert [wave["devices"] for wave in found["waves"]] == [2, 1]
    assert found["file"] == f"judder-data/releases/{found['release']}.json"
    rows = told("release", "status")["devices"]
    assert {(row["phase"], row["version"]) for row in rows} == {("done", "2.0.0")}
    shown = judder("release", "status", found["release"]).stdout
    assert "firmware 2.0.0: done" in shown
    assert "machine-001" in shown
    assert judder("release", "watch").stdout.startswith("firmware 2.0.0: done")

    fleet.faults = [Fault("corrupt", "/firmware/host/", "GET")]
    assert "another md5" in refused("release", "rollback")
    planned = told("release", "rollback", "--dry-run")["calls"]
    assert [one["method"] for one in planned] == ["POST"]
    back = told("release", "rollback")
    assert (back["state"], back["version"], back["release"] != found["release"]) == ("done", "1.0.0", True)
    forth = told("release", "rollback", back["release"], "--to", "2.0.0")
    assert forth["state"] == "done"
    assert told("release", "rollback", "--to", old)["state"] == "done"
    assert len(sent(fleet, "PUT")) == 1  # the older file is there already
    assert all(len(device.offered) == 4 for device in simulated(fleet).values())


def calls_of(found):
    """The last word of each path."""
    return [one["path"].partition("?")[0].rpartition("/")[2] for one in found["calls"]]


def versions(api):
    return {device.running()["version"] for device in simulated(api).values()}


def test_going_back_twice_does_not_go_forth(fleet, file):
    fleet.project.keep("old.binpack", binpack("1.0.0"), "", "")
    bad = told("release", "push", file, "--fleet", "machines")["release"]
    backs = [told("release", "rollback") for _ in range(2)]
    assert [one["version"] for one in backs] == ["1.0.0"] * 2
    assert versions(fleet) == {"1.0.0"}
    assert json.loads(Path(backs[1]["file"]).read_text())["rolls_back"] == bad
    assert told("release", "rollback", backs[0]["release"])["version"] == "2.0.0"  # what it has undone


def test_an_interrupted_rollback_goes_on(fleet, file):
    fleet.project.keep("old.binpack", binpack("1.0.0"), "", "")
    told("release", "push", file, "--fleet", "machines")
    first = told("release", "rollback", "--no-wait")
    assert first["state"] == "running"
    done = judder("release", "rollback", "--dry-run")
    assert done.stdout == "nothing to do\n"  # all are started
    assert done.stderr == f"judder: {first['release']} was interrupted and goes on as it was planned\n"
    again = told("release", "rollback")
    assert (again["release"], again["state"], versions(fleet)) == (first["release"], "done", {"1.0.0"})
    assert [len(device.offered) for device in simulated(fleet).values()] == [2] * 3


def test_a_dry_run_shows_how_a_release_under_way_would_be_undone(fleet, file):
    fleet.project.keep("old.binpack", binpack("1.0.0"), "", "")
    told("release", "push", file, "--fleet", "machines", "--no-wait")
    before = changes(fleet)
    assert calls_of(told("release", "rollback", "--dry-run")) == ["cancel", "update"]
    assert changes(fleet) == before
    assert told("release", "status")["state"] == "running"
    assert told("release", "rollback")["state"] == "done"


def test_a_release_kept_elsewhere_is_rolled_back_there(fleet, file, tmp_path):
    fleet.project.keep("old.binpack", binpack("1.0.0"), "", "")
    told("release", "push", file, "--device", ONE, "--state", tmp_path / "mine.json")
    told("release", "push", file, "--device", TWO)
    back = told("release", "rollback", "--state", tmp_path / "mine.json", "--no-wait")
    assert back["file"] == str(tmp_path / "mine-back.json")
    assert told("release", "rollback", "--state", tmp_path / "mine.json")["state"] == "done"
    assert told("release", "status", "--state", tmp_path / "mine.json")["version"] == "2.0.0"
    assert [device.running()["version"] for device in simulated(fleet).values()] == ["1.0.0", "2.0.0", "1.0.0"]
    assert len(simulated(fleet)[ONE].offered) == 2
    assert "No such file" in refused("release", "rollback", "--state", tmp_path / "none.json")


def ask_uploaded(api, path):
    """Put a file into Notehub as somebody else would."""
    api.project.keep(path.name, path.read_bytes(), "", "")


def test_a_bad_release_names_who_fails(fleet, file):
    simulated(fleet)[TWO].fate = Fate.ERROR
    done = judder("release", "push", file, "--fleet", "machines", "--timeout-min", 5, code=1)
    assert "firmware 2.0.0: stopped, 1 of 3 devices of wave 1 do not report firmware 2.0.0 after 5 min" in done.stdout
    assert f"judder: {TWO} machine-001 does not report it: error, runs 1.0.0\n" in done.stderr
    assert "wave 1: 2 of 3" in done.stderr
    found = told("release", "watch", code=1)
    assert [row["device"] for row in found["failing"]] == [TWO]
    assert not sent(fleet, "POST")[2:]


def test_an_interrupted_push_goes_on(fleet, file):
    first = told("release", "push", file, "--fleet", "machines", "--wave", "40,100", "--no-wait")
    assert first["state"] == "running"
    second = told("release", "push", file, "--fleet", "machines", "--wave", "40,100", "--no-wait")
    assert second["release"] == first["release"]
    assert "is under way on these devices" in refused("release", "push", file, "--fleet", "machines")
    assert told("release", "watch")["state"] == "done"
    assert [len(device.offered) for device in simulated(fleet).values()] == [1, 1, 1]
    third = told("release", "push", file, "--fleet", "machines", "--wave", "40,100")
    assert third["release"] == f"{first['release']}-2"


def test_a_release_is_cancelled(fleet, file):
    told("release", "push", file, "--fleet", "machines", "--no-wait")
    before = len(changes(fleet))
    calls = told("release", "cancel", "--dry-run")["calls"]
    assert [one["path"].partition("?")[0].rpartition("/")[2] for one in calls] == ["cancel"]
    assert len(changes(fleet)) == before
    assert judder("release", "cancel").stdout.startswith("firmware 2.0.0: cancelled")
    fleet.clock.s += 1000
    assert {device.running()["version"] for device in simulated(fleet).values()} == {"1.0.0"}


def test_a_dry_run_says_what_would_be_called(fleet, file, tmp_path):
    before = set(tmp_path.iterdir())
    done = judder("release", "push", file, "--fleet", "machines", "--wave", "40,100", "--dry-run")
    lines = done.stdout.splitlines()
    uid = fleet.project.uid.replace(":", "%3A")
    assert lines[0] == f'PUT /v1/projects/{uid}/firmware/host/app.binpack?version=2.0.0  "{len(binpack())} bytes"'
    assert lines[1].startswith(f"POST /v1/projects/{uid}/dfu/host/update?deviceUID=dev%3A")
    assert lines[1].endswith('{"filename": "(name at Notehub).binpack"}')
    assert [line.count("deviceUID=") for line in lines[1:]] == [2, 1]
    assert set(tmp_path.iterdir()) == before
    for command in (
        ("env", "set", "ODR_HZ=400", "--fleet", "machines"),
        ("env", "unset", "ODR_HZ", "--device", ONE),
        ("route", "http://127.0.0.1:8080"),
        ("capture", ONE, "machine-001"),
        ("capture", ONE, "--signal", "--wait"),
    ):
        assert told(*command, "--dry-run")["calls"]
    assert changes(fleet) == []


def test_releases_that_are_refused(fleet, file, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(b"what is this")
    for arguments, why in (
        ((file,), "say for whom"),
        ((file, "--fleet", "a", "--tag", "b"), "in one way"),
        ((file, "--fleet", "none"), "it has machines"),
        ((other, "--fleet", "machines"), "no file that boards take"),
        ((tmp_path / "absent", "--fleet", "machines"), "No such file"),
        ((file, "--fleet", "machines", "--percent", 5, "--wave", "5"), "one of --percent and --wave"),
        ((file, "--fleet", "machines", "--wave", "a"), "rising percentages"),
        ((file, "--fleet", "machines", "--wave", "50,20"), "rising percentages"),
        ((file, "--fleet", "machines", "--max-failed", "some"), "--max-failed some"),
        ((file, "--fleet", "machines", "--version", "3"), "leave --version 3 out"),
    ):
        assert why in refused("release", "push", *arguments)
    assert "no release of" in refused("release", "status")
    assert changes(fleet) == []
    told("release", "push", file, "--device", ONE)
    assert "there are 2.0.0-" in refused("release", "watch", "other")
    assert "no file of version 1.0.0" in refused("release", "rollback")
    assert "no file of version 9" in refused("release", "rollback", "--to", "9")


def test_a_model_is_released_if_boards_run_it(fleet, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(models.drawn().to_bytes())
    found = told("release", "push", path, "--tag", "lab")
    assert found["state"] == "done"
    assert found["model"] == f"{struct.unpack('<I', path.read_bytes()[-4:])[0]:08x}"
    assert [device.model for device in simulated(fleet).values()] == [found["model"]] * 2 + [""]
    path.write_bytes(models.drawn(blocks=(models.spectral(fft=2048),), classes=()).to_bytes())
    assert "boards would refuse model" in refused("release", "push", path, "--tag", "lab")


def test_what_is_damaged_is_not_released(fleet, file):
    whole = file.read_bytes()
    told("release", "push", file, "--device", ONE)
    before = len(changes(fleet))
    room = SLOTS["model-a.bin"] - HEAD_BYTES - GUARD_BYTES
    large = models.drawn(hidden=(40, 10)).to_bytes()
    assert len(large) > room
    for content, why in (
        (whole[:-1], "its header describes"),
        (whole.replace(b"\x0a\x20", b"\x0b\x20"), "is damaged"),
        (large, f"app.binpack: its content has {len(large)} bytes, and a board's slot takes {room}"),
        (Update(Kind.CODE, "1.0.0", bytes(512)).to_bytes(), "the drive is damaged"),
    ):
        file.write_bytes(content)
        assert why in refused("release", "push", file, "--device", TWO)
        assert why in refused("release", "rollback", "--to", file)
    assert len(changes(fleet)) == before


def test_of_an_image_of_the_drive_alone_the_risk_is_told(fleet, file):
    drive = Part(DRIVE.name, DRIVE.address, fat12.volume({"main.py": b"print()"}, sectors=64))
    info = MARKER + '{"product":"other","version":"2.0.0"}'
    file.write_bytes(pack(Binpack(datetime(2026, 5, 4, tzinfo=UTC), "stm32", [drive], info)))
    done = judder("release", "push", file, "--fleet", "machines", "--dry-run", "--json")
    assert done.stderr == f"judder: {FS_ONLY_WARNING}\n"
    assert calls_of(json.loads(done.stdout)) == ["app.binpack", "update"]


def test_a_version_stands_for_one_file(fleet, file, tmp_path):
    told("release", "push", file, "--device", ONE)
    told("release", "push", file, "--device", TWO)
    other = tmp_path / "other.judder"
    update = Update(Kind.CODE, "2.0.0", fat12.volume({"node/node.py": b"print()"}, sectors=64))
    before = len(changes(fleet))
    for says_md5 in (True, False):
        fleet.says_md5 = says_md5
        other.write_bytes(update.to_bytes())
        line = refused("release", "push", other, "--device", THREE)
        assert "Notehub has another file of version 2.0.0 (app$" in line
        assert line.endswith("): build it under a new version")
    assert len(changes(fleet)) == before
    assert len(list(tmp_path.glob("judder-data/releases/*.json"))) == 2
    other.write_bytes(replace(update, version="2.0.1").to_bytes())
    assert told("release", "push", other, "--device", THREE)["version"] == "2.0.1"


def test_a_file_that_arrived_damaged_does_not_use_its_version_up(fleet, file):
    fleet.faults = [Fault("corrupt", method="PUT")]
    assert "nothing started" in refused("release", "push", file, "--device", ONE)
    assert told("release", "push", file, "--device", ONE)["state"] == "done"
    assert told("release", "push", file, "--device", TWO)["state"] == "done"
    assert len(sent(fleet, "PUT")) == 2


def test_releases_of_another_project_are_left_alone(fleet, file, tmp_path, monkeypatch):
    state = tmp_path / "mine.json"
    mine = told("release", "push", file, "--device", ONE)["release"]
    told("release", "push", file, "--device", TWO, "--state", state)
    uid = fleet.project.uid
    monkeypatch.setenv("JUDDER_NOTEHUB_PROJECT", fleet.project.product)
    before = len(changes(fleet))
    assert f"no release of {fleet.project.product} in" in refused("release", "rollback")
    kept_there = "--state", state
    for command in (("status", mine), ("watch", *kept_there), ("cancel", mine), ("rollback", *kept_there)):
        why = f"is of project {uid}, and JUDDER_NOTEHUB_PROJECT is {fleet.project.product}"
        assert why in refused("release", *command)
    assert len(changes(fleet)) == before
    fleet.clock.s += 1
    other = told("release", "push", file, "--device", THREE)["release"]
    monkeypatch.setenv("JUDDER_NOTEHUB_PROJECT", uid)
    assert other != mine
    assert told("release", "status")["release"] == mine


def test_a_release_kept_elsewhere(fleet, file, tmp_path):
    state = tmp_path / "mine.json"
    found = told("release", "push", file, "--device", "machine-002", "--state", state)
    assert found["file"] == str(state)
    assert told("release", "status", "--state", state)["state"] == "done"
    assert [len(device.offered) for device in simulated(fleet).values()] == [0, 0, 1]


# --- route ------------------------------------------------------------------------------------------------------------


def test_a_route_is_made_once(fleet, monkeypatch):
    fleet.project.hub = Hub()
    monkeypatch.setenv("JUDDER_INGEST_TOKEN", "t0")
    url = "http://127.0.0.1:8080"
    assert told("route", url)["did"] == "created"
    (made,) = fleet.project.routes.values()
    assert made["proxy"] == {"alias": "ingest", "url": url, "fleets": [], "http_headers": {"X-Ingest-Token": "t0"}}
    assert fleet.project.hub.routes["ingest"].headers == {"X-Ingest-Token": "t0"}
    assert "it is as it should be" in judder("route", url + "/").stdout
    assert len(fleet.project.routes) == 1
    assert told("route", url, "--alias", "other")["did"] == "created"
    assert len(fleet.project.routes) == 2


def test_a_route_that_differs_is_told_of_and_changed_when_asked(fleet, monkeypatch):
    monkeypatch.setenv("JUDDER_INGEST_TOKEN", "t0")
    headers = {"x-ingest-token": "old", "X-Other": "kept"}
    proxy = {"alias": "ingest", "url": "http://127.0.0.1:1", "http_headers": headers, "fleets": ["fleet:1"]}
    fleet.project.put_route({"type": "proxy", "label": "mine", "proxy": proxy, "disabled": True})
    fleet.project.put_route({"type": "http", "label": "events"})
    url = "http://127.0.0.1:8080"
    found = told("route", url, code=1)
    assert found["did"] == "nothing"
    assert [text.split(" ")[0] + " " + text.split(" ")[1] for text in found["differs"]] == [
        "it leads",
        "its header",
        "it is",
        "it is",
    ]
    assert "t0" not in judder("route", url, "--change", "--dry-run").stdout
    assert not changes(fleet)
    done = judder("route", url, "--change").stdout
    assert done.startswith("changed: it led to http://127.0.0.1:1 and not to http://127.0.0.1:8080; its header ")
    assert done.endswith("had another token; it was for some fleets only; it was disabled\n")
    assert told("route", url)["differs"] == []
    made = next(iter(fleet.project.routes.values()))
    assert made["label"] == "mine"
    assert made["proxy"]["http_headers"] == {"X-Other": "kept", "X-Ingest-Token": "t0"}


@pytest.mark.parametrize("token", ['a"b', "d\u00fcne", "POST"])
def test_a_dry_run_hides_the_token_and_nothing_else(fleet, monkeypatch, token):
    monkeypatch.setenv("JUDDER_INGEST_TOKEN", token)
    url = "http://127.0.0.1:8080"
    proxy = {"url": url, "alias": "ingest", "fleets": [], "http_headers": {"X-Ingest-Token": "***"}}
    body = {"type": "proxy", "label": "judder ingest", "proxy": proxy}
    path = f"/v1/projects/{fleet.project.uid.replace(':', '%3A')}/routes"
    assert told("route", url, "--dry-run")["calls"] == [{"method": "POST", "path": path, "body": body}]
    assert judder("route", url, "--dry-run").stdout == f"POST {path}  {json.dumps(body)}\n"
    headers = {"x-ingest-token": "before", "X-Other": "url"}
    fleet.project.put_route({"type": "proxy", "label": "mine", "proxy": {**proxy, "http_headers": headers}})
    (call,) = told("route", url, "--change", "--dry-run")["calls"]
    assert call["body"]["proxy"] == proxy | {"http_headers": {"X-Other": "url", "X-Ingest-Token": "***"}}


def test_a_route_whose_answer_is_lost_is_not_made_twice():
    api, clock = service(1, faults=[Fault("lose", "/routes", "POST"), Fault("status", "/routes", "POST")])
    wanted = routes.proxy("http://127.0.0.1:1", "t0")
    assert ask(api, clock, lambda hub: routes.bring(hub, wanted)).did == "nothing"
    assert len(api.project.routes) == 1
    api.faults = [Fault("status", "/routes", "POST", times=9)]
    other = routes.proxy("http://127.0.0.1:1", "t0", "other")
    with pytest.raises(NotehubError, match="503"):
        ask(api, clock, lambda hub: routes.bring(hub, other))
    for _ in range(2):
        api.project.put_route(wanted)
    with pytest.raises(NotehubError, match="3 routes with the alias ingest"):
        ask(api, clock, lambda hub: routes.bring(hub, wanted))


def test_routes_that_are_refused(fleet, monkeypatch):
    for url in ("example.com", "http://[foo", "https://foo:99999x", "https://foo:99999", "https://foo:0"):
        assert "is no URL: give one like" in refused("route", url)
    assert "leave /ingest out" in refused("route", "https://example.com/ingest")
    assert "set JUDDER_INGEST_TOKEN" in refused("route", "https://example.com")
    monkeypatch.setenv("JUDDER_INGEST_TOKEN", "t0")
    assert "use https" in judder("route", "http://example.com").stderr
    assert len(changes(fleet)) == 1


# --- env --------------------------------------------------------------------------------------------------------------


def test_the_boards_own_table_is_asked():
    assert board_settings().TABLE == on_board.TABLE
    assert environment.checked(["ODR_HZ=400", "LABEL=a=b", "LABEL="]) == {"ODR_HZ": "400", "LABEL": ""}


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("ODR_HZ=7", "ODR_HZ = 7; must be one of 10, 25"),
        ("CAPTURE_EVERY_S=0", "must be a whole number from 1 to 86400"),
        ("CAPTURE_EVERY_S=soon", "must be a whole number"),
        ("LABEL=" + "x" * 65, "65 bytes long; at most 64"),
        ("ODR=400", "no setting of the firmware; did you mean ODR_HZ?"),
        ("capture_every=60", "did you mean CAPTURE_EVERY_S?"),
        ("zzz=1", "there are ROUTE, LABEL"),
        ("=1", "a setting without a name"),
        ("ODR_HZ", "give NAME=VALUE"),
        ("PRODUCT_UID=a", "PRODUCT_UID is not set remotely"),
        ("DEVICE_SN=a", "DEVICE_SN is not set remotely"),
        ("FRAME_KEY=" + "0" * 32, "FRAME_KEY is not set remotely"),
    ],
)
def test_wrong_settings_are_refused_before_any_call(fleet, setting, why):
    assert why in refused("env", "set", "SAMPLES=512", setting, "--project")
    assert fleet.requests == []


def test_settings_are_set_and_taken_away(fleet):
    machines = next(iter(fleet.project.fleets))
    assert "say for whom" in refused("env", "set", "ODR_HZ=400")
    assert told("env", "set", "ODR_HZ=400", "SAMPLES=512", "--fleet", "machines")["scopes"] == [f"fleet {machines}"]
    told("env", "set", "ODR_HZ=100", "--device", "machine-001", "--device", ONE)
    assert [device.effective.get("ODR_HZ") for device in simulated(fleet).values()] == [100, 100, 400]
    assert told("env", "get", "--device", ONE, "--fleet", machines) == {
        f"fleet {machines}": {"ODR_HZ": "400", "SAMPLES": "512"},
        f"device {ONE}": {"ODR_HZ": "100"},
    }
    assert "512" in judder("env", "get", "--fleet", "machines").stdout
    assert "did you mean" in refused("env", "unset", "ODR", "--fleet", "machines")
    judder("env", "unset", "ODR_HZ", "SAMPLES", "--fleet", "machines")
    told("env", "unset", "ODR_HZ", "--device", ONE)
    assert [device.effective.get("ODR_HZ") for device in simulated(fleet).values()] == [None, 100, None]


def states(found):
    return {
        one["device"]: {setting["name"]: setting["state"] for setting in one["settings"]} for one in found["devices"]
    }


def test_status_says_what_is_wanted_and_what_devices_say(fleet):
    variables = {"ODR_HZ": "400", "CAPTURE_EVERY_S": "0", "_fw": "x", "COLOUR": "red"}
    fleet.project.variables.update(variables)
    fleet.project.changed()
    wanted = {"ODR_HZ": "not yet", "CAPTURE_EVERY_S": "not yet", "COLOUR": "unknown"}
    found = told("env", "status", "--fleet", "machines")
    assert states(found) == dict.fromkeys((ONE, TWO, THREE), wanted)
    assert {one["said_at"] for one in found["devices"]} == {None}
    fleet.clock.s += 60
    found = told("env", "status", "--fleet", "machines")
    assert states(found)[ONE] == {"ODR_HZ": "effective", "CAPTURE_EVERY_S": "refused", "COLOUR": "unknown"}
    one = {setting["name"]: setting for setting in found["devices"][0]["settings"]}
    assert (one["ODR_HZ"]["wanted"], one["ODR_HZ"]["effective"], one["ODR_HZ"]["scope"]) == ("400", 400, "project")
    assert one["CAPTURE_EVERY_S"]["reason"] == "CAPTURE_EVERY_S = 0; must be a whole number from 1 to 86400"
    shown = judder("env", "status", "--device", ONE).stdout
    assert [line.split()[-1] for line in shown.splitlines() if "ODR_HZ" in line] == ["effective"]
    assert "CAPTURE_EVERY_S" in shown
    assert "refused:" in shown
    told("env", "set", "CAPTURE_EVERY_S=60", "--device", ONE)
    assert states(told("env", "status", "--device", ONE))[ONE]["CAPTURE_EVERY_S"] == "not yet"
    assert states(told("env", "status", "--device", TWO))[TWO]["CAPTURE_EVERY_S"] == "refused"
    fleet.clock.s += 60
    found = told("env", "status", "--device", ONE)["devices"][0]
    (one,) = [setting for setting in found["settings"] if setting["name"] == "CAPTURE_EVERY_S"]
    assert (one["state"], one["scope"]) == ("effective", "device")


@pytest.mark.parametrize(
    ("setting", "refused", "state"),
    [
        ("ODR_HZ=7", "ODR_HZ = 7; must be one of 10, 25", "refused"),
        ("ODR_HZ=7", "ODR_HZ = 77; must be one of 10, 25", "not yet"),
        ("ODR_HZ=25", "ODR_HZ = 7; must be one of 10, 25", "not yet"),  # corrected; the device has not said so yet
        ("SAMPLES=2048", "SAMPLES = 2048; memory has no room for so many", "refused"),
        ("SAMPLES=204", "SAMPLES = 2048; memory has no room for so many", "not yet"),
        ("CAPTURE_EVERY_S=1", "CAPTURE_EVERY_S = 0; must be a whole number from 1 to 86400", "not yet"),
        ("ODR_HZ=400", "ODR_HZ can only be set on the board", "refused"),
        ("LABEL=idle", "LABEL is 65 bytes long; at most 64", "not yet"),
        ("LABEL=" + "x" * 65, "LABEL is 65 bytes long; at most 64", "refused"),
        ("LABEL=" + "x" * 66, "LABEL is 65 bytes long; at most 64", "not yet"),
        ("ODR_HZ=" + "7" * 70, f"ODR_HZ = {'7' * 64}...; must be one of {HZ}", "refused"),
        ("ODR_HZ=400", "", "not yet"),
    ],
)
def test_a_refusal_is_of_the_value_that_it_names(fleet, setting, refused, state):
    name, _, value = setting.partition("=")
    fleet.project.variables[name] = value
    say(fleet, ONE, {"settings": {}, "refused": {name: refused} if refused else {}})
    (said,) = told("env", "status", "--device", ONE)["devices"][0]["settings"]
    assert (said["state"], said["reason"] == refused) == (state, state == "refused" or not refused)


def say(api, uid, body, file="settings.qo", **members):
    """A note of the device."""
    event = api.project._event(api.project.devices[uid], Event(file, body))
    api.project.events.append(event | members)


def test_odd_notes_of_one_device_are_none(fleet):
    fleet.project.variables["ODR_HZ"] = "400"
    fleet.project.changed()
    fleet.clock.s += 60
    fleet.project.collect()
    for body in ([], {"settings": ["ODR_HZ"]}, {"settings": {}, "refused": ["ODR_HZ"]}, {"settings": 1}, None):
        say(fleet, ONE, body)
    say(fleet, TWO, {"settings": {"ODR_HZ": 400}}, when=1e300)
    found = told("env", "status", "--fleet", "machines")
    assert {uid: one["ODR_HZ"] for uid, one in states(found).items()} == dict.fromkeys((ONE, TWO, THREE), "effective")
    assert [one["said_at"] is None for one in found["devices"]] == [False, True, False]
    for sequence in (None, "x", [], 1e999):
        say(fleet, ONE, {"id": "mine", "boot": "1", "sequence": sequence}, "capture.qo")
    found = told("capture", ONE, TWO, "--id", "mine", "--wait")
    assert [(one["device"], one["sequence"]) for one in found["windows"]] == [(ONE, 0), (TWO, 0)]


def test_status_of_many_takes_few_requests():
    api, clock = service(600)
    for odr_hz in ("100", "400"):
        api.project.variables["ODR_HZ"] = odr_hz
        api.project.changed()
        clock.s += 60
        api.project.collect()
    devices = [Device(uid, "", (), "") for uid in api.project.devices]
    found = ask(api, clock, lambda hub: environment.status(hub, devices))
    assert {one.settings[0].state for one in found} == {"effective"}
    assert len(api.requests) == 3  # a tree, and two of three pages of events


# --- capture ----------------------------------------------------------------------------------------------------------


def test_captures_are_asked_for_and_answered(fleet):
    found = told("capture", ONE, "machine-001", "--wait")
    assert [one["device"] for one in found["windows"]] == [ONE, TWO]
    assert found["windows"][0]["sequence"] == 0
    posted = [one for one in fleet.requests if one.method == "POST"]
    assert [one.path.rpartition("/")[2] for one in posted] == ["capture.qi"] * 2
    assert posted[0].body == json.dumps({"body": {"id": found["id"]}}).encode()
    assert fleet.clock.s - START_S < 60
    found = told("capture", ONE, "--id", "mine", "--signal")
    assert (found["id"], found["windows"]) == ("mine", [])
    assert sent(fleet, "POST")[-1][1].endswith("/signal")
    assert "dev:864475040000000" in judder("capture", ONE, "--wait").stdout


def test_devices_that_cannot_answer(fleet):
    simulated(fleet)[TWO].connected = False
    done = judder("capture", ONE, TWO, "--signal", "--wait", code=1)
    assert f"{TWO} is not connected" in done.stderr
    assert f"{ONE} " in done.stdout
    simulated(fleet)[ONE].answer_s = 1e9
    done = judder("capture", ONE, "--wait", "--timeout-min", 2, code=1)
    assert f"{ONE} has not answered after 2 min" in done.stderr
    assert "no device dev:none" in refused("capture", "dev:none")
    assert "33 bytes" in refused("capture", ONE, "--id", "x" * 33)


# --- the stand-in -----------------------------------------------------------------------------------------------------


def test_the_emulated_notehub_serves_a_fleet():
    command = [sys.executable, "-m", "judder", "emulate", "notehub", "--port", "0", "--devices", "7", "--token", "t0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            ready = process.stdout.readline().split()
            assert ready[0] == "ready"
            project = process.stderr.readline().split()[-1]
            url = f"{ready[1]}/v1/projects/{project}/devices"
            request = urllib.request.Request(url, headers={"Authorization": "Bearer t0"})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert len(json.load(answer)["devices"]) == 7
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)
