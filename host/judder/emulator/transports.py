"""The emulated Notecard for programs that we did not write: on a pseudo terminal, and on an I2C bus behind a socket.

Time is the wall clock's: such programs sleep for real. Serial gives messages one right behind the other; I2C gives
them one at a time. The socket speaks the stream of `judder.emulator.stream`, several clients share one bus.
"""

import os
import pty
import select
import socket
import threading
import tty
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from judder.emulator.i2c import I2CBus
from judder.emulator.notecard import Notecard
from judder.emulator.stream import Stream, answer

_CHUNK = 4096
_TICK_S = 0.005  # how often a reply that is not due yet is looked for


class Pty:
    """A card on a pseudo terminal at `path`; `link` is a name of one's own for it.

    Served from a thread while the context is open. Raises OSError when there is no pseudo terminal or the link exists
    as something else.
    """

    def __init__(self, card: Notecard, link: Path | None = None) -> None:
        self._card = card
        self._link = link
        self._outgoing = bytearray()
        self._ended = False
        self._master, self._slave = pty.openpty()  # ours stays open: a client may close and open it again
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._thread = threading.Thread(target=self._serve, name="pty", daemon=True)

    @property
    def path(self) -> Path:
        return self._link or Path(os.ttyname(self._slave))

    def __enter__(self) -> Self:
        if self._link is not None:
            if self._link.is_symlink():
                self._link.unlink()
            self._link.symlink_to(os.ttyname(self._slave))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def _serve(self) -> None:
        while not self._ended:
            writers = [self._master] if self._outgoing else []
            ready, writable, _ = select.select([self._master], writers, [], _TICK_S)
            if ready:
                with suppress(BlockingIOError):
                    self._card.feed(os.read(self._master, _CHUNK))
            while available := self._card.available():
                self._outgoing += self._card.read(available)
            if self._outgoing and (writable or not writers):
                with suppress(BlockingIOError):
                    del self._outgoing[: os.write(self._master, self._outgoing[:_CHUNK])]


class I2CSocket:
    """A bus behind a Unix socket at `path`; any number of clients, one transfer at a time.

    Served from threads while the context is open. Raises OSError when the path cannot be used.
    """

    def __init__(self, bus: I2CBus, path: Path) -> None:
        self.path = path
        self._bus = bus
        self._one_at_a_time = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(FileNotFoundError):
            if path.is_socket():
                path.unlink()  # left behind by one that was killed
        try:
            self._listener.bind(str(path))
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise
        self._thread = threading.Thread(target=self._accept, name="i2c", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), name="i2c client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        stream = Stream(client.fileno(), client.fileno())
        with client, suppress(OSError):
            while (request := stream.request()) is not None:
                with self._one_at_a_time:
                    answer(stream, request, self._bus, {})
        self._clients.discard(client)
