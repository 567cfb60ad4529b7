"""An emulated rotating machine as a source of vibration: analytic in time, so that any filter is exact.

Everything periodic is a sum of sines: the shaft's fundamental and its harmonics, and the ringing that a bearing
defect strikes at its own rate, by its Fourier series. A filter then multiplies amplitudes, and what lies above half
the sensor's rate folds when it is sampled, exactly as far as the filter lets it through.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

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

    def acceleration(self, times_s: FloatArray, response: Response) -> FloatArray:
        """Acceleration in g, shape (n, 3), after a filter of magnitude `response(f_hz)`."""
        frequencies_hz, cosines, sines = _filtered(self, response)
        phase = 2 * np.pi * np.outer(times_s, frequencies_hz)
        result: FloatArray = np.cos(phase) @ cosines + np.sin(phase) @ sines
        return result


@lru_cache(maxsize=32)
def _filtered(machine: Machine, response: Response) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Frequencies (c,), and amplitudes (c, 3) of their cosines and sines, as they come out of the filter."""
    rotation_hz, rotation = _rotation(machine)
    strikes_hz, strikes = _strikes(machine)
    frequencies_hz = np.concatenate(([0.0], rotation_hz, strikes_hz))
    amplitudes = np.concatenate((np.array([machine.gravity_g], complex), rotation, strikes))
    amplitudes *= response(frequencies_hz)[:, None]
    heard = np.abs(amplitudes).max(axis=1) > NEGLIGIBLE_G
    return frequencies_hz[heard], amplitudes[heard].real.copy(), -amplitudes[heard].imag


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
