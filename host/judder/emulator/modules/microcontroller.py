"""CircuitPython's microcontroller: the reset, what led to it, and what comes after it."""

import _bench


class RunMode:
    NORMAL = "NORMAL"
    SAFE_MODE = "SAFE_MODE"


class _Reason:
    def __init__(self, name):
        self._name = name

    def __repr__(self):
        return "microcontroller.ResetReason." + self._name


class ResetReason:
    """Without an alarm, the STM port only ever says UNKNOWN (circuitpython:ports/stm common-hal Processor.c)."""


_NAMES = ("POWER_ON", "BROWNOUT", "SOFTWARE", "DEEP_SLEEP_ALARM", "RESET_PIN", "WATCHDOG", "UNKNOWN", "RESCUE_DEBUG")
for _name in _NAMES:
    setattr(ResetReason, _name, _Reason(_name))


class _Processor:
    reset_reason = ResetReason.UNKNOWN


cpu = _Processor()


def on_next_reset(run_mode):
    _bench.call(ord("M"), written=b"PROGRAMMATIC" if run_mode == RunMode.SAFE_MODE else b"")


def reset():
    _bench.call(ord("Q"))
