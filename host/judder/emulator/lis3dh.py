"""Emulated LIS3DH accelerometer at register level, with a FIFO that fills by the bench's clock.

Documents: ST DocID17530 Rev 2 (DS, registers in sections 7-8), ST AN3308 Rev 3 (AN, FIFO in section 9).

The FIFO holds consecutive samples, so it needs no storage: two sample numbers say what is unread, and a sample's
value is computed when somebody reads it. A year of idling costs nothing, and the truth about every sample (when it
was taken, whether it was ever read) stays known: that is what the tests hold the firmware's claims against.

A sensor that is told to measure otherwise (rate, mode, full scale, filter) starts a new `Run`: new phase, new
settling samples. DS and AN do not say whether a change of full scale alone restarts the phase; here it does.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from judder.emulator.clock import Clock

FloatArray = NDArray[np.float64]
CountArray = NDArray[np.int16]
Given = tuple[int, bytes]  # sample number, x y z as on the bus
Response = Callable[[FloatArray], FloatArray]

ADDRESS = 0x18
FIFO_DEPTH = 32
BOOT_NS = 5_000_000
NOISE_G_PER_ROOT_HZ = 220e-6  # DS table 4, +-2 g, high resolution
BLOCK = 512  # samples computed together

STATUS_REG_AUX, OUT_ADC3_L, OUT_ADC3_H, WHO_AM_I = 0x07, 0x0C, 0x0D, 0x0F
CTRL_REG0, TEMP_CFG_REG, CTRL_REG1, CTRL_REG2 = 0x1E, 0x1F, 0x20, 0x21
CTRL_REG3, CTRL_REG4, CTRL_REG5 = 0x22, 0x23, 0x24
REFERENCE, STATUS_REG, OUT_X_L, OUT_Z_H = 0x26, 0x27, 0x28, 0x2D
FIFO_CTRL_REG, FIFO_SRC_REG, INT1_SRC, INT2_SRC, CLICK_SRC = 0x2E, 0x2F, 0x31, 0x35, 0x39

RESET_VALUES = {CTRL_REG0: 0x10, CTRL_REG1: 0x07}  # DS table 21; all others 0
READ_ONLY = {*range(0x07, 0x10), *range(STATUS_REG, OUT_Z_H + 1), FIFO_SRC_REG, INT1_SRC, INT2_SRC, CLICK_SRC}
RESERVED = {*range(0x07), 0x0E, *range(0x10, 0x1E), *range(0x40, 0x80)}

ODR_HZ = {1: 1, 2: 10, 3: 25, 4: 50, 5: 100, 6: 200, 7: 400, 8: 1600, 9: 1344}  # DS table 31; code 9 in low power: 5376
SENSITIVITY_MG = {8: (16, 32, 64, 192), 10: (4, 8, 16, 48), 12: (1, 2, 4, 12)}  # by bits and FS code, DS table 4


class Source(Protocol):
    """Where vibration comes from: an emulated machine or a recording."""

    def acceleration(self, times_s: FloatArray, response: Response) -> FloatArray:
        """Acceleration in g, shape (n, 3), at `times_s`, after a filter of magnitude `response(f_hz)`."""


@dataclass(frozen=True)
class Settings:
    """What the control registers ask of the measuring chain."""

    odr_code: int
    low_power: bool
    high_resolution: bool
    full_scale_code: int
    axes: int
    high_pass_code: int | None

    @property
    def odr_hz(self) -> float:
        if self.odr_code == 9 and self.low_power:
            return 5376
        return ODR_HZ.get(self.odr_code, 0)

    @property
    def bits(self) -> int:
        return 8 if self.low_power else 12 if self.high_resolution else 10

    @property
    def bandwidth_hz(self) -> float:
        return self.odr_hz / (9 if self.high_resolution and not self.low_power else 2)

    @property
    def allowed(self) -> bool:
        return not (self.low_power and self.high_resolution)


@lru_cache(maxsize=64)
def response(bandwidth_hz: float, high_pass_hz: float) -> Response:
    """The measuring chain's magnitude: -3 dB at the bandwidth (DS table 10), fourth order; the order is assumed.

    The same object comes back for the same arguments, so that a source can keep what it computed for it.
    """

    def gain(frequency_hz: FloatArray) -> FloatArray:
        low_pass = 1 / np.sqrt(1 + (frequency_hz / bandwidth_hz) ** 8)
        if not high_pass_hz:
            return low_pass
        return low_pass * frequency_hz / np.hypot(frequency_hz, high_pass_hz)

    return gain


@dataclass
class Run:
    """Samples of one uninterrupted measurement: sample k of the run is taken at `arrival_ns(k)`."""

    first: int
    started_ns: int
    period_ns: float
    settings: Settings
    drift_per_s: float = 0.0
    jitter_ns: FloatArray = field(default_factory=lambda: np.zeros(1))

    def taken_by(self, now_ns: int) -> int:
        """How many samples of this run exist at `now_ns`."""
        elapsed_ns = now_ns - self.started_ns
        if elapsed_ns < 0 or not self.settings.odr_hz:
            return 0
        count = int(elapsed_ns * (1 + self.drift_per_s * elapsed_ns / 2e9) / self.period_ns)
        if self.jitter_ns.size > 1:
            while self.arrival_ns(count) <= now_ns:
                count += 1
            while count and self.arrival_ns(count - 1) > now_ns:
                count -= 1
        return count

    def arrival_ns(self, k: int) -> int:
        return int(self.arrivals_ns(np.array([k]))[0])

    def arrivals_ns(self, k: NDArray[np.int64]) -> FloatArray:
        elapsed = (k + 1) * self.period_ns
        if self.drift_per_s:
            drift = self.drift_per_s / 1e9
            elapsed = 2 * elapsed / (1 + np.sqrt(1 + 2 * drift * elapsed))
        result: FloatArray = self.started_ns + elapsed + self.jitter_ns[k % self.jitter_ns.size]
        return result


class LIS3DH:
    """The chip on the bus. Everything a test may set or read about it is a public attribute.

    `odr_error` is this part's deviation from the nominal rate (0.02 = 2 % fast), `jitter` the standard deviation of
    one sample's instant as a fraction of the period, `drift_per_s` the relative change of rate in a second.
    """

    def __init__(
        self,
        clock: Clock,
        source: Source,
        *,
        odr_error: float = 0.0,
        drift_per_s: float = 0.0,
        jitter: float = 0.0,
        noise: bool = True,
        offset_g: tuple[float, float, float] = (0.0, 0.0, 0.0),
        gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.clock = clock
        self.source = source
        self.odr_error = odr_error
        self.drift_per_s = drift_per_s
        self.noise = noise
        self.offset_g = offset_g
        self.gain = gain
        self.seed = seed
        self.who_am_i = 0x33
        self.temperature_degc = 0.0
        self.empty_needs_extra_read = True  # AN section 9: EMPTY rises only after one read too many
        self.stuck_fifo = False
        self.violations: list[str] = []
        self._lost = 0
        self.overreads = 0  # sets given a second time because the FIFO was empty
        self.given: deque[Given] = deque(maxlen=65536)  # every sample given over the bus, for the record
        self.given_at_ns: deque[int] = deque(maxlen=65536)  # and when
        jitter_rng = np.random.default_rng([seed, 0x1D])
        self._jitter_unit = np.clip(jitter_rng.normal(0, jitter, 4096), -0.4, 0.4) if jitter else np.zeros(1)
        self._runs: deque[Run] = deque(maxlen=64)
        self._block: CountArray = np.empty((0, 3), np.int16)
        self._block_in_fifo = b""
        self._block_first = self._block_end = 0
        self._power_up(0)

    # --- ground truth -------------------------------------------------------------------------------------------

    @property
    def lost(self) -> int:
        """Samples overwritten unread in stream mode, up to now."""
        self._settle(self.clock.now_ns())
        return self._lost

    def arrival_ns(self, sample: int) -> int:
        """The true instant at which sample number `sample` was taken."""
        run = self._run_of(sample)
        return run.arrival_ns(sample - run.first)

    def true_odr_hz(self) -> float:
        """The rate at which this part really samples with its present settings."""
        return 1e9 / self._runs[-1].period_ns

    def brown_out(self) -> None:
        """Lose power for an instant: registers back to their reset values, FIFO empty."""
        self._power_up(self._produced(self.clock.now_ns()))

    def interrupt1(self) -> None:
        """An event on IA1: in stream-to-FIFO mode the FIFO stops being a stream (AN section 9.3.4)."""
        self._settle(self.clock.now_ns())
        self._triggered = True

    # --- the bus ------------------------------------------------------------------------------------------------

    def answers(self) -> bool:
        return True

    def write(self, data: bytes, byte_ns: int) -> bool:
        self._pointer, self._auto = data[0] & 0x7F, bool(data[0] & 0x80)
        for offset, value in enumerate(data[1:], start=1):
            self._write_register(self._pointer, value, self.clock.now_ns() + offset * byte_ns)
            self._advance_pointer()
        return True

    def read(self, length: int, byte_ns: int) -> bytes:
        now_ns = self.clock.now_ns()
        if self._fifo_enabled and self._auto and self._pointer == OUT_X_L and not self._byte_of_set:
            sets, rest = divmod(length, 6)
            data = b"".join(self._read_set(now_ns + 6 * i * byte_ns) for i in range(sets))
        else:
            data, rest = b"", length
        start_ns = now_ns + len(data) * byte_ns
        return data + bytes(self._read_next(start_ns + i * byte_ns) for i in range(rest))

    def _read_next(self, now_ns: int) -> int:
        value = self._read_register(self._pointer, now_ns)
        self._advance_pointer()
        return value

    def _advance_pointer(self) -> None:
        if not self._auto:
            return
        wraps = self._fifo_enabled and self._pointer == OUT_Z_H
        self._pointer = OUT_X_L if wraps else (self._pointer + 1) & 0x7F

    # --- registers ----------------------------------------------------------------------------------------------

    def _power_up(self, first: int) -> None:
        self._registers = bytearray(0x80)
        for register, value in RESET_VALUES.items():
            self._registers[register] = value
        self._pointer, self._auto = 0, False
        self._boot_until_ns = 0
        self._byte_of_set = 0
        self._latched: list[int | None] = [None, None, None]
        self._last_set = bytes(6)
        self._head = self._tail = first  # unread samples are numbers tail..head-1
        self._read_number = [first - 1] * 3
        self._extra_read = True
        self._full = self._triggered = False
        self._start_run(self.clock.now_ns(), first)

    def _settings(self) -> Settings:
        ctrl1, ctrl2, ctrl4 = (self._registers[r] for r in (CTRL_REG1, CTRL_REG2, CTRL_REG4))
        return Settings(
            odr_code=ctrl1 >> 4,
            low_power=bool(ctrl1 & 0x08),
            high_resolution=bool(ctrl4 & 0x08),
            full_scale_code=ctrl4 >> 4 & 3,
            axes=ctrl1 & 7,
            high_pass_code=ctrl2 >> 4 & 3 if ctrl2 & 0x08 else None,
        )

    def _start_run(self, now_ns: int, first: int) -> None:
        settings = self._settings()
        period_ns = 1e9 / (settings.odr_hz * (1 + self.odr_error)) if settings.odr_hz else math.inf
        jitter_ns = self._jitter_unit * period_ns if settings.odr_hz else np.zeros(1)
        if not settings.allowed:
            self.violations.append("LPen and HR both set: not allowed (DS table 10)")
        self._block_end = min(self._block_end, first)
        self._runs.append(Run(first, now_ns, period_ns, settings, self.drift_per_s, jitter_ns))

    def _write_register(self, register: int, value: int, now_ns: int) -> None:
        if register in READ_ONLY or register in RESERVED:
            self.violations.append(f"write of 0x{value:02X} to read-only or reserved register 0x{register:02X}")
            return
        self._settle(now_ns)
        self._registers[register] = value
        if register in (CTRL_REG1, CTRL_REG2, CTRL_REG4) and self._settings() != self._runs[-1].settings:
            self._start_run(now_ns, self._produced(now_ns))
        elif register == CTRL_REG5 and value & 0x80:
            self._boot_until_ns = now_ns + BOOT_NS
        if register in (CTRL_REG5, FIFO_CTRL_REG) and not self._collecting:
            self._clear_fifo()

    def _read_register(self, register: int, now_ns: int) -> int:
        self._settle(now_ns)
        if OUT_X_L <= register <= OUT_Z_H:
            return self._read_output(register - OUT_X_L, now_ns)
        if register == FIFO_SRC_REG:
            return self._fifo_source()
        if register == STATUS_REG:
            return self._status(now_ns)
        if register == WHO_AM_I:
            return self.who_am_i
        if register in (OUT_ADC3_L, OUT_ADC3_H):
            return self._temperature() >> 8 * (register - OUT_ADC3_L) & 0xFF
        if register == CTRL_REG5 and now_ns >= self._boot_until_ns:
            self._registers[CTRL_REG5] &= 0x7F
        return self._registers[register]

    def _temperature(self) -> int:
        enabled = self._registers[TEMP_CFG_REG] & 0xC0 == 0xC0 and self._registers[CTRL_REG4] & 0x80
        if not enabled:
            return 0
        bits = 8 if self._runs[-1].settings.low_power else 10
        return round(self.temperature_degc * 256) & ~((1 << 16 - bits) - 1) & 0xFFFF

    # --- status and direct output -------------------------------------------------------------------------------

    def _status(self, now_ns: int) -> int:
        newest = self._produced(now_ns) - 1
        fresh = [newest > number for number in self._read_number]
        overrun = [newest > number + 1 for number in self._read_number]
        bits = sum(1 << axis for axis in range(3) if fresh[axis]) | (0x08 if all(fresh) else 0)
        return bits | sum(0x10 << axis for axis in range(3) if overrun[axis]) | (0x80 if all(overrun) else 0)

    def _read_output(self, offset: int, now_ns: int) -> int:
        if self._fifo_enabled:
            return self._read_fifo_byte(offset, now_ns)
        axis, high = divmod(offset, 2)
        newest = self._produced(now_ns) - 1
        held = self._latched[axis]
        if held is not None and self._registers[CTRL_REG4] & 0x80:  # BDU: the pair read so far stays together
            newest = held
        value = int(self._sample(newest)[axis]) & 0xFFFF
        if high:
            self._latched[axis] = None
            self._read_number[axis] = newest
            if axis == 2:
                self.given.append((newest, self._sample(newest).astype("<i2").tobytes()))
                self.given_at_ns.append(now_ns)
        else:
            self._latched[axis] = newest
        return value >> 8 if high else value & 0xFF

    # --- FIFO ---------------------------------------------------------------------------------------------------

    @property
    def _fifo_enabled(self) -> bool:
        return bool(self._registers[CTRL_REG5] & 0x40)

    @property
    def _fifo_mode(self) -> int:
        return self._registers[FIFO_CTRL_REG] >> 6

    @property
    def _collecting(self) -> bool:
        return self._fifo_enabled and self._fifo_mode != 0

    def _clear_fifo(self) -> None:
        self._tail = self._head
        self._byte_of_set = 0
        self._full = self._triggered = False
        self._extra_read = True

    def _produced(self, now_ns: int) -> int:
        run = self._runs[-1]
        return run.first + run.taken_by(now_ns)

    def _settle(self, now_ns: int) -> None:
        """Let the samples taken up to now into the FIFO."""
        produced = self._produced(now_ns)
        if not self._collecting:
            self._head = self._tail = produced
            return
        if self.stuck_fifo or self._full:
            return
        as_stream = self._fifo_mode == 2 or (self._fifo_mode == 3 and not self._triggered)
        if produced - self._tail > FIFO_DEPTH:
            if as_stream:
                self._lost += produced - self._tail - FIFO_DEPTH
                self._tail = produced - FIFO_DEPTH
            else:
                produced = self._tail + FIFO_DEPTH
        if produced != self._head:
            self._head = produced
            self._extra_read = False
        self._full = not as_stream and self._head - self._tail == FIFO_DEPTH

    def _fifo_source(self) -> int:
        if not self._collecting:
            return 0x20
        level = self._head - self._tail
        watermark = 0x80 if level > self._registers[FIFO_CTRL_REG] & 0x1F else 0
        overrun = 0x40 if level >= FIFO_DEPTH else 0
        empty = 0x20 if not level and (self._extra_read or not self.empty_needs_extra_read) else 0
        return watermark | overrun | empty | min(level, FIFO_DEPTH - 1)

    def _read_set(self, now_ns: int) -> bytes:
        self._settle(now_ns)
        if self._head > self._tail:
            self._last_set = self._fifo_sample(self._tail)
            self.given.append((self._tail, self._last_set))
            self.given_at_ns.append(now_ns)
            self._tail += 1
        elif self._collecting:
            self.overreads += 1
            self._extra_read = True
        return self._last_set

    def _read_fifo_byte(self, offset: int, now_ns: int) -> int:
        if not self._byte_of_set:
            self._current_set = self._read_set(now_ns)
        self._byte_of_set = (self._byte_of_set + 1) % 6
        return self._current_set[offset]

    def _fifo_sample(self, number: int) -> bytes:
        offset = 6 * self._load_block(number)
        return self._block_in_fifo[offset : offset + 6]

    # --- the measuring chain ------------------------------------------------------------------------------------

    def _run_of(self, number: int) -> Run:
        for run in reversed(self._runs):
            if number >= run.first:
                return run
        raise LookupError(f"sample {number} is older than the runs the chip remembers")

    def _sample(self, number: int) -> CountArray:
        """Left-justified output of one sample, shape (3,)."""
        if number < self._runs[0].first:
            return np.zeros(3, np.int16)
        offset = self._load_block(number)
        row: CountArray = self._block[offset]
        return row

    def _load_block(self, number: int) -> int:
        """Have the block of sample `number` at hand; returns the sample's place in it."""
        if not self._block_first <= number < self._block_end:
            run = self._run_of(number)
            block = (number - run.first) // BLOCK
            self._block = self._measure(run, block)
            # 10 bits wide whatever the mode (DS section 3.6, and ST staff on community.st.com t/440261)
            self._block_in_fifo = (self._block & np.int16(-64)).astype("<i2").tobytes()
            self._block_first = run.first + block * BLOCK
            self._block_end = min(self._block_first + BLOCK, self._end_of(run))
        return number - self._block_first

    def _end_of(self, run: Run) -> int:
        """Number of the first sample that no longer belongs to `run`."""
        later = [other.first for other in self._runs if other.started_ns > run.started_ns]
        return min(later, default=run.first + (1 << 62))

    def _measure(self, run: Run, block: int) -> CountArray:
        """Samples block*BLOCK.. of a run: acceleration, filter, offset, noise, clip, quantise, left-justify."""
        settings = run.settings
        rng = np.random.default_rng([self.seed, run.first, block])
        if not settings.allowed:
            return rng.integers(-32768, 32768, (BLOCK, 3)).astype(np.int16)
        k = np.arange(block * BLOCK, (block + 1) * BLOCK)
        times_s = run.arrivals_ns(k) / 1e9
        code = settings.high_pass_code
        high_pass_hz = 0.0 if code is None else settings.odr_hz / (50, 100, 200, 400)[code]
        g = self.source.acceleration(times_s, response(settings.bandwidth_hz, high_pass_hz))
        g = g * self.gain + np.asarray(self.offset_g)
        if self.noise:
            g = g + rng.normal(0, NOISE_G_PER_ROOT_HZ * math.sqrt(settings.bandwidth_hz), g.shape)
        settling = 7 if settings.high_resolution else 2
        g = g * np.where(k < settling, (k + 1) / (settling + 1), 1.0)[:, None]
        return self._quantise(g, settings)

    @staticmethod
    def _quantise(g: FloatArray, settings: Settings) -> CountArray:
        bits = settings.bits
        counts = np.rint(g * 1000 / SENSITIVITY_MG[bits][settings.full_scale_code])
        counts = np.clip(counts, -(1 << bits - 1), (1 << bits - 1) - 1)
        counts[:, [axis for axis in range(3) if not settings.axes >> axis & 1]] = 0
        return (counts.astype(np.int16) << (16 - bits)).astype(np.int16)
