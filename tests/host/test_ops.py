"""Deployment files and the page about them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from judder.config import Config, ProjectSettings

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "host" / "ops" / "judder.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_unit_is_clean(tmp_path):
    unit = tmp_path / "judder.service"
    unit.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text()))
    ended = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    complaints = [line for line in ended.stderr.splitlines() if "judder" in line]
    assert complaints == []


def test_the_unit_starts_the_command_and_stops_it_gently():
    text = UNIT.read_text()
    assert "ExecStart=/opt/judder/bin/judder serve --data /var/lib/judder" in text
    assert "Restart=always" in text
    assert "KillSignal" not in text  # SIGTERM is what drains


def test_every_setting_is_documented_and_no_other():
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text.split("| name | default | meaning |")[1].split("```")[0]
    named = {name.strip() for row in re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE) for name in row.split(",")}
    fields = set(Config.model_fields) - {"edge_impulse_api_key", "edge_impulse_hmac_key"}
    assert named == fields
    toml = text.split("[[projects]]")[1].split("```")[0]
    assert set(re.findall(r"^([a-z_]+) =", toml, re.MULTILINE)) == set(ProjectSettings.model_fields) - {"url"}


def test_the_container_runs_the_same_command_as_an_ordinary_user():
    text = (ROOT / "host" / "ops" / "Containerfile").read_text()
    assert "USER judder" in text
    assert 'ENTRYPOINT ["/opt/judder/bin/judder"]' in text
