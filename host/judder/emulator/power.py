"""The board's supply fails where it hurts most: in steps of the flash, in talks with the Notecard, while measuring.

Which moment is next, and how long it takes to come, is drawn from the seed. Before the flash takes the power the
network fails, so that windows wait in RAM and in the ring's file.
"""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from judder.emulator.flash import PowerLostError, Torn
from judder.emulator.lis3dh import ADDRESS as LIS3DH_ADDRESS
from judder.emulator.notecard import ADDRESS as NOTECARD_ADDRESS
from judder.emulator.stream import Request

if TYPE_CHECKING:
    from judder.emulator.bench import Bench

QUIET_S = (60, 300)  # from one start to the next cut
PATIENCE_S = 1800  # for a moment that does not come, before another is chosen
OFFLINE_S = 120  # behind the moment from which on the flash takes the power
MIDWAY = 0.02  # of the transfers that a moment is made of
LONGEST_SPILL_STEPS = 12
IDLE_MS = 1000


class PowerCuts:
    """Cuts the power of `bench` again and again; `struck` names each moment at which it went."""

    def __init__(self, bench: "Bench", rng: random.Random) -> None:
        self.struck: list[str] = []
        self._bench = bench
        self._rng = rng
        self._flash = bench.swan.flash
        self._moments = self._drawn()
        bench.swan.faults.append(self._strike)
        self._plan()

    def _drawn(self) -> Iterator[str | Torn]:
        """All moments, shuffled, and again."""
        moments: list[str | Torn] = ["acquiring", "talking", "idle", *(Torn if self._flash else ())]
        while True:
            yield from self._rng.sample(moments, len(moments))

    def _plan(self) -> None:
        now_ns = self._bench.clock.now_ns()
        self._moment = next(self._moments)
        self._failures = self._bench.power_failures
        self._from_ns = now_ns + int(self._rng.uniform(*QUIET_S) * 1e9)
        self._until_ns = self._from_ns + PATIENCE_S * 10**9
        if self._flash is not None:
            self._flash.cut_at = None
        if isinstance(self._moment, Torn):
            self._bench.notecard.link.outages.append((now_ns, self._from_ns + OFFLINE_S * 10**9))

    def _strike(self, request: Request) -> None:
        """Asked before each request of the firmware."""
        now_ns = self._bench.clock.now_ns()
        if self._bench.power_failures > self._failures:
            self.struck.append(self._moment)
            self._plan()
        elif now_ns > self._until_ns:
            self._plan()
        elif now_ns > self._from_ns:
            if isinstance(self._moment, Torn):
                self._arm_flash(self._moment)
            elif self._has_come(request):
                raise PowerLostError(self._moment)

    def _arm_flash(self, torn: Torn) -> None:
        if self._flash is not None and self._flash.cut_at is None:
            self._flash.torn = torn
            self._flash.cut_at = self._flash.steps + self._rng.randint(1, LONGEST_SPILL_STEPS)

    def _has_come(self, request: Request) -> bool:
        if self._moment == "idle":
            return request.op == ord("S") and int.from_bytes(request.written, "little") >= IDLE_MS
        address = LIS3DH_ADDRESS if self._moment == "acquiring" else NOTECARD_ADDRESS
        return request.op == ord("T") and request.address == address and self._rng.random() < MIDWAY
