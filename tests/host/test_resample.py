"""Resampling against the signal that was sampled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judder.resample import BAND, ERROR, TAPS, resample
from judder.spectrum import amplitude_spectrum

RATE_HZ = 1344.0


def tone(frequency_hz, rate_hz, count, phase=0.0):
    angle = 2 * np.pi * frequency_hz * np.arange(count) / rate_hz + phase
    return np.stack([np.sin(angle), 0.3 * np.cos(angle) + 9.81, 0 * angle], axis=1)


@settings(max_examples=60)
@given(st.floats(1320, 1400), st.floats(5, BAND * 1320), st.floats(0, 6.28))
def test_a_tone_arrives_at_the_project_s_rate(true_hz, frequency_hz, phase):
    found = resample(tone(frequency_hz, true_hz, 1024, phase), 1 / true_hz, RATE_HZ)
    start_s = TAPS / true_hz
    expected = tone(frequency_hz, RATE_HZ, len(found), phase + 2 * np.pi * frequency_hz * start_s)
    assert np.abs(found - expected).max() < ERROR


@pytest.mark.parametrize("true_hz", [1320.0, 1344.0, 1366.7, 1400.0])
@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.25, 0.4])
def test_frequency_and_amplitude_are_kept(true_hz, fraction):
    frequency_hz = fraction * RATE_HZ
    found = resample(tone(frequency_hz, true_hz, 8192), 1 / true_hz, RATE_HZ)[:, 0].astype(float)
    spectrum = np.fft.rfft(found * np.hanning(len(found)), 1 << 20)
    peak_hz = np.argmax(np.abs(spectrum)) * RATE_HZ / (1 << 20)
    assert peak_hz == pytest.approx(frequency_hz, rel=0.0002)
    t = np.arange(len(found)) / RATE_HZ
    model = np.stack([np.cos(2 * np.pi * frequency_hz * t), np.sin(2 * np.pi * frequency_hz * t)], axis=1)
    fit, *_ = np.linalg.lstsq(model, found, rcond=None)
    assert np.hypot(*fit) == pytest.approx(1, abs=0.005)


def test_windows_of_different_parts_land_on_the_same_bin():
    peaks = set()
    for true_hz in np.linspace(1320, 1400, 9):
        found = resample(tone(100.0, true_hz, 1100), 1 / true_hz, RATE_HZ)[:900, 0]
        _, amplitude = amplitude_spectrum(found, 1 / RATE_HZ)
        peaks.add(int(np.argmax(amplitude)))
    assert len(peaks) == 1


def test_what_lies_above_half_the_new_rate_does_not_fold_down():
    found = resample(tone(760.0, 1590.0, 4096), 1 / 1590.0, RATE_HZ)
    _, amplitude = amplitude_spectrum(found[:, 0], 1 / RATE_HZ)
    assert amplitude.max() < 0.01


def test_nothing_is_made_up_at_the_ends():
    window = np.zeros((1024, 3))
    window[0] = window[-1] = 1000
    window[1:-1] = 1
    found = resample(window, 1 / 1344, 1344)
    assert len(found) == 1024 - 2 * TAPS
    assert np.allclose(found[1:-1], 1, atol=1e-3)


def test_rates_too_far_apart_and_windows_too_short_are_refused():
    with pytest.raises(ValueError, match=r"400\.0 Hz is too far from 1344 Hz"):
        resample(np.zeros((1024, 3)), 1 / 400, 1344)
    with pytest.raises(ValueError, match="40 samples are too few"):
        resample(np.zeros((40, 3)), 1 / 1344, 1344)
