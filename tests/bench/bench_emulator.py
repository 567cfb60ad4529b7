"""How much of the device's time passes in a second of ours: a week of one window a minute within ten minutes?"""

import os
import resource
import tempfile
import time
from pathlib import Path

from judder.config import Config
from judder.emulator.bench import Bench
from judder.emulator.machine import Machine
from judder.emulator.notehub import Notehub
from judder.server import background

WINDOWS = 300
WEEK_S = 7 * 86400
GOAL_S = 600


def cpu_s():
    """CPU time of this process and of the interpreters it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main():
    with tempfile.TemporaryDirectory() as folder, background(Config(data=Path(folder), port=0)) as server:
        notehub = Notehub({"ingest": server.url})
        cpu_before, wall_before = cpu_s(), time.perf_counter()
        with Bench(Machine.demo(), notehub.send, settings={"CAPTURE_EVERY_S": 60}) as bench:
            bench.run(WINDOWS)
            device_s = bench.clock.now_ns() / 1e9
        wall_s, cpu = time.perf_counter() - wall_before, cpu_s() - cpu_before
    print(f"{WINDOWS} windows, {device_s / 3600:.1f} h on the device, server included, {os.cpu_count()} cores here")
    print(f"  {wall_s / WINDOWS * 1000:.1f} ms a window by the wall, {cpu / WINDOWS * 1000:.1f} ms of CPU")
    print(f"  device time / wall time: {device_s / wall_s:.0f}; device time / CPU time: {device_s / cpu:.0f}")
    week = WEEK_S * cpu / device_s
    print(f"  a week of one window a minute: {week / 60:.1f} min on one core (goal {GOAL_S // 60})")
