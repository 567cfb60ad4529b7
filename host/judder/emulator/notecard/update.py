"""A firmware update for the host on its way through the card: downloaded piece by piece, then fetched or flashed.

Documents: notecard-schema:dfu.status and dfu.get, note-samples:python-dfu. Assumed: how fast it downloads, the texts
of `status`. Outboard, the card itself would flash the host: that is recorded, nothing more.
"""

from dataclasses import dataclass, field

from judder.emulator.notecard.line import Fields
from judder.emulator.notecard.link import NEVER
from judder.emulator.notecard.twin import Firmware

BYTES_PER_S = 20_000
IDLE = "no download in progress"


@dataclass
class Update:
    """`mode` is one of idle, downloading, ready, completed, error, as dfu.status says."""

    bytes_per_s: int = BYTES_PER_S
    mode: str = "idle"
    status: str = IDLE
    enabled: bool = True
    firmware: Firmware | None = None
    ready_ns: int = 0
    _offered: Firmware | None = None
    _started_ns: int = 0
    _done_ns: int = NEVER

    def offer(self, firmware: Firmware | None, at_ns: int) -> None:
        """Notehub has this for us; the same one again changes nothing."""
        if firmware is None or firmware is self._offered or not self.enabled:
            return
        self._offered = self.firmware = firmware
        self.mode = "downloading"
        self._started_ns = at_ns
        self._done_ns = at_ns + len(firmware.data) * 1_000_000_000 // self.bytes_per_s

    def due_ns(self) -> int:
        """When the download ends."""
        return self._done_ns

    def finish(self, at_ns: int) -> None:
        """The download has ended."""
        self._done_ns = NEVER
        self.ready_ns = at_ns
        self.mode, self.status = "ready", "successfully downloaded"

    def postpone(self, until_ns: int) -> None:
        """There is no network: what is missing comes afterwards."""
        self._done_ns = until_ns

    def abort(self) -> None:
        """The card went off the network for good: the next sync starts the download anew."""
        self._done_ns = NEVER
        self.firmware = self._offered = None
        self.mode, self.status = "idle", IDLE

    def stop(self, status: str, error: str) -> None:
        """The host is through with it, well or not."""
        self.mode = "error" if error else "completed"
        self.status = error or status or "successful firmware update"
        self.firmware = None
        self._done_ns = NEVER

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


@dataclass
class Outboard:
    """card.dfu: whether the card itself flashes the host, and from when on; `name` is the kind of host, or "-"."""

    name: str = "-"
    allowed_from_ns: int = 0
    flashed: list[Firmware] = field(default_factory=list)

    def due_ns(self, update: Update) -> int:
        """When the host will be flashed."""
        return max(update.ready_ns, self.allowed_from_ns) if update.mode == "ready" and self.name != "-" else NEVER

    def flash(self, update: Update) -> None:
        """Flash what has been downloaded: recorded, no more."""
        if update.firmware is not None:
            self.flashed.append(update.firmware)
        update.stop("", "")
