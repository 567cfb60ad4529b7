"""CircuitPython's microcontroller: the reset, and what comes after it."""

import _bench


class RunMode:
    NORMAL = "NORMAL"
    SAFE_MODE = "SAFE_MODE"


def on_next_reset(run_mode):
    _bench.call(ord("M"), written=b"PROGRAMMATIC" if run_mode == RunMode.SAFE_MODE else b"")


def reset():
    _bench.call(ord("Q"))
