"""Pictures: their size, and that they show what they should."""

import numpy as np
import pytest

from judder import plot

INTERVAL_S = 1 / 1344


def tone(frequency_hz=84.0, amplitude=1.5, count=1024):
    t = np.arange(count) * INTERVAL_S
    return np.stack([amplitude * np.sin(2 * np.pi * frequency_hz * t), 0 * t, 0 * t + 9.81], axis=1)


@pytest.mark.parametrize("draw", [plot.waveform, plot.spectrum])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("width", "height"), [(80, 10), (100, 12), (20, 4)])
def test_a_picture_keeps_to_its_size(draw, plain, width, height):
    lines = draw(tone(), INTERVAL_S, width, height, plain=plain).splitlines()
    assert len(lines) == height + 1
    assert {len(line) for line in lines[:-1]} == {width}
    if plain:
        assert all(line.isascii() for line in lines)


def test_the_spectrum_s_peak_stands_at_its_frequency():
    lines = plot.spectrum(tone(), INTERVAL_S, 92, 10, plain=True).splitlines()
    assert "strongest at 84.00 Hz" in lines[-1]
    assert lines[-1].endswith("672 Hz")
    top = next(line for line in lines if "#" in line)
    assert abs(top.index("#") - 8 - 84 * 84 / 672) <= 1


def test_the_waveform_s_scale_is_round_and_holds_the_signal():
    lines = plot.waveform(tone(amplitude=1.5), INTERVAL_S, 80, 9, plain=True).splitlines()
    assert lines[0].startswith("    +2 |")
    assert lines[8].startswith("    -2 |")
    assert "#" not in lines[0]
    assert "x in m/s2" in lines[-1]
    assert lines[-1].endswith("0.762 s")


@pytest.mark.parametrize("draw", [plot.waveform, plot.spectrum])
def test_a_still_sensor_can_be_drawn(draw):
    assert draw(np.zeros((64, 3)), 0.01, 60, 5, plain=False)


@pytest.mark.parametrize("plain", [True, False])
def test_a_histogram_has_a_line_a_bin_and_marks_the_limit(plain):
    drawn = plot.histogram([0, 1, 2, 3], [10, 0, 1], [0, 0, 5], 2.5, 80, plain=plain).splitlines()
    assert [line.split()[0] for line in drawn] == ["0.00", "1.00", "2.00"]
    assert drawn[0].count("#" if plain else "█") == 48
    assert drawn[1].strip() == "1.00"
    assert drawn[2].endswith("1 5 < threshold 2.50")
    assert drawn[2].count("." if plain else "░") >= 24
    assert max(map(len, drawn)) <= 80
    assert not plain or all(line.isascii() for line in drawn)
