"""The emulated machine against its own description, worked out another way."""

import numpy as np
import pytest

from judder.emulator.lis3dh import response
from judder.emulator.machine import Machine, Service
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


def test_in_service_speed_and_load_wander_within_their_swings():
    service = Service(seed=3)
    machines = [service.at(time_s) for time_s in np.arange(0, 40_000, 50.0)]
    speeds = np.array([machine.shaft_hz for machine in machines]) / service.machine.shaft_hz
    loads = np.array([machine.harmonics_g[0] for machine in machines]) / service.machine.harmonics_g[0]
    for found, swing in ((speeds, 0.05), (loads, 0.3)):
        assert np.abs(found - 1).max() <= swing
        assert np.ptp(found) > 1.5 * swing
    assert np.allclose([machine.imbalance for machine in machines], speeds**2)
    assert np.allclose([machine.bearing_g for machine in machines], 0.06 * np.sqrt(loads))
    assert Service(seed=4).at(100.0) != service.at(100.0) == Service(seed=3).at(100.0)


def test_in_service_the_shaft_has_turned_as_far_as_its_speed_says():
    service = Service(seed=5, speed_swing=0.3)
    times_s = np.linspace(0, 5000, 100_001)
    shaft_hz = np.array([service.at(time_s).shaft_hz for time_s in times_s])
    by_trapezes = np.sum((shaft_hz[1:] + shaft_hz[:-1]) / 2 * np.diff(times_s))
    assert service.turns(times_s)[-1] == pytest.approx(by_trapezes, abs=1e-3)


@pytest.mark.parametrize("at_s", [0.0, 7e5])
def test_in_service_phases_go_on_from_one_block_to_the_next(at_s):
    """Two blocks against one that has the border in its middle; a hundredth of a turn would already be 6 mg."""
    service = Service(seed=1)
    chain = response(672.0, 0.0)
    times_s = at_s + np.arange(1024) / 1344
    apart = np.concatenate([service.acceleration(part, chain) for part in (times_s[:512], times_s[512:])])
    assert np.abs(apart[256:768] - service.acceleration(times_s[256:768], chain)).max() < 1e-4


def test_in_service_a_block_is_that_of_the_machine_as_it_runs_then():
    service = Service(seed=2, defect="bearing")
    times_s = 1000 + np.arange(4096) / 8192
    _, amplitude = amplitude_spectrum(service.acceleration(times_s, unfiltered)[:, 2], 1 / 8192)
    _, expected = amplitude_spectrum(service.at(1000.25).acceleration(times_s, unfiltered)[:, 2], 1 / 8192)
    assert np.abs(amplitude - expected)[5:].max() < 1e-4  # below, what the window function smears of gravity


@pytest.mark.parametrize("defect", ["bearing", "imbalance"])
def test_in_service_a_defect_grows_from_its_time_on(defect):
    healthy, ill = Service(seed=1), Service(seed=1, defect=defect, defect_from_s=100, defect_grows_s=50)
    name = {"bearing": "bearing_g", "imbalance": "imbalance"}[defect]

    def grown(time_s):
        return getattr(ill.at(time_s), name) / getattr(healthy.at(time_s), name)

    assert [grown(time_s) for time_s in (0, 100, 125, 150, 1e4)] == pytest.approx([1, 1, 1.1, 1.2, 1.2])
    other = "imbalance" if defect == "bearing" else "bearing_g"
    assert getattr(ill.at(200), other) == getattr(healthy.at(200), other)


def test_in_service_a_defect_may_be_there_at_once():
    ill = Service(defect="bearing", defect_from_s=10)
    assert ill.at(10).bearing_g == pytest.approx(1.2 * Service().at(10).bearing_g)
    assert ill.at(9.9) == Service().at(9.9)
