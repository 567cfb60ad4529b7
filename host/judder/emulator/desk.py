"""A board on a desk: an emulated Swan plugged into a PC's USB, run by a thread, for programs that talk to it."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from judder.emulator.swan import Swan
from judder.emulator.transports import Transport
from judder.emulator.usb import UsbPort

T = TypeVar("T")

_UNPOWERED_S = 0.01


class Desk(Transport):
    """Runs `swan` on USB port `usb` while the context is open. Whatever is done to it meanwhile goes through `do`."""

    def __init__(self, swan: Swan, usb: UsbPort) -> None:
        super().__init__()
        self.swan = swan
        self._usb = usb
        self._errands: deque[Callable[[], None]] = deque()
        self._ready = threading.Event()

    @property
    def path(self) -> Path:
        return self._usb.path

    def __enter__(self) -> "Desk":
        super().__enter__()
        self._ready.wait()
        return self

    def do(self, action: Callable[[], T]) -> T:
        """Call `action` between two requests of the board, and return what it returns."""
        done: Future[T] = Future()

        def errand() -> None:
            try:
                done.set_result(action())
            except BaseException as error:  # noqa: BLE001  # raised again where it was asked for
                done.set_exception(error)

        self._errands.append(errand)
        return done.result(timeout=30)

    def wait_for_port(self, timeout_s: float = 30) -> Path:
        """The port, once the board has come as far as that after a reset. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not self._usb.plugged_in:
            if time.monotonic() > deadline:
                raise TimeoutError("the board's USB port never came up")
            time.sleep(_UNPOWERED_S)
        return self.path

    def wait_for(self, text: str, timeout_s: float = 30) -> str:
        """The first line among the last that the board printed with `text` in it. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for line in list(self.swan.lines):
                if text in line:
                    return line
            time.sleep(_UNPOWERED_S)
        raise TimeoutError(f"the board never printed {text!r}, but {list(self.swan.lines)[-5:]}")

    def _serve(self) -> None:
        try:
            self.swan.power_on()
            while not self._stopped:
                if self._usb.plugged_in:
                    self._ready.set()
                while self._errands:
                    self._errands.popleft()()
                if self.swan.has_power:
                    self.swan.step()
                else:
                    time.sleep(_UNPOWERED_S)
        except Exception as error:  # noqa: BLE001  # told by whoever waits for `ended`
            self._fail(error)
            self._ready.set()

    def _close(self) -> None:
        self.swan.close()
