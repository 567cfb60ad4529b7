"""Peaks of made-up tones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judder.spectrum import amplitude_spectrum, strongest_peak


@given(st.floats(5, 500), st.floats(0, 6.28), st.floats(1 / 1410, 1 / 1280))
def test_a_tone_s_frequency_is_interpolated_far_below_a_bin(frequency_hz, phase, interval_s):
    tone = np.sin(2 * np.pi * frequency_hz * np.arange(1024) * interval_s + phase)
    found_hz, _, axis = strongest_peak(np.stack([0.1 * tone, tone + 9.81, 0 * tone], axis=1), interval_s)
    assert axis == 1
    assert found_hz == pytest.approx(frequency_hz, abs=0.02 / (1024 * interval_s))


def test_an_amplitude_is_a_peak_value_and_the_mean_is_none():
    tone = 3 + 0.7 * np.sin(2 * np.pi * 100 * np.arange(1000) / 1000)
    frequencies_hz, amplitude = amplitude_spectrum(tone, 1e-3)
    assert frequencies_hz[100] == pytest.approx(100)
    assert amplitude[100] == pytest.approx(0.7)
    assert amplitude[0] == pytest.approx(0, abs=1e-12)


def test_a_still_sensor_has_a_peak_of_nothing():
    found_hz, amplitude, _ = strongest_peak(np.ones((64, 3)), 0.01)
    assert np.isfinite(found_hz)
    assert amplitude == pytest.approx(0, abs=1e-12)
