"""One emulated bench: a machine, the LIS3DH on it, the Notecard, and the Swan that runs the firmware.

Fixed conditions, drawn from the seed, so that a run says something about real parts and can be repeated: ODR off by
up to 5 % (real parts: 2-3 %), crystal off by up to 20 ppm, CPU, garbage collection and bus time charged, and stalls
of up to 10 ms at random (judder.emulator.swan.Timing).

The ring's file is on the board's flash as `judder deploy` leaves it, unless the board lies on a desk: with a `usb` port
its drive is a folder, and deploy makes ring.bin there. `ring_bytes` 0: a board without it, which keeps windows in RAM.

With `image`, a binpack, the board was made from it: its whole flash is there, it runs what is on its drive (`settings`
are written there if the image has none), and the Notecard can write another one over it. Raises BinpackError, or
ValueError for parts outside of the flash. One supply feeds both then (`one_supply`): a cut takes the Notecard along.

The firmware prints a line when it has committed a window and one when the server has acknowledged it. From the first
the bench takes the truth about that window: which samples the chip gave, when it took them, how many it lost. What
became of those that a power cut takes is for the server's account to say. A window that the firmware keeps back is true
to the bench, too: it may follow when an event does.
"""

import os
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from zlib import crc32

import numpy as np

from judder import fat12
from judder.binpack import unpack
from judder.board import MODEL_FILE, RING_BYTES, RING_FILE, SETTINGS_FILE, Tree
from judder.emulator.clock import Clock, VirtualClock
from judder.emulator.flash import Flash
from judder.emulator.i2c import I2CBus
from judder.emulator.lis3dh import ADDRESS as LIS3DH_ADDRESS
from judder.emulator.lis3dh import LIS3DH, Source
from judder.emulator.notecard import ADDRESS as NOTECARD_ADDRESS
from judder.emulator.notecard import Notecard, NotecardI2C, Sender
from judder.emulator.program import Program
from judder.emulator.runtime import Runtime
from judder.emulator.swan import BOARD, Swan, Timing
from judder.emulator.usb import UsbPort

ODR_ERROR = 0.05
CRYSTAL_PPM = 20.0
DRAINED_NS = 86400 * 10**9  # the board holds outboard updates back for longer than that while windows wait
OFF_NS = 5 * 10**9  # how long a board whose power went stays off
PRODUCT = "com.example.judder:bench"

Key = tuple[int, int]
_WINDOW_LINE = re.compile(
    r"window ([0-9a-f]{8}):(\d+) (captured: (\d+) samples|captured (\d+) before|stored|lost: (\w+))"
)
_KEPT_BACK_LINE = re.compile(r"window kept back: (\d+) samples")


@dataclass(frozen=True)
class Truth:
    """What really happened while a window was captured; none of it is known to the firmware."""

    samples: int
    lost: int
    repeated: int
    interval_s: float
    first_sample_utc_s: float
    counts_crc: int
    """CRC-32 of the samples as they were on the bus, right-justified (little-endian int16, x, y, z)."""
    flash_steps: int
    """Erases and programs of the flash, which stop everything, from the first to the last read of its samples."""


class Bench:
    """One device and everything around it, on a clock of its own. `usb` and `drive`: see Swan."""

    def __init__(
        self,
        source: Source,
        send: Sender,
        *,
        seed: int = 0,
        settings: Mapping[str, str | int] | None = None,
        timing: Timing | None = None,
        odr_error: float | None = None,
        salt: int = 0,
        firmware: Tree | None = None,
        runtime: Runtime | None = None,
        usb: UsbPort | None = None,
        drive: Path | None = None,
        clock: Clock | None = None,
        board: str = BOARD,
        ring_bytes: int = RING_BYTES,
        image: bytes | None = None,
        on_line: Callable[[str, str], None] = lambda device, line: None,
    ) -> None:
        if image is not None and (firmware or usb or drive):
            raise ValueError("a board made from an image runs what is in it: give no firmware, usb or drive")
        drawn = random.Random(seed)
        self.device = f"dev:8644750{seed % 10**8:08d}"
        self.clock = clock or VirtualClock()
        self.bus = I2CBus(self.clock)
        drawn_error = drawn.uniform(-ODR_ERROR, ODR_ERROR)
        self.lis3dh = LIS3DH(
            self.clock, source, odr_error=drawn_error if odr_error is None else odr_error, seed=drawn.randrange(2**32)
        )
        self.notecard = Notecard(self.clock, send, device=self.device, hub={"product": PRODUCT})
        self.bus.attach(LIS3DH_ADDRESS, self.lis3dh)
        self.bus.attach(NOTECARD_ADDRESS, NotecardI2C(self.notecard))
        crystal_ppm = drawn.uniform(-CRYSTAL_PPM, CRYSTAL_PPM)
        program = None if image is None else _program(self.clock, image, seed)
        self.swan = Swan(
            self.clock,
            self.bus,
            settings=settings,
            timing=replace(timing or Timing(), crystal_ppm=crystal_ppm),
            seed=drawn.randrange(2**32) + salt,
            on_line=self._see,
            firmware=firmware,
            runtime=runtime,
            usb=usb,
            drive=drive,
            flash=None if usb is not None or program is not None else _flash(self.clock, ring_bytes, seed),
            program=program,
            agenda=None if program is None else self.notecard.agenda,
            board=board,
        )
        if program is not None:
            self.notecard.outboard.wire(self.swan, program)
        self.one_supply = program is not None
        """Whether a cut takes the Notecard along."""
        self.captured: dict[Key, Truth] = {}
        self.acknowledged: set[Key] = set()
        self.given_up: dict[Key, str] = {}
        """Why, as the firmware said."""
        self.kept_back: list[Truth] = []
        """Windows that were judged not worth sending; those of them that came right before an event are sent later."""
        self.power_failures = 0
        self._unsettled: set[Key] = set()
        self._on_line = on_line
        self._stopped = False

    def __enter__(self) -> Self:
        self._share_one_core()
        self.swan.power_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.swan.__exit__(kind, error, trace)

    def run(self, windows: int, *, give_up_after_s: float = 86400) -> None:
        """Until the firmware has captured `windows`, and none waits on the board any more.

        Gives up when that has not happened `give_up_after_s` of the bench's time from now.
        """
        deadline_ns = self.clock.now_ns() + give_up_after_s * 1e9
        self._run(lambda: (len(self.captured) >= windows and self.drained) or self.clock.now_ns() > deadline_ns)

    @property
    def drained(self) -> bool:
        """Whether nothing waits on the board: all is settled, or the board holds no outboard update back for long."""
        if not self._unsettled:
            return True
        held_ns = self.notecard.outboard.allowed_from_ns - self.clock.now_ns()
        return held_ns < DRAINED_NS and next(reversed(self.captured)) not in self._unsettled

    def time_s(self, truth: Truth) -> float:
        """When a window began, on the bench's clock, as sources of vibration know it."""
        return truth.first_sample_utc_s - (self.clock.utc_ns() - self.clock.now_ns()) / 1e9

    def run_for(self, seconds: float) -> None:
        """Let the board run for a time of its own."""
        deadline_ns = self.clock.now_ns() + seconds * 1e9
        self._run(lambda: self.clock.now_ns() >= deadline_ns)

    def install(self, model: bytes) -> None:
        """Put a model on the drive, as `judder deploy` does; the board uses it from its next start on."""
        (self.swan.drive / MODEL_FILE).write_bytes(model)

    def stop(self) -> None:
        """Make a run end soon, from any thread."""
        self._stopped = True

    def _run(self, until: Callable[[], bool]) -> None:
        """A board without power gets it back."""
        while not self._stopped and not until():
            if self.swan.has_power:
                self.swan.step()
            else:
                self.power_failures += 1
                self.clock.sleep(OFF_NS)
                if self.one_supply:
                    self.notecard.brown_out()
                self.swan.power_on()

    def _see(self, line: str) -> None:
        if match := _WINDOW_LINE.match(line):
            self._see_window((int(match[1], 16), int(match[2])), match)
        elif match := _KEPT_BACK_LINE.match(line):
            self.kept_back.append(self._truth(int(match[1])))
        self._on_line(self.device, line)

    def _see_window(self, key: Key, match: re.Match[str]) -> None:
        if match[4] or match[5]:
            self.captured[key] = self._truth(int(match[4])) if match[4] else self.kept_back[-int(match[5])]
            self._unsettled.add(key)
            return
        self._unsettled.discard(key)
        if match[3] == "stored":
            self.acknowledged.add(key)
        else:
            self.given_up[key] = match[6]

    def _truth(self, samples: int) -> Truth:
        given = list(self.lis3dh.given)[-samples:]
        numbers = [number for number, _ in given]
        first, last = numbers[0], numbers[-1]
        first_ns, last_ns = self.lis3dh.arrival_ns(first), self.lis3dh.arrival_ns(last)
        repeated = samples - len(set(numbers))
        left_justified = b"".join(data for _, data in given)
        return Truth(
            samples=samples,
            lost=last - first + 1 - len(set(numbers)),
            repeated=repeated,
            interval_s=(last_ns - first_ns) / 1e9 / (last - first),
            first_sample_utc_s=(self.clock.utc_ns() - self.clock.now_ns() + first_ns) / 1e9,
            counts_crc=crc32(_right_justified(left_justified)),
            flash_steps=self._flash_steps(samples),
        )

    def _flash_steps(self, samples: int) -> int:
        if self.swan.flash is None:
            return 0
        read_ns = self.lis3dh.given_at_ns
        return sum(read_ns[-samples] <= step_ns <= read_ns[-1] for step_ns in self.swan.flash.step_ns)

    @staticmethod
    def _share_one_core() -> None:
        """Keep this thread and the child it starts on one core: they take turns, and waking across cores costs 20x."""
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {random.SystemRandom().choice(cores)})


def _flash(clock: Clock, ring_bytes: int, seed: int) -> Flash:
    """The drive with a new ring on it, as `judder deploy` leaves it: it does not begin with a page."""
    flash = Flash(clock, seed=seed)
    last = {RING_FILE: b"\xff" * ring_bytes} if ring_bytes else {}
    flash.load(fat12.volume({SETTINGS_FILE: b"\n"}, last=last))
    return flash


def _program(clock: Clock, image: bytes, seed: int) -> Program:
    """The whole flash with an image in it."""
    program = Program(Flash(clock, seed=seed), clock, seed=seed)
    program.load(unpack(image).parts)
    return program


def _right_justified(left_justified: bytes) -> bytes:
    return (np.frombuffer(left_justified, "<i2") >> 6).astype("<i2").tobytes()
