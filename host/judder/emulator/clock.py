"""The bench's time: virtual for the demo and tests, wall for foreign clients that sleep for real.

Two kinds of passing time go through one interface. `sleep` is somebody waiting; `charge` is something that takes
time by itself (bits on the bus, an interpreter at work). Virtual time moves only by these two calls. Wall time moves
anyway, so there `charge` costs nothing and `sleep` really waits.

Integer nanoseconds throughout; zero is the moment the bench was powered.
"""

import time
from typing import Protocol

EPOCH_UTC_NS = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z: what the virtual bench's wall calendar shows at power-up."""


class Clock(Protocol):
    """What every part of the bench needs to know about time. `charges`: whether work takes time on this clock."""

    charges: bool

    def now_ns(self) -> int:
        """Nanoseconds since the bench was powered."""

    def utc_ns(self) -> int:
        """UTC in nanoseconds since 1970."""

    def charge(self, duration_ns: int) -> None:
        """Let `duration_ns` of unavoidable work pass."""

    def sleep(self, duration_ns: int) -> None:
        """Wait for `duration_ns`."""


class VirtualClock:
    """Time that moves only when somebody waits or works: a week of windows runs in minutes, and never flakes."""

    charges = True

    def __init__(self, epoch_utc_ns: int = EPOCH_UTC_NS) -> None:
        self._now_ns = 0
        self._epoch_utc_ns = epoch_utc_ns

    def now_ns(self) -> int:
        return self._now_ns

    def utc_ns(self) -> int:
        return self._epoch_utc_ns + self._now_ns

    def charge(self, duration_ns: int) -> None:
        self._now_ns += duration_ns

    def sleep(self, duration_ns: int) -> None:
        self._now_ns += duration_ns


class WallClock:
    """Real time, for clients that wait on their own."""

    charges = False

    def __init__(self) -> None:
        self._started_ns = time.monotonic_ns()

    def now_ns(self) -> int:
        return time.monotonic_ns() - self._started_ns

    def utc_ns(self) -> int:
        return time.time_ns()

    def charge(self, duration_ns: int) -> None:
        pass

    def sleep(self, duration_ns: int) -> None:
        time.sleep(duration_ns / 1e9)
