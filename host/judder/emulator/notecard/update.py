"""A firmware update for the host on its way through the card: downloaded piece by piece, then fetched or flashed.

Documents: notecard-schema:dfu.status and dfu.get, note-samples:python-dfu; `ready-retry` and `updating` are modes that
Notehub's API knows (notehub-py:openapi.yaml, DFUState). Assumed: how fast it downloads, the texts of `status`, that a
restart of the card begins a download anew, and that each change of mode is told to Notehub. How the card flashes the
host is in `outboard`.
"""

from dataclasses import dataclass, field

from judder.emulator.notecard.line import Fields
from judder.emulator.notecard.link import NEVER
from judder.emulator.notecard.twin import Firmware

BYTES_PER_S = 20_000
IDLE = "no download in progress"
MODES = ("idle", "downloading", "ready", "updating", "ready-retry", "completed", "error")


@dataclass(frozen=True)
class Phase:
    """A change of mode, for Notehub to hear of."""

    at_ns: int
    mode: str
    status: str


@dataclass
class Update:
    """`mode` is one of MODES, as dfu.status says."""

    bytes_per_s: int = BYTES_PER_S
    mode: str = "idle"
    status: str = IDLE
    enabled: bool = True
    firmware: Firmware | None = None
    ready_ns: int = 0
    unsent: list[Phase] = field(default_factory=list)
    bytes_downloaded: int = 0
    _offered: Firmware | None = None
    _started_ns: int = 0
    _done_ns: int = NEVER

    def offer(self, firmware: Firmware | None, at_ns: int) -> None:
        """Notehub has this for us; the same one again changes nothing."""
        if firmware is None or firmware is self._offered or not self.enabled or self.mode == "updating":
            return
        self._offered = self.firmware = firmware
        self._started_ns = at_ns
        self._done_ns = at_ns + len(firmware.data) * 1_000_000_000 // self.bytes_per_s
        self.become("downloading", "downloading", at_ns)

    def become(self, mode: str, status: str, at_ns: int) -> None:
        """Change the mode."""
        self.mode, self.status = mode, status
        self.unsent.append(Phase(at_ns, mode, status))

    def due_ns(self) -> int:
        """When the download ends."""
        return self._done_ns

    def finish(self, at_ns: int) -> None:
        """The download has ended."""
        self._done_ns = NEVER
        self.bytes_downloaded += len(self.firmware.data) if self.firmware is not None else 0
        self.ready_ns = at_ns
        self.become("ready", "successfully downloaded", at_ns)

    def postpone(self, until_ns: int) -> None:
        """There is no network, or nothing comes: what is missing comes afterwards."""
        self._done_ns = until_ns

    def abort(self, at_ns: int) -> None:
        """The card went off the network for good, or lost power: the next sync starts the download anew."""
        self._done_ns = NEVER
        self.firmware = self._offered = None
        self.become("idle", IDLE, at_ns)

    def restart(self, at_ns: int) -> None:
        """The card restarts: what it has whole is in its flash."""
        if self.mode == "downloading":
            self.abort(at_ns)

    def stop(self, status: str, error: str, at_ns: int) -> None:
        """The host is flashed, or through with it, well or not."""
        self.firmware = None
        self._done_ns = NEVER
        self.become("error" if error else "completed", error or status or "successful firmware update", at_ns)

    def state(self, now_ns: int) -> Fields:
        """What dfu.status replies."""
        reply: Fields = {"mode": self.mode, "status": self.status}
        reply["on" if self.enabled else "off"] = True
        if self.mode == "downloading":
            span = max(1, self._done_ns - self._started_ns)
            percent = min(99, (now_ns - self._started_ns) * 100 // span)
            reply |= {"status": f"downloading: {percent}% complete", "pending": True}
        if self.firmware is not None:
            reply["body"] = self.firmware.about
        return reply
