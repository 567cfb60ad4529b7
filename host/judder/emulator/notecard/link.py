"""The Notecard's way to Notehub: when there is one, when it syncs, and what a web request carries over it.

Assumed: a connection comes a fixed delay after it is wanted, a sync takes no time of its own, and a session that an
outage ended is open again as soon as the outage is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

NEVER = 1 << 63
CONNECT_NS = 10_000_000_000
SECONDS = 90
OFFLINE_MODES = ("off", "dfu")
MINUTE_NS = 60_000_000_000


@dataclass(frozen=True)
class WebRequest:
    """What Notehub is asked to send through the proxy route called `route`."""

    method: str
    route: str
    name: str
    content: str
    body: bytes
    label: str = ""
    seconds: int = field(default=SECONDS, compare=False)  # after which the card no longer waits


@dataclass(frozen=True)
class WebResponse:
    """What came back: from the server, or from whoever answered in its place."""

    status: int
    body: bytes = b""


Sender = Callable[[WebRequest], WebResponse]


@dataclass
class Link:
    """Connectivity by hub mode. `outages` are intervals [from, to) of the bench's clock without a network.

    Only mode continuous holds a session, as web requests need; mode periodic can be given one for a while. Any mode
    but off, minimum and dfu syncs when it starts, and learns the time from its first sync.
    """

    now_ns: Callable[[], int]
    connect_delay_ns: int = CONNECT_NS
    outages: list[tuple[int, int]] = field(default_factory=list)
    mode: str = "off"
    period_ns: int = NEVER  # between syncs that nobody asks for
    requested_ns: int | None = None  # when the host last asked for a sync
    completed_ns: int | None = None  # when the last one ended; None since the last restart
    _since_ns: int = 0
    _wanted_ns: int = NEVER
    _session_until_ns: int = 0

    def __post_init__(self) -> None:
        self.restart()

    def set_mode(self, mode: str) -> None:
        """A new mode starts a new connection; the same one again changes nothing."""
        if mode != self.mode:
            self.mode = mode
            self._connect()

    def hold_session(self, seconds: int) -> None:
        """In mode periodic: be as in continuous for a while; 0 ends it."""
        if self.mode == "periodic":
            self._since_ns = self.now_ns()
            self._session_until_ns = self._since_ns + seconds * 1_000_000_000

    def restart(self) -> None:
        """Lose power: connect anew, and wait for the time again."""
        self.requested_ns = self.completed_ns = None
        self._session_until_ns = 0
        self._connect()

    def want_sync(self, at_ns: int, *, requested: bool = False) -> None:
        """Sync as soon as possible."""
        if requested:
            self.requested_ns = at_ns
        self._wanted_ns = min(self._wanted_ns, at_ns)

    def synced(self, at_ns: int) -> None:
        """A sync has ended."""
        self.completed_ns = at_ns
        self._wanted_ns = at_ns + self.period_ns if self.period_ns < NEVER else NEVER

    def wanted(self, at_ns: int) -> bool:
        """Whether a sync has been wanted by then and has not happened."""
        return self._wanted_ns <= at_ns

    def reach_ns(self, wanted_ns: int) -> int:
        """When Notehub is reached if it is wanted from `wanted_ns` on."""
        if self.mode in OFFLINE_MODES or wanted_ns >= NEVER:
            return NEVER
        if self._holds_session(wanted_ns):
            at_ns = max(wanted_ns, self._since_ns + self.connect_delay_ns)
        else:
            at_ns = wanted_ns + self.connect_delay_ns
        return self._after_outages(at_ns)

    def sync_due_ns(self) -> int:
        """When the next sync happens as things stand."""
        due_ns = self.reach_ns(self._wanted_ns)
        if self.mode == "continuous" and self.completed_ns is not None:  # a new session syncs
            ends = [end for start, end in self.outages if start > self.completed_ns]
            due_ns = min([due_ns, *map(self.reach_ns, ends)])
        return due_ns

    def online(self, at_ns: int) -> bool:
        """Whether a session with Notehub is open at `at_ns`."""
        connected = self._holds_session(at_ns) and at_ns >= self._since_ns + self.connect_delay_ns
        return connected and not any(start <= at_ns < end for start, end in self.outages)

    def session_ns(self, wanted_ns: int) -> int:
        """When a session is open that is wanted from `wanted_ns` on; NEVER as things stand now."""
        if not self._holds_session(wanted_ns):
            return NEVER
        at_ns = self.reach_ns(wanted_ns)
        return at_ns if self._holds_session(at_ns) else NEVER

    def network_ns(self, at_ns: int) -> int:
        """When there is a network, at `at_ns` at the earliest; NEVER in a mode that uses none."""
        return NEVER if self.mode in OFFLINE_MODES else self._after_outages(at_ns)

    def _after_outages(self, at_ns: int) -> int:
        for start, end in sorted(self.outages):
            if start <= at_ns < end:
                at_ns = end
        return at_ns

    def _holds_session(self, at_ns: int) -> bool:
        return self.mode == "continuous" or (self.mode == "periodic" and at_ns < self._session_until_ns)

    def _connect(self) -> None:
        self._since_ns = self.now_ns()
        self._wanted_ns = self._since_ns if self.mode in ("continuous", "periodic") else NEVER
