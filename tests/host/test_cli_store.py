"""queue, label, export, config and emulate as their users meet them, beside a running server."""

import csv
import json
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from tests.frames import encode, encode_report, motor, window
from tests.host.test_cli import complaint, judder

from judder import decode, decode_frames
from judder.config import Config
from judder.queue import Queue
from judder.records import State, entry
from judder.server import background


def frame(sequence, label="", device="dev:1", **fields):
    fields = {"interval_ns": 744048, "started_at_us": 1790000000000000} | fields
    filled = window(motor(300, seed=sequence), boot=7, sequence=sequence, **fields)
    return encode(filled, [device, "", "", "", label, ""])


@pytest.fixture
def data(tmp_path):
    """A folder with one window in each state."""
    folder = tmp_path / "data"
    with Queue(folder) as queue:
        queue.put([entry(decode(frame(i, label="idle" if i < 3 else ""))[0]) for i in range(4)]).result(10)
        one, two, three, _ = queue.claim(4).result(10)
        queue.done(one.number).result(10)
        queue.dead(two.number, "bad values").result(10)
        queue.hold(three.number, "no label").result(10)
    return folder


def test_status_for_people_and_programs(data):
    shown = judder("queue", "status", "--data", data).stdout
    assert "1 x bad values" in shown
    assert "1 x no label" in shown
    found = json.loads(judder("queue", "status", "--data", data, "--json").stdout)
    assert {state: found[state] for state in State} == dict.fromkeys(State, 1)
    assert found["reasons"]["dead"] == {"bad values": 1}
    assert found["paused"] is False


def test_dead_and_replay(data):
    assert judder("queue", "dead", "--data", data).stdout == "dev:1 00000007:1  bad values\n"
    assert json.loads(judder("queue", "replay", "--data", data, "--json").stdout) == {"reopened": 1}
    assert json.loads(judder("queue", "replay", "--held", "--data", data, "--json").stdout) == {"reopened": 1}
    assert json.loads(judder("queue", "status", "--data", data, "--json").stdout)["waiting"] == 3


def test_pause_and_resume(data):
    judder("queue", "pause", "--data", data)
    assert json.loads(judder("queue", "status", "--data", data, "--json").stdout)["paused"] is True
    judder("queue", "resume", "--data", data)
    assert json.loads(judder("queue", "status", "--data", data, "--json").stdout)["paused"] is False


def test_purge_says_first_what_would_go(data):
    arguments = ("queue", "purge", "--older-than-days", 0, "--data", data, "--json")
    assert json.loads(judder(*arguments, "--dry-run").stdout) == {"purged": 0, "would_purge": 1}
    assert json.loads(judder(*arguments).stdout)["purged"] == 1
    assert json.loads(judder(*arguments, "--dead").stdout)["purged"] == 1
    assert json.loads(judder("queue", "status", "--data", data, "--json").stdout)["delivered"] == 1


def test_label_looks_at_held_windows_again(data):
    found = json.loads(judder("label", "shaft bent", "--device", "dev:*", "--data", data, "--json").stdout)
    assert found["reopened"] == 1
    with Queue(data) as queue:
        assert queue.labels()[0].label == "shaft bent"
    for arguments, reason in (
        (("label", " "), "cannot be empty"),
        (("label", "x", "--since", "yesterday"), "is no time"),
    ):
        assert reason in complaint(*arguments, "--data", data)


def test_backup_while_a_server_runs_can_be_served_from(data, tmp_path):
    with background(Config(data=data, port=0)) as server:
        judder("queue", "backup", tmp_path / "copy.sqlite", "--data", data)
        judder("queue", "status", "--data", data)
        assert server.queue.counts()[State.WAITING] == 1
    assert "exists" in complaint("queue", "backup", tmp_path / "copy.sqlite", "--data", data)
    (tmp_path / "restored").mkdir()
    (tmp_path / "copy.sqlite").rename(tmp_path / "restored" / "windows.sqlite")
    assert json.loads(judder("queue", "status", "--data", tmp_path / "restored", "--json").stdout)["waiting"] == 1


@pytest.fixture
def reported(data):
    """The same folder with reports: of the device, of a boot before, and of a device that sends nothing else."""
    bodies = (
        encode_report(
            {"captured": 9, "previous_boot": 6, "uptime_s": 7200, "bars": 3}, ["dev:1", "fw 1", *[""] * 4], 7
        ),
        encode_report(
            {"captured": 9, "lost": [[6, 0, 4, "dropped"]], "voltage_v": 5.1, "uptime_s": 10800, "waiting": 4},
            ["dev:1", "fw 2", *[""] * 4],
            7,
            (1 << 31) + 1,
        ),
        encode_report({"uptime_s": 9e18}, ["dev:[red]\x1b", *[""] * 5], 5),
    )
    with Queue(data) as queue:
        queue.put([entry(item) for body in bodies for item in decode_frames(body)]).result(10)
        queue.put([entry(decode(frame(6))[0])]).result(10)
    return data


def test_losses_for_people_and_programs(reported):
    found = json.loads(judder("queue", "losses", "--data", reported, "--device", "dev:1", "--json").stdout)["boots"]
    by_boot = {one["boot"]: one for one in found}
    assert by_boot["00000006"]["lost"] == {"dropped": 5}
    assert (by_boot["00000006"]["ended"], by_boot["00000006"]["tail_unknown"]) == (True, True)
    assert by_boot["00000006"]["seen_at"] is None
    assert by_boot["00000007"]["missing_ranges"] == [[4, 5]]
    assert {name: by_boot["00000007"][name] for name in ("captured", "stored", "on_the_way", "missing")} == {
        "captured": 9,
        "stored": 5,
        "on_the_way": 2,
        "missing": 2,
    }
    shown = judder("queue", "losses", "--data", reported, COLUMNS="160").stdout
    assert "5 dropped" in shown
    assert "cut off" in shown
    assert "\x1b" not in shown


def test_devices_for_people_and_programs(reported):
    found = json.loads(judder("devices", "--data", reported, "--json").stdout)["devices"]
    (one,) = (one for one in found if one["device"] == "dev:1")
    assert one["firmware"] == "fw 2"
    assert (one["uptime_s"], one["waiting"], one["voltage_v"], one["bars"]) == (10800, 4, 5.1, None)
    assert (one["stored"], one["missing"], one["lost"]) == (5, 2, {"dropped": 5})
    shown = judder("devices", "--data", reported, COLUMNS="160").stdout
    assert "3.0 h" in shown
    assert "dev:[red]?" in shown
    assert json.loads(judder("devices", "--data", reported, "--device", "x", "--json").stdout) == {"devices": []}


def test_export(data, tmp_path):
    found = json.loads(judder("export", "--npz", tmp_path / "x.npz", "--data", data, "--json").stdout)
    assert found["windows"] == 4
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["acceleration"].shape == (4, 300, 3)
        assert sorted(arrays["label"]) == ["", "idle", "idle", "idle"]
    shown = judder("export", "--csv", tmp_path / "x.csv", "--label", "idle", "--rate-hz", 1300, "--data", data)
    assert "3 windows" in shown.stdout
    with (tmp_path / "x.csv").open() as file:
        times = [float(row["time_s"]) for row in csv.DictReader(file) if row["sequence"] == "0"]
    assert times[1] == pytest.approx(1 / 1300)
    assert "no window fits" in complaint("export", "--npz", tmp_path / "y.npz", "--label", "none", "--data", data)
    assert "one of --npz" in complaint("export", "--data", data)


def test_a_folder_without_a_store_is_one_line(tmp_path):
    for arguments in (("queue", "status"), ("label", "x"), ("export", "--npz", "x.npz")):
        assert "no store in" in complaint(*arguments, "--data", tmp_path)


def test_config_check_shows_settings_and_no_secret(tmp_path):
    (tmp_path / "judder.toml").write_text(
        'port = 9000\n[[projects]]\nname = "pumps"\ndevices = "dev:8*"\napi_key = "ei_secret"\nrate_hz = 1344\n'
    )
    shown = judder("config", "check", cwd=tmp_path, JUDDER_INGEST_TOKEN="hush").stdout
    assert "port = 9000" in shown
    assert "delivers dev:8* to pumps at https://ingestion.edgeimpulse.com, not signed" in shown
    assert "ei_secret" not in shown
    assert "hush" not in shown
    as_json = judder("config", "check", "--json", cwd=tmp_path, JUDDER_INGEST_TOKEN="hush").stdout
    assert json.loads(as_json)["projects"][0]["name"] == "pumps"
    assert "ei_secret" not in as_json
    assert "hush" not in as_json


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("port = 99999", "port (or JUDDER_PORT)"),
        ('[[projects]]\nname = "x"\nresample = true', "resample needs rate_hz"),
        ('[[projects]]\nname = ""', "projects.0.name"),
        ('[[projects]]\nname = "x"\ntesting_fraction = 2', "projects.0.testing_fraction"),
        ('[[projects]]\nname = "x"\ncolour = 2', "projects.0.colour"),
        ('edge_impulse_url = "nowhere"', "edge_impulse_url"),
        ("= 1", "judder.toml"),
    ],
)
def test_config_check_names_what_is_wrong(tmp_path, text, reason):
    (tmp_path / "judder.toml").write_text(text)
    assert reason in complaint("config", "check", cwd=tmp_path)


def test_emulate_edge_impulse_says_ready_and_takes_windows(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-m", "judder", "emulate", "edge-impulse", "--port", "0", "--api-key", "k"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        word, url = child.stdout.readline().split()
        assert word == "ready"
        with background(
            Config(data=tmp_path / "data", port=0, edge_impulse_url=url, edge_impulse_api_key="k", default_label="x")
        ) as server:
            urllib.request.urlopen(f"{server.url}/ingest", frame(1), timeout=10).close()
            while server.queue.counts()[State.DELIVERED] != 1:
                pass
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert json.load(answer)["labels"] == {"x": 1}
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()
    assert "give ok, slow:S" in complaint("emulate", "edge-impulse", "--mode", "odd")
