"""Runs on a MicroPython: a model on one window, again and again. `micropython on_vm_model.py DEVICE MODEL RUNS`

Prints microseconds a window, of that for the features, and bytes in use: with the model, and at the fullest.
"""

import gc
import sys
import time

sys.path[:] = [sys.argv[1], sys.argv[1] + "/lib", sys.argv[0].rsplit("/", 1)[0]]
from vm_counts import counts  # noqa: E402

from node import features  # noqa: E402
from node.model import Model  # noqa: E402


def main():
    with open(sys.argv[2], "rb") as file:  # noqa: PTH123  # MicroPython
        model = Model(file)
        model.prove()
    gc.collect()
    held = gc.mem_alloc()
    window = counts(model.samples)
    runs = int(sys.argv[3])
    fullest = 0
    started = time.ticks_us()
    for _ in range(runs):
        model.score(window, 0.0392266)
        fullest = max(fullest, gc.mem_alloc())
    per_window = time.ticks_diff(time.ticks_us(), started) // runs
    started = time.ticks_us()
    features.compute(model._blocks, window, 0.0392266)
    print(per_window, time.ticks_diff(time.ticks_us(), started), held, fullest)


main()
