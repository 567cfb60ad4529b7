"""The emulated Swan: runs the firmware in a child interpreter and charges it what the real part would take.

Time costs, from measurements of the same code elsewhere (see Timing); nothing here was measured on a Swan. The
child asks for everything that takes time or touches the world through the stream, one request at a time, so the
whole board stands still while the bench works and a run depends on its seed alone.

With a `usb` port the board is as it lies on a desk: its drive holds what it runs, from the default code.py that
CircuitPython makes, its console has the REPL, and the drive is writable for the PC until boot.py or the REPL takes it.

With `flash` a real MicroPython finds the drive's blocks in flashbdev.bdev, the name that MicroPython's own ports use,
and can put its file system on them; os.sync writes the cached page back. If there is a ring.bin on it (`fat12.volume`),
that is the one the firmware opens, on every runtime; all other files are in the folder. When a step of the flash takes
the power, or one of `faults`, which see each request before it is carried out, does so by raising PowerLostError, the
board is off until it is switched on again.

With `program`, its whole flash, the board runs what is there: nothing while no interpreter boots (`Program.boots`),
else the files of the drive's FAT, taken into the folder whenever the drive was written from outside; but for ring.bin,
which stays on the flash. What is no FAT becomes a new drive. There is a console as on a desk, though nobody listens:
what ends in an error idles. While the board waits, what is on the Notecard's `agenda` happens in time.
"""

import json
import os
import random
import shutil
import struct
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from judder import fat12
from judder.board import MODEL_FILE, RING_FILE, SLOTS, Tree, tree
from judder.emulator.clock import Clock
from judder.emulator.flash import Flash, FlashPort, PowerLostError
from judder.emulator.i2c import I2CBus
from judder.emulator.program import Program
from judder.emulator.runtime import Runtime, cpython
from judder.emulator.stream import INTERRUPTED, Handler, Request, Stream, carry_out
from judder.emulator.usb import UsbPort
from judder.fat12 import Fat12Error

if TYPE_CHECKING:
    from judder.emulator.notecard.agenda import Agenda

RTC_HZ = 32768  # the crystal behind time.monotonic_ns (circuitpython:ports/stm/peripherals/rtc.c)
TICK_HZ = 1024  # time.sleep ends on such a tick (circuitpython:supervisor/shared/tick.c)
CONSOLE_LINES = 200
HEAP_READINGS = 10_000
DRIVE_BYTES = 1_000_000  # of 1 MiB, what FAT and directories leave
DEFAULT_CODE = 'print("Hello World!")\n'
VERSION = (10, 3, 1)
BOARD = "swan_r5"
RESET_REASON = "UNKNOWN"  # all that the STM port ever tells of a reset
SILENT_NS = 1_000_000_000  # how long a board that runs nothing stands before somebody looks
_INPUT_S = 0.05


class PowerCut(StrEnum):
    """Where in a step that changes the drive the power goes."""

    before = "before"
    midway = "midway"
    table = "table"
    """In page 0, which holds boot sector and table: CircuitPython finds no file system and makes a new one.

    Whatever changes table or directory may be cut so; a write in place, which may not, is cut before it.
    """


@dataclass(frozen=True)
class Timing:
    """What the interpreter costs, and how unsteady the board is."""

    clock_read_ns: int = 30_518  # one RTC tick
    bus_call_ns: int = 100_000  # 0.2-0.4 ms for a register read of two calls: MicroPython on an emulated Cortex-M4F
    gc_collect_ns: int = 20_000_000  # 0.8 ms empty, 34 ms with 200 KB live: same measurement
    crystal_ppm: float = 0.0
    stall_probability: float = 0.005  # per bus call: 2 % of the acquisition loop's four-call rounds
    longest_stall_ns: int = 10_000_000


def settings_toml(settings: Mapping[str, str | int]) -> str:
    """The text of a settings.toml."""
    return "".join(f"{name} = {value!r}\n" for name, value in settings.items())


class SwanCrashError(RuntimeError):
    """The firmware ended, which it never should; the message carries its last words."""


class Swan:
    """The board on `bus`. `settings` is written to its settings.toml; `on_line` sees each line it prints.

    With `usb` it runs what is on its drive (a new one, or the folder `drive`), with `program` what is in its flash, and
    `settings` are for a drive that has none; otherwise it runs `firmware`. `drive_steps`
    names each step by which it has changed the drive; at step `cut_at` the power goes, in the way `cut` says.
    """

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
        usb: UsbPort | None = None,
        drive: Path | None = None,
        flash: Flash | None = None,
        program: Program | None = None,
        agenda: "Agenda | None" = None,
        board: str = BOARD,
        version: tuple[int, int, int] = VERSION,
    ) -> None:
        self.clock = clock
        self.bus = bus
        self.timing = timing or Timing()
        self.on_line = on_line
        self.faults: list[Callable[[Request], None]] = []
        self.lines: deque[str] = deque(maxlen=CONSOLE_LINES)
        self.boots = 0
        self._random = random.Random(seed)
        self.heap_bytes: deque[tuple[int, int]] = deque(maxlen=HEAP_READINGS)  # at each collection: before, after
        self._runtime = runtime or cpython()
        self.usb = usb
        self.flash = flash if program is None else program.drive
        self.program = program
        self._agenda = agenda
        self.drive_steps: list[str] = []
        self.drive_bytes = DRIVE_BYTES
        self.cut_at: int | None = None
        self.cut = PowerCut.before
        self.button_pressed = False
        self._board, self._version = board, version
        self._temporary = tempfile.TemporaryDirectory(prefix="judder-swan-")
        self.drive = drive or Path(self._temporary.name) / "drive"
        """The folder that stands for CIRCUITPY."""
        self.drive.mkdir(parents=True, exist_ok=True)
        self._runs_drive = usb is not None or program is not None
        self._firmware = firmware or (Tree(self.drive, self.drive / "boot.py") if self._runs_drive else tree())
        self._errors = Path(self._temporary.name) / "stderr"
        self._start_file = Path(self._temporary.name) / "start.json"  # MicroPython takes no argument above 255 bytes
        self._mounted = Path(self._temporary.name) / "mounted"
        self._partial_line = ""
        self._safe_mode = self._safe_mode_next = ""
        self._reset_reason = RESET_REASON
        self._table_is_torn = False
        self._drive_is_ours = not self._runs_drive
        self._autoreload, self._in_repl = True, False
        self._powered = self._in_bootloader = False
        self._next: Callable[[], None] | None = None  # what the request just answered leads to
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
            ord("L"): self._ask_soft_reboot,
            ord("M"): self._choose_next_mode,
            ord("B"): lambda request: bytes([self.button_pressed]),
            ord("O"): self._own_drive,
            ord("W"): self._count_drive_step,
            ord("P"): self._lose_power,
            ord("E"): self._erase_drive,
            ord("A"): self._set_autoreload,
            ord("Z"): self._enter_repl,
            ord("U"): self._start_usb,
            ord("K"): self._send,
            ord("I"): self._receive,
            ord("J"): self._encrypt,
            ord("m"): self._mount_volume,
        }
        if self.flash is not None:
            self._ops |= FlashPort(self.flash).ops
        if program is not None:
            self._mount()
            if settings is not None and not (self.drive / "settings.toml").exists():
                self._write_settings(settings)
            return
        if usb is not None and not (self.drive / "code.py").exists() and not (self.drive / "main.py").exists():
            self._format_drive()
        if settings is not None or not (self.drive / "settings.toml").exists():
            self._write_settings(settings or {})

    def _write_settings(self, settings: Mapping[str, str | int]) -> None:
        (self.drive / "settings.toml").write_text(settings_toml(settings))

    def __enter__(self) -> Self:
        self.power_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Switch off; a drive that was not given is gone."""
        self.power_off()
        self._temporary.cleanup()

    def power_on(self, safe_mode: str = "", reset_reason: str = RESET_REASON) -> None:
        """Start as after a reset; `safe_mode` is the name of CircuitPython's reason to be in it, if it is.

        `reset_reason` is one of microcontroller.ResetReason's names.
        """
        self._powered, self._in_bootloader = True, False
        if self.program is not None and not self.program.boots():
            return
        if self._table_is_torn:
            self._new_drive()
        if self.program is not None and self.program.drive_is_new:
            self._mount()
        self._safe_mode, self._reset_reason = safe_mode, reset_reason
        self._drive_is_ours = not self._runs_drive
        self._autoreload, self._in_repl = not safe_mode, False
        if self.flash is not None:
            self.flash.power_up()
        self.boots += 1
        self._start()

    def _start(self, *, soft: bool = False, raw: bool = False) -> None:
        """A new interpreter: from boot.py on, or after a soft reboot without it, and then perhaps in the raw REPL."""
        from_swan, swan_out = os.pipe()
        swan_in, to_swan = os.pipe()
        start = {
            "soft": soft,
            "raw": raw,
            "console": self._runs_drive,
            "safe_mode": self._safe_mode,
            "reset_reason": self._reset_reason,
            "drive": str(self.drive),
            "ring": self._ring(),
            "capacity": self.drive_bytes,
            "mounted": str(self._mounted),
            "board": self._board,
            "version": self._version,
            "packages": str(Path(np.__file__).parents[1]) if self._has_model() else "",
        }
        arguments = [str(swan_in), str(swan_out), str(self._firmware.device), str(self._firmware.boot)]
        self._start_file.write_text(json.dumps(start))
        with self._errors.open("wb") as errors:
            self._child = subprocess.Popen(
                [*self._runtime.command, *arguments, str(self._start_file)],
                cwd=self.drive,
                stdin=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(swan_in, swan_out),
            )
        os.close(swan_in)
        os.close(swan_out)
        self._fds = (from_swan, to_swan)
        self._stream = Stream(from_swan, to_swan)
        self._partial_line = ""
        self._next = None

    def _has_model(self) -> bool:
        """On its drive, or in a slot that an update by file has written to."""
        slots = [self.drive / name for name in SLOTS if name.startswith("model")]
        used = [path for path in slots if path.is_file() and path.read_bytes().strip(b"\xff")]
        return bool(used) or (self.drive / MODEL_FILE).is_file()

    def _ring(self) -> dict[str, str | int] | None:
        """Where on the flash the ring's file is."""
        if self.flash is None:
            return None
        try:
            found = fat12.locate(b"".join(self.flash.pages), RING_FILE)
        except Fat12Error:  # erased or torn: nobody finds a drive there
            return None
        return None if found is None else {"name": RING_FILE, "first_block": found[0], "bytes": found[1]}

    def power_off(self) -> None:
        """Cut the power: whatever the firmware was doing, it is gone."""
        if self._powered:
            self._stop()
            self._powered = self._in_bootloader = False
            if self.usb is not None:
                self.usb.unplug()

    def _stop(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        for fd in self._fds:
            os.close(fd)
        self._child = None

    @property
    def has_power(self) -> bool:
        """Also while nothing runs: in the ROM's bootloader, or without an interpreter that boots."""
        return self._powered

    @property
    def runs(self) -> bool:
        """Whether an interpreter does."""
        return self._child is not None

    @property
    def in_bootloader(self) -> bool:
        """Whether the ROM's bootloader listens."""
        return self._in_bootloader

    def enter_bootloader(self) -> None:
        """A reset with BOOT high, on a board that has power."""
        if self._powered:
            self._stop()
            self._in_bootloader = True

    def reset(self, safe_mode: str = "", reset_reason: str = RESET_REASON) -> None:
        """Start anew; with `safe_mode` as after CircuitPython's own crash, say HARD_FAULT."""
        self.power_off()
        self.power_on(safe_mode, reset_reason)

    def _soft_reboot(self, *, raw: bool) -> None:
        self._stop()
        self._in_repl = False
        self._start(soft=True, raw=raw)

    def run(self, until: Callable[[], bool]) -> None:
        """Serve the firmware until `until()` holds, which is asked after every request. Raises SwanCrashError."""
        while not until():
            self.step()

    def step(self) -> None:
        """Serve one request of the firmware, or let a board that runs none stand for a while."""
        child = self._child
        try:
            if child is None:
                self._wait(SILENT_NS)
            else:
                self._answer(child)
        except PowerLostError:
            self.power_off()

    def _answer(self, child: "subprocess.Popen[bytes]") -> None:
        request = self._stream.request()
        if request is None:
            raise SwanCrashError(self._last_words())
        status, data = self._carry_out(request)
        if self._child is not child:  # the power went, or somebody has reset the board
            return
        if self.usb is not None and self._runs_code(request) and self.usb.interrupted():
            status, data = INTERRUPTED, b""
        self._stream.reply(status, data)
        if self._next is not None:
            self._next()

    def _carry_out(self, request: Request) -> tuple[int, bytes]:
        if request.op == ord("T"):
            self._charge_bus_call()
        if self._agenda is not None:
            self._agenda.advance()
        for fault in self.faults:
            fault(request)
        served = carry_out(request, self.bus, self._ops)
        if self.flash is not None:
            self.flash.background()
        return served

    @staticmethod
    def _runs_code(request: Request) -> bool:
        """Whether it comes from a program, which Ctrl-C interrupts; transfers on the bus are not marked."""
        return request.op not in b"TX" and bool(request.address)

    def _last_words(self) -> str:
        error = self._errors.read_text(errors="replace").strip()
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
            self._wait(int((wake - now) / (1 + self.timing.crystal_ppm / 1e6)) + 1)
        return b""

    def _wait(self, duration_ns: int) -> None:
        """With an agenda, what is on it happens in time, and may end the waiting along with the interpreter."""
        if self._agenda is None:
            self.clock.sleep(duration_ns)
            return
        child, until_ns = self._child, self.clock.now_ns() + duration_ns
        while self._child is child and (now_ns := self.clock.now_ns()) < until_ns:
            self.clock.sleep(max(0, min(until_ns, self._agenda.due_ns()) - now_ns))
            self._agenda.advance()

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
        if self.flash is not None:
            self.flash.flush()
        safe_mode, self._safe_mode_next = self._safe_mode_next, ""
        self._next = lambda: self.reset(safe_mode)
        return b""

    def _ask_soft_reboot(self, request: Request) -> bytes:
        raw = bool(request.written[0])
        self._next = lambda: self._soft_reboot(raw=raw)
        return b""

    def _choose_next_mode(self, request: Request) -> bytes:
        self._safe_mode_next = request.written.decode()
        return b""

    @staticmethod
    def _encrypt(request: Request) -> bytes:
        """AES in CBC mode: key, chain so far, and what to encrypt. Not charged, as encoding is not."""
        key, chain, data = request.written[:16], request.written[16:32], request.written[32:]
        return Cipher(AES(key), CBC(chain)).encryptor().update(data)

    # --- the drive ------------------------------------------------------------------------------------------------

    def _own_drive(self, request: Request) -> bytes:
        if request.written:
            self._drive_is_ours = bool(request.written[0])
        return bytes([self._drive_is_ours])

    def _count_drive_step(self, request: Request) -> bytes:
        self.drive_steps.append(request.written.decode())
        if len(self.drive_steps) != self.cut_at:
            return b""
        self._table_is_torn = self.cut is PowerCut.table and self.drive_steps[-1] != "write in place"
        return b"\x02" if self.cut is PowerCut.midway else b"\x01"

    def _format_drive(self) -> None:
        """What CircuitPython puts on a new drive (circuitpython:supervisor/shared/filesystem.c)."""
        (self.drive / "lib").mkdir(exist_ok=True)
        (self.drive / "code.py").write_text(DEFAULT_CODE)
        (self.drive / "settings.toml").touch()

    def _new_drive(self) -> None:
        shutil.rmtree(self.drive)
        self.drive.mkdir()
        self._format_drive()
        if self.flash is not None:
            self.flash.load(fat12.volume({}))
        self._table_is_torn = False

    def _mount_volume(self, request: Request) -> bytes:
        """The files of a volume that the firmware mounts, of which it has left the image: 1 when there are some."""
        try:
            files = fat12.read(self._mounted.with_suffix(".img").read_bytes())
            self._extract(files, self._mounted)
        except (Fat12Error, OSError):
            return b"\x00"
        return b"\x01"

    def _mount(self) -> None:
        """Take the files from the drive's FAT."""
        if self.program is None:
            return
        try:
            files = fat12.read(b"".join(self.program.drive.pages))
            self._extract({name: files[name] for name in files if name != RING_FILE}, self.drive)
        except (Fat12Error, OSError):
            self._new_drive()
        self.program.drive_is_new = False

    @staticmethod
    def _extract(files: Mapping[str, bytes], folder: Path) -> None:
        """Raises OSError for names that no folder holds."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, content in files.items():
            path = folder / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def _erase_drive(self, request: Request) -> bytes:
        self._new_drive()
        return self._ask_reset(request)

    def _lose_power(self, request: Request) -> bytes:
        self.power_off()
        return b""

    def pc_writes(self, name: str, data: bytes) -> None:
        """The PC changes a file over USB, and CircuitPython reloads unless somebody is in the REPL.

        Raises PermissionError when the drive belongs to the firmware.
        """
        if self._drive_is_ours:
            raise PermissionError(f"{name}: the drive is read-only for the PC")
        path = self.drive / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if self._autoreload and not self._in_repl:
            self._next = lambda: self._soft_reboot(raw=False)

    def _set_autoreload(self, request: Request) -> bytes:
        if request.written:
            self._autoreload = bool(request.written[0])
        return bytes([self._autoreload])

    # --- the console ------------------------------------------------------------------------------------------------

    def _enter_repl(self, request: Request) -> bytes:
        self._in_repl = True
        return b""

    def _start_usb(self, request: Request) -> bytes:
        """boot.py has ended."""
        if self.usb is not None and not self.usb.plugged_in:
            self.usb.plug_in()
        return b""

    def _send(self, request: Request) -> bytes:
        if self.usb is not None:
            self.usb.write(request.written)
        return b""

    def _receive(self, request: Request) -> bytes:
        if self.usb is None:
            self._wait(SILENT_NS)
            return b""
        return self.usb.read(_INPUT_S, request.read_length)

    def _print(self, request: Request) -> bytes:
        if self.usb is not None:
            self.usb.write(request.written.replace(b"\n", b"\r\n"))
        *lines, self._partial_line = (self._partial_line + request.written.decode(errors="replace")).split("\n")
        for line in lines:
            self.lines.append(line)
            self.on_line(line)
        return b""
