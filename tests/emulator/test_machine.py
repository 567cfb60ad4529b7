"""The emulated machine against its own description, worked out another way."""

import numpy as np
import pytest

from judder.emulator.lis3dh import response
from judder.emulator.machine import Machine
from judder.spectrum import amplitude_spectrum


def unfiltered(frequencies_hz):
    return np.ones_like(frequencies_hz)


def test_shaft_and_harmonics_have_the_stated_amplitudes():
    machine = Machine(shaft_hz=30.0, bearing_g=0.0)
    times_s = np.arange(8000) / 8000
    frequencies_hz, amplitude = amplitude_spectrum(machine.acceleration(times_s, unfiltered)[:, 0], 1 / 8000)
    for order, stated_g in enumerate((machine.fundamental_g, *machine.harmonics_g), 1):
        assert frequencies_hz[30 * order] == pytest.approx(30.0 * order)
        assert amplitude[30 * order] == pytest.approx(stated_g, rel=1e-6)


def test_x_and_y_are_a_quarter_turn_apart_and_z_carries_gravity():
    machine = Machine(shaft_hz=10.0, harmonics_g=(), bearing_g=0.0)
    times_s = np.arange(1000) / 1000
    x, y, z = machine.acceleration(times_s, unfiltered).T
    assert np.allclose(y, np.roll(x, 25), atol=1e-9)
    assert z.mean() == pytest.approx(1.0)


def test_imbalance_scales_the_fundamental_alone():
    times_s = np.arange(1000) / 1000
    one, two = (
        np.abs(np.fft.rfft(Machine(shaft_hz=10.0, imbalance=i, bearing_g=0).acceleration(times_s, unfiltered)[:, 0]))
        for i in (1, 2)
    )
    assert two[10] == pytest.approx(2 * one[10])
    assert two[20] == pytest.approx(one[20])


def test_bearing_strikes_ring_and_die_away():
    """The Fourier series against the same strikes written down one after the other."""
    machine = Machine(shaft_hz=10.0, fundamental_g=0.0, harmonics_g=(), gravity_g=(0, 0, 0), bearing_ratio=3.0)
    times_s = np.arange(0.001, 0.1, 0.0001)
    struck = np.zeros_like(times_s)
    for strike in range(-5, 4):
        since_s = times_s - strike / 30
        ringing = np.exp(-since_s / machine.ringing_decay_s) * np.sin(2 * np.pi * machine.ringing_hz * since_s)
        struck += np.where(since_s >= 0, machine.bearing_g * ringing, 0)
    z = machine.acceleration(times_s, unfiltered)[:, 2]
    assert np.abs(z - (struck - struck.mean())).max() < 0.03 * machine.bearing_g


def test_the_filter_is_applied_to_each_frequency():
    machine = Machine(shaft_hz=30.0, bearing_g=0.0)
    chain = response(60.0, 0.0)
    times_s = np.arange(8000) / 8000
    _, amplitude = amplitude_spectrum(machine.acceleration(times_s, chain)[:, 0], 1 / 8000)
    assert amplitude[60] == pytest.approx(machine.harmonics_g[0] * chain(np.array([60.0]))[0], rel=1e-6)


def test_the_demo_s_machine_is_the_one_that_figures_are_stated_for():
    machine = Machine.demo()
    assert (machine.shaft_hz, machine.fundamental_g) == (29.2, 0.1)
    assert len(machine.harmonics_g) == 3
