"""Amplitude spectra and their strongest peak."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def amplitude_spectrum(samples: NDArray[np.floating], interval_s: float) -> tuple[FloatArray, FloatArray]:
    """Frequencies in Hz and peak amplitudes (in the samples' unit) of one axis; mean removed, Hann window."""
    number = len(samples)
    hann = np.hanning(number + 1)[:-1]
    amplitude: FloatArray = np.abs(np.fft.rfft((samples - np.mean(samples)) * hann)) * 2 / hann.sum()
    frequencies_hz: FloatArray = np.arange(len(amplitude)) / (number * interval_s)
    return frequencies_hz, amplitude


def strongest_peak(acceleration: NDArray[np.floating], interval_s: float) -> tuple[float, float, int]:
    """Frequency in Hz, amplitude and axis of the strongest peak of (n, 3) samples."""
    spectra = [amplitude_spectrum(acceleration[:, axis], interval_s) for axis in range(3)]
    axis = int(np.argmax([amplitude[2:-1].max() for _, amplitude in spectra]))
    frequency_hz, amplitude = spectra[axis]
    k = int(np.argmax(amplitude[2:-1])) + 2
    # a Hann-windowed tone between bins k and k+1 has neighbours in the ratio (2 - d) / (1 + d) exactly
    left, peak, right = amplitude[k - 1 : k + 2]
    if not peak:
        return float(frequency_hz[k]), 0.0, axis
    offset = (2 * right - peak) / (right + peak) if right >= left else -(2 * left - peak) / (left + peak)
    return float((k + offset) * frequency_hz[1]), float(peak), axis
