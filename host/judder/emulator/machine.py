"""An emulated rotating machine as a source of vibration: analytic in time, so that any filter is exact.

Everything periodic is a sum of sines: the shaft's fundamental and its harmonics, and the ringing that a bearing
defect strikes at its own rate, by its Fourier series. A filter then multiplies amplitudes, and what lies above half
the sensor's rate folds when it is sampled, exactly as far as the filter lets it through.

`Machine` always runs alike; `Service` is one that works for its living.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
Response = Callable[[FloatArray], FloatArray]

NEGLIGIBLE_G = 1e-6
_RINGING_LIMIT_HZ = 8000.0


@dataclass(frozen=True)
class Machine:
    """A machine whose shaft turns at `shaft_hz`; amplitudes are peak values in g.

    `harmonics` are amplitudes of multiples 2, 3, ... of the shaft rate. `imbalance` scales the fundamental, which
    turns: x and y are a quarter of a revolution apart. A bearing defect strikes `bearing_ratio` times a revolution,
    and each strike rings at `ringing_hz`, dying away with `ringing_decay_s`.
    """

    shaft_hz: float = 29.2
    fundamental_g: float = 0.1
    harmonics_g: tuple[float, ...] = (0.03, 0.02, 0.01)
    imbalance: float = 1.0
    bearing_g: float = 0.02
    bearing_ratio: float = 3.57
    ringing_hz: float = 480.0
    ringing_decay_s: float = 0.004
    gravity_g: tuple[float, float, float] = (0.0, 0.0, 1.0)

    @classmethod
    def demo(cls) -> Self:
        """The machine of `judder demo`, always the same."""
        return cls()

    @classmethod
    def in_service(cls) -> Self:
        """The machine that detection is shown on: its bearing strikes with 60 mg.

        Of the demo's 20 mg the sensor shows less than its noise, and models find few windows with 20 % more of them
        (tests/bench/bench_detection.py).
        """
        return cls(bearing_g=0.06)

    def acceleration(self, times_s: FloatArray, response: Response) -> FloatArray:
        """Acceleration in g, shape (n, 3), after a filter of magnitude `response(f_hz)`."""
        frequencies_hz, cosines, sines = _kept(self, response)
        return _summed(np.outer(times_s, frequencies_hz), cosines, sines)


class _Wave(NamedTuple):
    """A slow sine: `share` of the swing."""

    share: float
    period_s: float
    phase: float

    def at(self, time_s: float) -> float:
        return self.share * float(np.sin(2 * np.pi * time_s / self.period_s + self.phase))

    def integral(self, times_s: FloatArray) -> FloatArray:
        """From 0 to `times_s`."""
        angular = 2 * np.pi / self.period_s
        found: FloatArray = self.share / angular * (np.cos(self.phase) - np.cos(angular * times_s + self.phase))
        return found


@dataclass(frozen=True)
class Service:
    """A machine in service: its speed and load wander slowly, and a defect may grow.

    Each wanders as two sines with periods of 10 to 60 minutes, drawn from `seed`, by at most its swing to either
    side. The fundamental goes with the square of speed, as the force of an imbalance does, the harmonics with load,
    and bearing strikes with the square root of load. From `defect_from_s` on the defect grows evenly for
    `defect_grows_s`, up to `defect_factor` times the bearing strikes or the imbalance.
    """

    machine: Machine = field(default_factory=Machine.in_service)
    seed: int = 0
    speed_swing: float = 0.05
    load_swing: float = 0.3
    defect: Literal["bearing", "imbalance"] | None = None
    defect_from_s: float = 0.0
    defect_grows_s: float = 0.0
    defect_factor: float = 1.2

    def at(self, time_s: float) -> Machine:
        """The machine as it runs at that moment."""
        of_speed, of_load = _waves(self.seed)
        speed = 1 + self.speed_swing * sum(wave.at(time_s) for wave in of_speed)
        load = 1 + self.load_swing * sum(wave.at(time_s) for wave in of_load)
        grown = self.grown(time_s)
        base = self.machine
        return replace(
            base,
            shaft_hz=base.shaft_hz * speed,
            imbalance=base.imbalance * speed**2 * (grown if self.defect == "imbalance" else 1),
            harmonics_g=tuple(peak_g * load for peak_g in base.harmonics_g),
            bearing_g=base.bearing_g * load**0.5 * (grown if self.defect == "bearing" else 1),
        )

    def turns(self, times_s: FloatArray) -> FloatArray:
        """Revolutions of the shaft since 0: the integral of its speed."""
        of_speed, _ = _waves(self.seed)
        gained: FloatArray = np.sum([wave.integral(times_s) for wave in of_speed], axis=0)
        return self.machine.shaft_hz * (times_s + self.speed_swing * gained)

    def acceleration(self, times_s: FloatArray, response: Response) -> FloatArray:
        """As `Machine.acceleration`, for a second or less at a time: amplitudes are those of its middle.

        Phases follow the shaft without a step, from one call to the next, too.
        """
        machine = self.at(float(times_s[len(times_s) // 2]))
        frequencies_hz, cosines, sines = _filtered(machine, response)  # not kept: it never runs just so again
        return _summed(np.outer(self.turns(times_s), frequencies_hz / machine.shaft_hz), cosines, sines)

    def grown(self, time_s: float) -> float:
        """By what the defect multiplies its part of the machine."""
        since_s = time_s - self.defect_from_s
        part = min(1.0, since_s / self.defect_grows_s) if self.defect_grows_s else 1.0
        return 1 + (self.defect_factor - 1) * part if since_s >= 0 else 1.0


@lru_cache(maxsize=64)
def _waves(seed: int) -> tuple[Sequence[_Wave], Sequence[_Wave]]:
    """Of speed and of load."""
    rng = np.random.default_rng([seed, 0x5E])
    drawn = [_Wave(share, rng.uniform(600, 3600), rng.uniform(0, 2 * np.pi)) for share in (0.6, 0.4, 0.6, 0.4)]
    return drawn[:2], drawn[2:]


def _summed(turned: FloatArray, cosines: FloatArray, sines: FloatArray) -> FloatArray:
    """The sum of sines that have turned so many times, (n, c)."""
    phase = 2 * np.pi * turned
    result: FloatArray = np.cos(phase) @ cosines + np.sin(phase) @ sines
    return result


def _filtered(machine: Machine, response: Response) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Frequencies (c,), and amplitudes (c, 3) of their cosines and sines, as they come out of the filter."""
    rotation_hz, rotation = _rotation(machine)
    strikes_hz, strikes = _strikes(machine)
    frequencies_hz = np.concatenate(([0.0], rotation_hz, strikes_hz))
    amplitudes = np.concatenate((np.array([machine.gravity_g], complex), rotation, strikes))
    amplitudes *= response(frequencies_hz)[:, None]
    heard = np.abs(amplitudes).max(axis=1) > NEGLIGIBLE_G
    return frequencies_hz[heard], amplitudes[heard].real.copy(), -amplitudes[heard].imag


_kept = lru_cache(maxsize=32)(_filtered)


def _rotation(machine: Machine) -> tuple[FloatArray, ComplexArray]:
    """The shaft's multiples, as complex amplitudes of exp(i 2 pi f t)."""
    order: FloatArray = np.arange(1.0, 2 + len(machine.harmonics_g))
    peak_g = np.array((machine.fundamental_g * machine.imbalance, *machine.harmonics_g))
    direction = np.array([1.0, -1j, 0.4 * np.exp(0.7j)])  # y follows x by a quarter turn; some of it shakes z
    turning = np.exp(1j * 0.9 * (order - 1))  # the multiples do not all peak together
    amplitudes: ComplexArray = (peak_g * turning)[:, None] * direction
    return order * machine.shaft_hz, amplitudes


def _strikes(machine: Machine) -> tuple[FloatArray, ComplexArray]:
    """Fourier series of exp(-t / decay) sin(2 pi f t), struck at the bearing's rate."""
    rate_hz = machine.bearing_ratio * machine.shaft_hz
    order: FloatArray = np.arange(1.0, int(_RINGING_LIMIT_HZ / rate_hz) + 1)
    angular = 2j * np.pi * order * rate_hz
    ringing, damping = 2 * np.pi * machine.ringing_hz, 1 / machine.ringing_decay_s
    series = 2 * rate_hz * ringing / ((damping + angular) ** 2 + ringing**2)
    direction = np.array([0.5, 0.3, 1.0])
    amplitudes: ComplexArray = (machine.bearing_g * series)[:, None] * direction
    return order * rate_hz, amplitudes
