"""The Notecard's way to Notehub: when there is one, and what goes over it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from judder.emulator.clock import Clock

CONNECT_NS = 10_000_000_000


@dataclass(frozen=True)
class WebRequest:
    """What Notehub is asked to send through the proxy route called `route`."""

    method: str
    route: str
    name: str
    content: str
    body: bytes
    label: str = ""


@dataclass(frozen=True)
class WebResponse:
    """What came back: from the server, or from whoever answered in its place."""

    status: int
    body: bytes = b""


Sender = Callable[[WebRequest], WebResponse]


@dataclass
class Link:
    """Connectivity by hub mode. `outages` are intervals [from, to) of the bench's clock without a network.

    Only mode continuous holds a session, as web requests need; any mode but off learns the time at its first sync.
    """

    clock: Clock
    connect_delay_ns: int = CONNECT_NS
    outages: list[tuple[int, int]] = field(default_factory=list)
    mode: str = "off"
    _since_ns: int = 0
    _synced: bool = False

    def set_mode(self, mode: str) -> None:
        """A new mode starts a new connection; the same one again changes nothing."""
        self.time_known()
        if mode != self.mode:
            self.mode = mode
            self._since_ns = self.clock.now_ns()

    def restart(self) -> None:
        """Lose power: connect anew, and wait for the time again."""
        self._since_ns = self.clock.now_ns()
        self._synced = False

    def online(self, at_ns: int) -> bool:
        """Whether a session with Notehub is open at `at_ns`."""
        connected = self.mode == "continuous" and at_ns >= self._since_ns + self.connect_delay_ns
        return connected and not any(start <= at_ns < end for start, end in self.outages)

    def time_known(self) -> bool:
        """Whether there has been a first sync."""
        if not self._synced and self.mode != "off":
            self._synced = self.clock.now_ns() >= self._first_online_ns()
        return self._synced

    def _first_online_ns(self) -> int:
        first_ns = self._since_ns + self.connect_delay_ns
        for start, end in sorted(self.outages):
            if start <= first_ns < end:
                first_ns = end
        return first_ns
