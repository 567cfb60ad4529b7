"""The wheel as a user gets it: built, installed alone into an empty environment, run."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments, cwd):
    ended = subprocess.run(list(map(str, arguments)), cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_carries_the_board_s_tree_and_the_libraries_with_their_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    board = "judder/_board/"
    for name in ("boot.py", "device/main.py", "device/node/window.py", "device/settings.example.toml"):
        assert board + name in names
    for name in ("adafruit_lis3dh.py", "adafruit_bus_device/i2c_device.py", "notecard/notecard.py"):
        assert f"{board}device/lib/{name}" in names
    licences = [name for name in names if name.startswith(board) and "LICENSE" in name.upper()]
    assert len(licences) >= 3
    assert not [name for name in names if "tests/" in name or name.endswith(".pyc")]


@pytest.mark.slow
def test_installed_alone_the_demo_runs_and_without_app_only_the_decoder_does(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env" / "bin"
    run(binaries / "pip", "install", "--quiet", wheel, cwd=tmp_path)
    assert run(binaries / "python", "-c", "import judder; print(judder.decode.__name__)", cwd=tmp_path) == "decode\n"
    bare = subprocess.run([binaries / "judder"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert bare.returncode == 1
    assert "pip install 'judder[app]'" in bare.stderr
    run(binaries / "pip", "install", "--quiet", f"{wheel}[app]", cwd=tmp_path)
    report = json.loads(run(binaries / "judder", "demo", "--windows", 5, "--json", cwd=tmp_path))
    assert report["windows_captured"] == report["windows_stored"] == 5
    assert report["lost"] == report["duplicates"] == 0
