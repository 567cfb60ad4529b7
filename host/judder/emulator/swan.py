"""The emulated Swan: runs the firmware in a child interpreter and charges it what the real part would take.

Time costs, from measurements of the same code elsewhere (see Timing); nothing here was measured on a Swan. The
child asks for everything that takes time or touches the world through the stream, one request at a time, so the
whole board stands still while the bench works and a run depends on its seed alone.
"""

import os
import random
import struct
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from judder.board import Tree, tree
from judder.emulator.clock import Clock
from judder.emulator.i2c import I2CBus
from judder.emulator.runtime import Runtime, cpython
from judder.emulator.stream import Handler, Request, Stream, carry_out

RTC_HZ = 32768  # the crystal behind time.monotonic_ns (circuitpython:ports/stm/peripherals/rtc.c)
TICK_HZ = 1024  # time.sleep ends on such a tick (circuitpython:supervisor/shared/tick.c)
CONSOLE_LINES = 200
HEAP_READINGS = 10_000


@dataclass(frozen=True)
class Timing:
    """What the interpreter costs, and how unsteady the board is."""

    clock_read_ns: int = 30_518  # one RTC tick
    bus_call_ns: int = 100_000  # 0.2-0.4 ms for a register read of two calls: MicroPython on an emulated Cortex-M4F
    gc_collect_ns: int = 20_000_000  # 0.8 ms empty, 34 ms with 200 KB live: same measurement
    crystal_ppm: float = 0.0
    stall_probability: float = 0.005  # per bus call: 2 % of the acquisition loop's four-call rounds
    longest_stall_ns: int = 10_000_000


class SwanCrashError(RuntimeError):
    """The firmware ended, which it never should; the message carries its last words."""


class Swan:
    """The board on `bus`. `settings` is written to its settings.toml; `on_line` sees each line it prints."""

    def __init__(
        self,
        clock: Clock,
        bus: I2CBus,
        *,
        settings: Mapping[str, str | int] | None = None,
        timing: Timing | None = None,
        seed: int = 0,
        on_line: Callable[[str], None] = lambda line: None,
        firmware: Tree | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.clock = clock
        self.bus = bus
        self.timing = timing or Timing()
        self.on_line = on_line
        self.lines: deque[str] = deque(maxlen=CONSOLE_LINES)
        self.boots = 0
        self._random = random.Random(seed)
        self.heap_bytes: deque[tuple[int, int]] = deque(maxlen=HEAP_READINGS)  # at each collection: before, after
        self._runtime = runtime or cpython()
        self._firmware = firmware or tree()
        self._drive = tempfile.TemporaryDirectory(prefix="judder-swan-")
        self._partial_line = ""
        self._reset_wanted = False
        self._child: subprocess.Popen[bytes] | None = None
        self._stream = Stream(-1, -1)
        self._ops: dict[int, Handler] = {
            ord("N"): self._now,
            ord("S"): self._sleep,
            ord("F"): self._set_frequency,
            ord("G"): self._collect_garbage,
            ord("C"): self._print,
            ord("R"): lambda request: self._random.randbytes(request.read_length),
            ord("Q"): self._ask_reset,
        }
        toml = "".join(f"{name} = {value!r}\n" for name, value in (settings or {}).items())
        (self.drive / "settings.toml").write_text(toml)

    @property
    def drive(self) -> Path:
        """The folder that stands for CIRCUITPY."""
        return Path(self._drive.name)

    def __enter__(self) -> Self:
        self.power_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.power_off()
        self._drive.cleanup()

    def power_on(self) -> None:
        """Start the firmware from boot.py."""
        from_swan, swan_out = os.pipe()
        swan_in, to_swan = os.pipe()
        arguments = [str(swan_in), str(swan_out), str(self._firmware.device), str(self._firmware.boot)]
        with (self.drive / ".stderr").open("wb") as errors:
            self._child = subprocess.Popen(
                [*self._runtime.command, *arguments],
                cwd=self.drive,
                stdin=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(swan_in, swan_out),
            )
        os.close(swan_in)
        os.close(swan_out)
        self._fds = (from_swan, to_swan)
        self._stream = Stream(from_swan, to_swan)
        self._reset_wanted = False
        self.boots += 1

    def power_off(self) -> None:
        """Cut the power: whatever the firmware was doing, it is gone."""
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for fd in self._fds:
            os.close(fd)
        self._child = None

    def run(self, until: Callable[[], bool]) -> None:
        """Serve the firmware until `until()` holds, which is asked after every request. Raises SwanCrashError."""
        while not until():
            self.step()

    def step(self) -> None:
        """Serve one request of the firmware."""
        request = self._stream.request()
        if request is None:
            raise SwanCrashError(self._last_words())
        if request.op == ord("T"):
            self._charge_bus_call()
        self._stream.reply(*carry_out(request, self.bus, self._ops))
        if self._reset_wanted:
            self.power_off()
            self.power_on()

    def _last_words(self) -> str:
        error = (self.drive / ".stderr").read_text(errors="replace").strip()
        return "\n".join(["the firmware on the emulated Swan ended", *list(self.lines)[-5:], error])

    # --- time ---------------------------------------------------------------------------------------------------

    def _charge_bus_call(self) -> None:
        self.clock.charge(self.timing.bus_call_ns)
        if self._random.random() < self.timing.stall_probability:
            self.clock.charge(self._random.randrange(self.timing.longest_stall_ns))

    def _board_ns(self) -> float:
        return self.clock.now_ns() * (1 + self.timing.crystal_ppm / 1e6)

    def _now(self, request: Request) -> bytes:
        self.clock.charge(self.timing.clock_read_ns)
        ticks = int(self._board_ns() * RTC_HZ / 1e9)
        return (ticks * 1_000_000_000 // RTC_HZ).to_bytes(8, "little")

    def _sleep(self, request: Request) -> bytes:
        """Whole ticks, ending on a tick: on average half a tick shorter than asked for."""
        ticks = int.from_bytes(request.written, "little") * TICK_HZ // 1000
        now = self._board_ns()
        wake = (int(now * TICK_HZ / 1e9) + ticks) * 1e9 / TICK_HZ
        if wake > now:
            self.clock.sleep(int((wake - now) / (1 + self.timing.crystal_ppm / 1e6)) + 1)
        return b""

    def _collect_garbage(self, request: Request) -> bytes:
        if request.written:  # a MicroPython, which knows its heap
            before, after = struct.unpack("<II", request.written)
            self.heap_bytes.append((before, after))
        self.clock.charge(self.timing.gc_collect_ns)
        return b""

    # --- the rest of the board ----------------------------------------------------------------------------------

    def _set_frequency(self, request: Request) -> bytes:
        self.bus.frequency_hz = int.from_bytes(request.written, "little")
        return b""

    def _ask_reset(self, request: Request) -> bytes:
        self._reset_wanted = True
        return b""

    def _print(self, request: Request) -> bytes:
        *lines, self._partial_line = (self._partial_line + request.written.decode(errors="replace")).split("\n")
        for line in lines:
            self.lines.append(line)
            self.on_line(line)
        return b""
