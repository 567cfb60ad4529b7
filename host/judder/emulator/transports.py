"""The emulated Notecard for programs that we did not write: on a pseudo terminal, and on an I2C bus behind a socket.

Time is the wall clock's: such programs sleep for real. Serial gives messages one right behind the other; I2C gives
them one at a time. The socket speaks the stream of `judder.emulator.stream`, several clients share one bus.
"""

import os
import pty
import select
import socket
import threading
import time
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from judder.emulator.i2c import I2CBus
from judder.emulator.notecard import Notecard, Sender, WebRequest, WebResponse
from judder.emulator.stream import Stream, carry_out

T = TypeVar("T")

_CHUNK = 4096
_TICK_S = 0.005  # how often a reply that is not due yet is looked for
_IDLE_S = 0.05
_UNREAD = 65536  # bytes that wait for a client; until it reads them, no more is heard of it
_STOP_S = 1.0  # for a web request that is still going on


class Transport(ABC):
    """Served from a thread while the context is open. `ended` is set when that had to end; `error` says why."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: Exception | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__, daemon=True)

    @property
    @abstractmethod
    def path(self) -> Path:
        """Where clients find it."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._thread.join(_STOP_S)
        self._close()

    @abstractmethod
    def _serve(self) -> None:
        """Until `_stopped`."""

    @abstractmethod
    def _close(self) -> None:
        """Leave nothing behind."""

    def _fail(self, error: Exception) -> None:
        self.error = error
        self.ended.set()


class Pty(Transport):
    """A card on a pseudo terminal at `path`; `link` is a name of one's own for it.

    Raises OSError when there is no pseudo terminal or the link exists as something else.
    """

    def __init__(self, card: Notecard, link: Path | None = None) -> None:
        super().__init__()
        self._card = card
        self._link = link
        self._outgoing = bytearray()
        self._master, self._slave = pty.openpty()  # ours stays open: a client may close and open it again
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)

    @property
    def path(self) -> Path:
        return self._link or Path(os.ttyname(self._slave))

    def __enter__(self) -> Self:
        if self._link is not None:
            if self._link.is_symlink() and str(self._link.readlink()).startswith("/dev/pts/"):
                self._link.unlink()  # left behind by one that was killed
            self._link.symlink_to(os.ttyname(self._slave))
        return super().__enter__()

    def _close(self) -> None:
        if self._link is not None and self._link.is_symlink() and str(self._link.readlink()) == os.ttyname(self._slave):
            self._link.unlink()
        os.close(self._master)
        os.close(self._slave)

    def _serve(self) -> None:
        try:
            while not self._stopped:
                self._turn()
        except Exception as error:  # noqa: BLE001  # told by whoever waits for `ended`
            if not self._stopped:
                self._fail(error)

    def _turn(self) -> None:
        readers = [self._master] if len(self._outgoing) < _UNREAD else []
        writers = [self._master] if self._outgoing else []
        ready, writable, _ = select.select(readers, writers, [], _TICK_S)
        if ready:
            with suppress(BlockingIOError):
                self._card.feed(os.read(self._master, _CHUNK))
        while len(self._outgoing) < _UNREAD and (available := self._card.available()):
            self._outgoing += self._card.read(available)
        if self._outgoing and (writable or not writers):
            with suppress(BlockingIOError):
                del self._outgoing[: os.write(self._master, self._outgoing[:_CHUNK])]


class I2CSocket(Transport):
    """A bus behind a Unix socket at `path`; any number of clients, one transfer at a time.

    `when_idle` is called now and then, as is `when_left` when a client has gone. Raises OSError when the path cannot be
    used.
    """

    def __init__(
        self,
        bus: I2CBus,
        path: Path,
        when_idle: Callable[[], None] = lambda: None,
        when_left: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._path = path
        self._bus = bus
        self._when_idle = when_idle
        self._when_left = when_left
        self._one_at_a_time = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if path.is_socket() and not _somebody_listens(path):
            path.unlink()  # left behind by one that was killed
        try:
            self._listener.bind(str(path))
            self._listener.listen()
            self._listener.settimeout(_IDLE_S)
        except OSError:
            self._listener.close()
            raise
        self._inode = path.stat().st_ino

    @property
    def path(self) -> Path:
        return self._path

    def _close(self) -> None:
        self._listener.close()
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    def while_others_go_on(self, send: Sender) -> Sender:
        """`send`, with the bus free meanwhile. For use within a transfer only."""

        def sender(request: WebRequest) -> WebResponse:
            self._one_at_a_time.release()
            try:
                return send(request)
            finally:
                self._one_at_a_time.acquire()

        return sender

    def _serve(self) -> None:
        while not self._stopped:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                self._guarded(self._when_idle)
                continue
            except OSError:  # no file descriptor is left, say; there may be one later
                time.sleep(_IDLE_S)
                continue
            client.settimeout(None)
            self._clients.add(client)
            threading.Thread(target=self._serve_client, args=(client,), name="i2c client", daemon=True).start()

    def _serve_client(self, client: socket.socket) -> None:
        stream = Stream(client.fileno(), client.fileno())
        with client, suppress(OSError):
            while (request := stream.request()) is not None:
                reply = self._guarded(lambda request=request: carry_out(request, self._bus, {}))  # type: ignore[misc]
                if reply is None:
                    break
                stream.reply(*reply)  # outside of the lock: a client that does not read stops nobody else
        self._clients.discard(client)
        self._guarded(self._when_left)

    def _guarded(self, action: Callable[[], T]) -> T | None:
        """Do it while nobody else uses the bus; whatever it raises ends the serving."""
        with self._one_at_a_time:
            try:
                return action()
            except Exception as error:  # noqa: BLE001  # told by whoever waits for `ended`
                self._fail(error)
                return None


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0
