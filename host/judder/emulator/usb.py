"""The board's USB port: CircuitPython's console on a pseudo terminal."""

import os
import pty
import select
import tty
from contextlib import suppress
from pathlib import Path

_CHUNK = 4096
_PATIENCE_S = 1.0  # with a client that does not read; then what is printed is lost, as with a real one
CTRL_C = b"\x03"


class UsbPort:
    """A port that a client opens at `path`: `link`, or while it is plugged in the pseudo terminal's own name.

    After each reset it is another pseudo terminal, as a board's port goes away and comes back.
    """

    def __init__(self, link: Path | None = None) -> None:
        self._link = link
        self._master = self._slave = -1
        self._incoming = b""
        self._deaf = False

    @property
    def path(self) -> Path:
        return self._link or Path(os.ttyname(self._slave))

    @property
    def plugged_in(self) -> bool:
        return self._master >= 0

    def plug_in(self) -> None:
        """Appear to the PC."""
        master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        self._incoming, self._deaf = b"", False
        if self._link is not None:
            if self._link.is_symlink():  # ours of before, or left behind by one that was killed
                self._link.unlink()
            self._link.symlink_to(os.ttyname(slave))
        self._slave, self._master = slave, master  # last: with it the port counts as plugged in, for other threads too

    def unplug(self) -> None:
        """Be gone: whoever has the port open meets an error."""
        if not self.plugged_in:
            return
        master, self._master = self._master, -1  # first, as it is set last
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(master)
        self._slave = -1

    def interrupted(self) -> bool:
        """Whether Ctrl-C has come in; that and what came before it is dropped (circuitpython:supervisor/shared/usb)."""
        if self.plugged_in:
            self._take(0)
        _, found, after = self._incoming.partition(CTRL_C)
        if found:
            self._incoming = after
        return bool(found)

    def read(self, timeout_s: float, most: int) -> bytes:
        """What has come in, or comes within `timeout_s`; at most `most` bytes."""
        if not self._incoming:
            self._take(timeout_s)
        data, self._incoming = self._incoming[:most], self._incoming[most:]
        return data

    def write(self, data: bytes) -> None:
        """Show `data` to whoever reads; nobody may."""
        while data and self.plugged_in:
            _, writable, _ = select.select([], [self._master], [], 0 if self._deaf else _PATIENCE_S)
            self._deaf = not writable
            if self._deaf:
                return
            with suppress(BlockingIOError):
                data = data[os.write(self._master, data[:_CHUNK]) :]

    def _take(self, timeout_s: float) -> None:
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if ready:
            with suppress(BlockingIOError):
                self._incoming += os.read(self._master, _CHUNK)
