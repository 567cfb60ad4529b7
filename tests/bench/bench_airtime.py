"""A day of the emulated board with a trained model: what policy `score` sends, against `all`, and what both find."""

import tempfile
from pathlib import Path

import numpy as np
from tests.test_model_loop import day
from tests.vibration import recorded

from judder.emulator.machine import Service
from judder.model.file import from_bytes
from judder.model.train import Options, train


def main():
    data = train(recorded(Service(seed=4), np.arange(250) * 900.0, odr_error=0.01), Options()).data
    threshold = from_bytes(data)[0].clusters.threshold
    with tempfile.TemporaryDirectory() as folder:
        days = {name: day(Path(folder) / name, name, data, threshold) for name in ("all", "score")}
    for name, found in days.items():
        print(
            f"  {name}: {found.healthy_bytes * 24 / 21 / 1000:.1f} kB a healthy day, reports included; events: "
            f"{found.false_alarms} of {found.healthy} healthy windows, {found.events} of {found.ill} with the bearing "
            f"at 140 %, {found.arrived} windows arrived as such"
        )
    print(f"  {days['all'].healthy_bytes / days['score'].healthy_bytes:.1f} times less (goal 10)")
