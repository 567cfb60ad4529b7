"""`judder model` on a shell's level: what is printed, what is written, and what is refused in one line."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tests.frames import encode, window
from tests.vibration import counts, recorded
from typer.testing import CliRunner

from judder import decode
from judder.cli import app
from judder.emulator.machine import Service
from judder.queue import Queue
from judder.records import entry
from node.model import Model as OnBoard

SERVICE = Service(seed=1)
ILL = replace(SERVICE, defect="bearing", defect_factor=1.4)


def judder(*arguments, code=0):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def refused(*arguments):
    done = judder(*arguments, code=2)
    assert done.stderr.count("\n") == 1
    return done.stderr.strip()


def export(path, windows, **less):
    arrays = {
        "acceleration": np.stack([one.acceleration for one in windows]),
        "unit": "m/s2",
        "interval_s": np.array([one.interval_s for one in windows]),
        "label": np.array([one.label for one in windows]),
        "device": np.array([one.device for one in windows]),
        "boot": np.arange(len(windows), dtype=np.uint32),
        "sequence": np.zeros(len(windows), np.uint32),
        "taken_at": np.array([one.taken.isoformat() for one in windows]),
        "flags": np.zeros(len(windows), int),
        "full_scale_g": np.full(len(windows), 2),
    }
    np.savez(path, **{name: array for name, array in (arrays | less).items() if array is not None})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("models")
    healthy = recorded(SERVICE, np.arange(130) * 600.0, 1)
    ill = recorded(ILL, 7e6 + np.arange(30) * 600.0, 2, "bearing")
    export(found / "healthy.npz", healthy)
    export(found / "ill.npz", ill)
    export(found / "both.npz", [*(replace(one, label="normal") for one in healthy), *ill])
    judder("model", "train", found / "healthy.npz", "--fft", 16, "--out", found / "model.bin")
    return found


def frames(number=100, source=SERVICE):
    texts = ["dev:1", "judder 0.1.0", "", "5b1f00c2", "", ""]
    for sequence, found in enumerate(counts(source, np.arange(number) * 600.0, 5)):
        started_us = 1_777_852_800_000_000 + sequence * 600_000_000
        fields = {"boot": 1, "sequence": sequence, "interval_ns": 729_458, "started_at_us": started_us}
        yield encode(window(found.ravel().tolist(), **fields), texts)


def test_train_for_people(folder):
    out = folder / "people.bin"
    told = judder("model", "train", folder / "both.npz", "--fft", 16, "--out", out, "--name", "pump 3")
    text = " ".join(told.stdout.split())
    assert "pump 3" in text
    assert "130 normal" in text
    assert "false alarms" in text
    assert "z rms above 250 Hz" in text
    assert "< threshold" in told.stdout
    assert told.stderr.strip().endswith("other days may differ by more")
    OnBoard(io.BytesIO(out.read_bytes())).prove()


def test_train_for_programs(folder):
    out = folder / "programs.bin"
    found = json.loads(judder("model", "train", folder / "healthy.npz", "--fft", 16, "--out", out, "--json").stdout)
    assert (found["windows"], found["left_out"], found["file"]) == (130, {}, str(out))
    assert found["bytes"] == len(out.read_bytes())
    assert out.read_bytes() == (folder / "model.bin").read_bytes()
    assert set(found["scores"]) == {"training", "held out"}
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_train_selects(folder):
    options = ("--fft", 16, "--json", "--out", folder / "selected.bin")
    found = json.loads(judder("model", "train", folder / "both.npz", "--label", "normal", *options).stdout)
    assert found["labels"] == {"normal": 130}
    found = json.loads(judder("model", "train", folder / "healthy.npz", "--since", "2026-05-04T08:00", *options).stdout)
    assert found["windows"] == 82
    assert "no window fits" in refused("model", "train", folder / "both.npz", "--device", "dev:2")


def test_a_refusal_leaves_the_file_alone(folder):
    out = folder / "kept.bin"
    out.write_bytes(b"before")
    assert "126 are needed" in refused("model", "train", folder / "ill.npz", "--out", out)
    assert "--normal no" in refused("model", "train", folder / "both.npz", "--normal", "no", "--out", out)
    assert "--rate-hz" in refused("model", "train", folder / "both.npz", "--rate-hz", 1000, "--out", out)
    assert out.read_bytes() == b"before"
    lost = folder / "nowhere" / "model.bin"
    assert "No such file" in refused("model", "train", folder / "healthy.npz", "--fft", 16, "--out", lost)


def test_files_that_are_no_windows(folder):
    path = folder / "other.npz"
    for less, why in (
        ({"interval_s": None}, "not an npz of judder export"),
        ({"acceleration": np.zeros((130, 5, 2))}, "not (k, n, 3)"),
        ({"unit": "g"}, "in g, not in m/s2"),
        ({"label": np.array(["a"])}, "label is of shape (1,), for 130 windows"),
        ({"interval_s": np.zeros(3)}, "3 intervals for 130 windows"),
        ({"taken_at": np.array(["soon"] * 130)}, "not an npz of judder export"),
    ):
        export(path, recorded(SERVICE, np.zeros(130), samples=16), **less)
        assert why in refused("model", "train", path)
    path.write_bytes(b"nothing")
    assert "no window in it" in refused("model", "train", path)
    assert "No such file" in refused("model", "train", folder / "absent.npz")
    assert "no model file" in refused("model", "inspect", path)
    assert "No such file" in refused("model", "run", folder / "absent.bin", path)


def test_older_exports_do_not_know_the_full_scale(folder):
    older = dict.fromkeys(("full_scale_g", "flags", "label", "device", "boot", "sequence", "taken_at"))
    path = export(folder / "older.npz", recorded(SERVICE, np.arange(80) * 600.0, 1), **older)
    out = folder / "older.bin"
    judder("model", "train", path, "--fft", 16, "--out", out)
    assert json.loads(judder("model", "inspect", out, "--json").stdout)["full_scale_g"] is None
    judder("model", "run", out, folder / "healthy.npz")
    assert "unknown range" in judder("model", "run", folder / "model.bin", path, code=1).stdout


def test_run_for_people_and_programs(folder):
    found = json.loads(judder("model", "run", folder / "model.bin", folder / "ill.npz", "--json").stdout)
    assert sum(one["event"] for one in found["windows"]) >= 28
    assert found["drift"][0]["feature"].endswith("rms above 250 Hz")
    told = judder("model", "run", folder / "model.bin", folder / "ill.npz", folder / "healthy.npz").stdout
    assert "160 windows scored" in told
    assert "moved most" in told


def test_run_says_what_is_unfit(folder):
    path = folder / "frames"
    gap = recorded(SERVICE, np.arange(3) * 600.0)
    export(folder / "odd.npz", gap, flags=np.array([1, 2, 0]), interval_s=np.array([1, 1 / 900, 1 / 1371]))
    found = json.loads(judder("model", "run", folder / "model.bin", folder / "odd.npz", "--json").stdout)["windows"]
    assert [one["unfit"] for one in found] == [
        "gaps in the window",
        "trained at 1371 Hz, this window has 900 Hz",
        None,
    ]
    path.write_bytes(b"".join(frames(3)))
    found = json.loads(judder("model", "run", folder / "model.bin", path, "--json").stdout)
    assert [one["unfit"] for one in found["windows"]] == [None] * 3
    assert found["windows"][1]["taken_at"] == "2026-05-04T00:10:00+00:00"


def test_train_and_run_on_the_store(folder, tmp_path):
    with Queue(tmp_path) as queue:
        queue.put([entry(decode(body)[0]) for body in frames()]).result(10)
    out, npz = tmp_path / "model.bin", tmp_path / "set.npz"
    found = json.loads(
        judder("model", "train", "--data", tmp_path, "--fft", 16, "--out", out, "--json").stdout,
    )
    assert (found["windows"], found["device_days"]) == (100, 1)
    judder("export", "--npz", npz, "--data", tmp_path)
    with np.load(npz) as arrays:
        assert set(arrays["full_scale_g"]) == {2}
    again = tmp_path / "again.bin"
    judder("model", "train", npz, "--fft", 16, "--out", again)
    assert again.read_bytes() == out.read_bytes()
    assert len(json.loads(judder("model", "run", out, "--data", tmp_path, "--json").stdout)["windows"]) == 100
    assert "queue status" in refused("model", "run", out, "--data", tmp_path, "--device", "dev:9")


def test_inspect(folder):
    found = json.loads(judder("model", "inspect", folder / "model.bin", "--json").stdout)
    assert (found["features"], found["clustered_features"], found["directions"], found["clusters"]) == (42, 39, 26, 1)
    assert found["blocks"][1]["cutoff_hz"] == 250
    assert "high-pass 250 Hz" in " ".join(judder("model", "inspect", folder / "model.bin").stdout.split())


def test_without_scikit_learn_one_line_says_what_to_install(folder):
    hidden = "import sys; sys.modules.update(sklearn=None, scipy=None, threadpoolctl=None)"
    script = f"{hidden}; from judder.cli import app; app()"
    arguments = [
        sys.executable,
        "-c",
        script,
        "model",
        "train",
        folder / "healthy.npz",
        "--fft",
        "16",
        "--out",
        folder / "none.bin",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("is missing: pip install 'judder[model]'")
    assert len(done.stderr.splitlines()) == 1
