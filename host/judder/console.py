"""A board's Python console: mpremote's transport, with what it does not know about CircuitPython.

CircuitPython prints other error texts than MicroPython and its os has no ilistdir, so mpremote's own file commands fail
on it (adafruit/circuitpython#10507). Here the board gets a few functions once, and what they print is read back.
"""

import io
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import serial
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

from judder.usb import BoardError, check_access

ENTRY_TRIES = 3
ENTRY_S = 5
SILENCE_S = 120  # between two bytes of what a command prints
FAREWELL_S = 3  # for the firmware to call off the Notecard's watchdog and say what is lost
RETURN_S = 15  # for the port to come back after a reset
_FAREWELL = re.compile(rb"stopped at the console[^\r\n]*")
_IDLE = (b">>> ", b"REPL. Use CTRL-D to reload.")
_OSERROR = re.compile(r"OSError: (?:\[Errno )?(\d+)")
_WHO = """
import os, sys
try:
    import board
    print(board.board_id)
except ImportError:
    print("")
print(sys.implementation.name)
print(".".join([str(part) for part in sys.implementation.version[:3]]))
print(os.uname().machine if hasattr(os, "uname") else sys.platform)
"""


class RemoteError(BoardError):
    """The board raised an exception; `errno` is that of an OSError, else 0. The message is its last line."""

    def __init__(self, text: str) -> None:
        found = _OSERROR.search(text)
        self.errno = int(found[1]) if found else 0
        super().__init__(text.strip().splitlines()[-1] if text.strip() else "an error without a word")


@dataclass(frozen=True)
class Identity:
    """Who the board says it is. `board` is CircuitPython's id of it, empty on MicroPython."""

    board: str
    runtime: str
    version: tuple[int, ...]
    machine: str


class Console:
    """The REPL behind `port`. Entering it stops the firmware; leaving it starts the firmware again, whatever happened.

    `farewell` is what the firmware said when it was stopped. With `needs_reset` the board is reset in the end, else it
    only reboots softly. Raises BoardError when the port cannot be used, does not answer as a REPL or goes away.
    """

    def __init__(self, port: str, patience_s: float = ENTRY_S) -> None:
        self.port = port
        self.farewell = ""
        self.needs_reset = False
        self._patience_s = patience_s
        check_access(port)
        try:
            self._transport = SerialTransport(port, timeout=patience_s)
        except (TransportError, serial.SerialException, OSError) as error:
            raise BoardError(
                f"{port} cannot be opened ({error}): close what else uses it, such as a terminal, Thonny or Mu"
            ) from None

    def __enter__(self) -> Self:
        try:
            self._interrupt()
            self._enter()
            self.identity = self._identify()
        except BaseException:
            self._transport.serial.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Start the firmware again and let go of the port; a board that is gone needs nothing."""
        with suppress(BoardError, TransportError):
            if self.needs_reset:
                self._reset()
            else:
                self._resume()
        with suppress(OSError, serial.SerialException):
            self._transport.close()
        self._transport.serial.close()  # which mpremote leaves out when the board is gone

    def run(self, source: str) -> str:
        """Run `source` on the board and return what it prints. Raises RemoteError for an exception there."""
        with self._watched():
            output, error = self._transport.exec_raw(source, timeout=SILENCE_S)
        if error:
            raise RemoteError(error.decode(errors="replace"))
        return str(output.decode(errors="replace").replace("\r\n", "\n"))

    def _resume(self) -> None:
        with self._watched():
            self._transport.exit_raw_repl()
            self._transport.serial.write(b"\x04")

    def _reset(self) -> None:
        module = "microcontroller" if self.identity.runtime == "circuitpython" else "machine"
        with self._watched():
            self._transport.exec_raw_no_follow(f"import {module}\n{module}.reset()")

    def _interrupt(self) -> None:
        """Stop the firmware and hear it out."""
        heard = b""
        deadline = time.monotonic() + min(FAREWELL_S, self._patience_s)
        with self._watched():
            port = self._transport.serial
            port.write(b"\r\x03")
            while time.monotonic() < deadline and not any(idle in heard for idle in _IDLE):
                if port.in_waiting:
                    heard += port.read(port.in_waiting)
                else:
                    time.sleep(0.01)
        found = _FAREWELL.search(heard)
        self.farewell = found[0].decode() if found else ""

    def _enter(self) -> None:
        """Interrupt what runs and enter the raw REPL, by a soft reboot if the board's language lets us see it."""
        for attempt in range(ENTRY_TRIES):
            with self._watched(), redirect_stdout(io.StringIO()), suppress(TransportError):
                self._transport.enter_raw_repl(soft_reset=attempt < ENTRY_TRIES - 1, timeout_overall=self._patience_s)
                return
        raise BoardError(
            f"{self.port} does not answer as a Python console: is it the right port? Press RESET once and try again"
        )

    def _identify(self) -> Identity:
        told = self.run(_WHO)
        try:
            board, runtime, version, machine = told.splitlines()
            return Identity(board, runtime, tuple(map(int, version.split("."))), machine)
        except ValueError:
            raise BoardError(
                f"{self.port} answers {told[:80]!r} when asked who it is: press RESET and try again"
            ) from None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """What a port raises when the board is gone, as one line."""
        try:
            yield
        except (OSError, serial.SerialException, struct.error) as error:
            raise BoardError(f"the board went away ({error}): plug it in again and repeat the command") from None
        except TransportError as error:
            if self._transport.in_raw_repl:
                raise BoardError(f"the board stopped answering ({error}): press RESET and repeat the command") from None
            raise


def follow(port: str, duration_s: float) -> Iterator[str]:
    """Lines that the firmware prints within `duration_s`, once the port has come back from a reset."""
    deadline = time.monotonic() + RETURN_S
    while True:
        try:
            with serial.Serial(port, timeout=0.2) as console:
                deadline = time.monotonic() + duration_s + RETURN_S
                yield from _lines_until(console, time.monotonic() + duration_s)
        except (OSError, serial.SerialException):
            if time.monotonic() > deadline:
                raise BoardError(
                    f"{port} did not come back after the reset: press RESET once, then judder doctor"
                ) from None
            time.sleep(0.1)
        else:
            return


def _lines_until(console: serial.Serial, deadline: float) -> Iterator[str]:
    buffer = b""
    while time.monotonic() < deadline:
        buffer += console.read(max(1, console.in_waiting))
        *lines, buffer = buffer.split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
