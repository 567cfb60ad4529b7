"""When to try again, and how much may be sent."""

import os

from node import clock

PAUSE_S = 5
LONGEST_PAUSE_S = 600
DAY_US = 86400000000


class Pause:
    """Grows with each failure in a row, from PAUSE_S to LONGEST_PAUSE_S, each time by a random part."""

    def __init__(self):
        self.failures = 0
        self.until_us = 0

    def failed(self):
        longest = min(LONGEST_PAUSE_S, PAUSE_S << min(self.failures, 10))
        seconds = longest // 2 + os.urandom(1)[0] * longest // 512
        self.failures += 1
        self.until_us = clock.now_us() + seconds * 1000000
        return seconds

    def worked(self):
        self.failures = 0
        self.until_us = 0


class Budget:
    """`daily_bytes` in each 24 hours from the start on, and at most one frame more; 0: no limit.

    Counted anew at each start: a board that is reset often sends more.
    """

    def __init__(self, daily_bytes):
        self.daily_bytes = daily_bytes
        self._spent_before = 0  # today
        self.ends_us = clock.now_us() + DAY_US

    def left(self, spent_bytes):
        """Bytes that may still go out today, when `spent_bytes` have gone out since the start."""
        late_us = clock.now_us() - self.ends_us
        if late_us >= 0:
            self.ends_us += (late_us // DAY_US + 1) * DAY_US
            self._spent_before = spent_bytes
        if not self.daily_bytes:
            return 1 << 29
        return self.daily_bytes + self._spent_before - spent_bytes
