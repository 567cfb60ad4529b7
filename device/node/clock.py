"""Time on the node: a monotonic microsecond counter, and what the Notecard knows of UTC.

CircuitPython's monotonic_ns is the Swan's 32.768 kHz crystal, in steps of 30.5 us (circuitpython:ports/stm/
peripherals/rtc.c). MicroPython has only counters that wrap, so they are extended here.
"""

import time

try:
    from time import ticks_diff, ticks_us  # pyright: ignore  # MicroPython
except ImportError:
    ticks_us = ticks_diff = None

CRYSTAL_PPM = 20
DRIFT_PPM = 50  # how fast our counter and UTC may part, with room for a warm crystal
_LONGEST_SLEEP_MS = 60000  # well within the wrap of MicroPython's counter

_last_ticks = ticks_us() if ticks_us else 0
_elapsed_us = 0


def now_us():
    """Microseconds since some moment; never wraps, as long as it is asked every few minutes."""
    global _last_ticks, _elapsed_us
    if not ticks_us or not ticks_diff:
        return time.monotonic_ns() // 1000
    ticks = ticks_us()
    _elapsed_us += ticks_diff(ticks, _last_ticks)
    _last_ticks = ticks
    return _elapsed_us


def sleep_ms(duration_ms):
    while duration_ms > _LONGEST_SLEEP_MS:
        time.sleep(_LONGEST_SLEEP_MS / 1000)
        duration_ms -= _LONGEST_SLEEP_MS
        now_us()
    time.sleep(duration_ms / 1000)


class Calendar:
    """UTC from card.time, which tells whole seconds only.

    Each answer bounds the offset between UTC and our counter to about a second; answers at different phases of
    the second narrow it down further. Drift widens the bounds again while nobody asks.
    """

    def __init__(self):
        self._low_us = None  # UTC - counter lies between these two, as of _set_at_us
        self._high_us = None
        self._set_at_us = 0

    def learn(self, utc_s, before_us, after_us):
        """Take an answer `utc_s` (whole seconds) that was given between two readings of now_us."""
        low_us = utc_s * 1000000 - after_us
        high_us = utc_s * 1000000 + 1000000 - before_us
        if self._low_us is not None:
            drift_us = self._drift_us(after_us)
            narrowed_low_us = max(low_us, self._low_us - drift_us)
            narrowed_high_us = min(high_us, self._high_us + drift_us)
            if narrowed_low_us <= narrowed_high_us:  # otherwise the card's clock jumped: believe the new answer
                low_us, high_us = narrowed_low_us, narrowed_high_us
        self._low_us, self._high_us = low_us, high_us
        self._set_at_us = after_us

    def utc_us(self, counter_us):
        """UTC in microseconds since 1970 at a reading of now_us, and its uncertainty in ms; (0, 0) if unknown."""
        if self._low_us is None:
            return 0, 0
        uncertainty_us = (self._high_us - self._low_us) // 2 + self._drift_us(counter_us)
        return counter_us + (self._low_us + self._high_us) // 2, min(uncertainty_us // 1000 + 1, 0xFFFF)

    def _drift_us(self, counter_us):
        return abs(counter_us - self._set_at_us) * DRIFT_PPM // 1000000
