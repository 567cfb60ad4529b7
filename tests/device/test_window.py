"""The interval fit and the loss count, against looks made up from a known sample clock."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.window import GAP, IN_NEXT, OVERRUN, SATURATED, UNKNOWN_LOSS, UNKNOWN_SIGMA, Window, _isqrt

LOOK_US = 330


def looks(window, *, interval_us, phase=0.3, step=8.6, lose=None, seed=0, stall=0.0):
    """Fill `window` with looks as the acquisition makes them; `lose` = {sample: number} opens gaps."""
    rng = random.Random(seed)
    window.clear(0)
    lose = dict(lose or {})
    read, lost, t_us = 0, 0, phase * interval_us
    while read < window.samples:
        t_us += interval_us * step * rng.uniform(0.8, 1.2)
        existed = math.floor(t_us / interval_us)
        took_us = LOOK_US + (rng.uniform(1000, 10000) if rng.random() < stall else 0)
        due = [sample for sample in lose if sample <= read]
        if due:
            lost += lose.pop(due[0])
            t_us += interval_us * lost
            existed = math.floor(t_us / interval_us)
            window.gap(read, True)
        window.look(existed - lost, round(t_us - LOOK_US / 2), round(t_us - LOOK_US / 2 + took_us))
        read = min(existed - lost, window.samples)
    return window


@pytest.mark.parametrize("odr_hz", [1280.0, 1344.0, 1378.3, 400.0, 10.2])
def test_the_interval_comes_out_within_a_few_sigma(odr_hz):
    errors = []
    for seed in range(60):
        window = looks(Window(1024), interval_us=1e6 / odr_hz, seed=seed, phase=seed / 60, stall=0.02)
        window.measure()
        errors.append((window.interval_ns - 1e9 / odr_hz) / window.interval_sigma_ns)
        assert not window.gaps
        assert not window.flags
    assert max(map(abs, errors)) < 4.5
    assert sum(error * error for error in errors) / len(errors) < 1.5


@given(
    st.floats(700, 800),
    st.dictionaries(st.integers(200, 820), st.integers(1, 400), min_size=1, max_size=2),
    st.integers(0, 2**32),
)
def test_losses_are_counted_within_two_at_the_right_place(interval_us, lose, seed):
    samples = sorted(lose)
    if len(samples) == 2 and samples[1] - samples[0] < 150:
        del lose[samples[1]]
    window = looks(Window(1024), interval_us=interval_us, lose=lose, seed=seed)
    window.measure()
    assert window.flags == GAP | OVERRUN
    assert len(window.gaps) == len(lose)
    for (sample, lost), wanted in zip(window.gaps, sorted(lose), strict=True):
        assert 0 <= sample - wanted < 12
        assert abs(lost - lose[wanted]) <= 2
    assert window.samples_lost == sum(lost for _, lost in window.gaps)


def test_a_suspicion_that_proves_wrong_leaves_no_gap():
    window = Window(1024)
    for seed in range(40):
        looks(window, interval_us=744.0, seed=seed)
        middle = window._looks // 2
        window.gaps.append((512, UNKNOWN_LOSS))
        window._segments.append(middle)
        window.measure()
        assert window.gaps == []
        assert window.flags == 0
        assert abs(window.interval_ns - 744000) < 4 * window.interval_sigma_ns


def test_a_gap_without_looks_behind_it_has_an_unknown_loss():
    window = looks(Window(1024), interval_us=744.0)
    window.gap(1020, True)
    window.measure()
    assert window.gaps == [(1020, UNKNOWN_LOSS)]
    assert window.samples_lost == UNKNOWN_LOSS


def test_of_two_gaps_without_a_look_between_the_second_carries_the_sum():
    window = looks(Window(1024), interval_us=744.0, lose={500: 61})
    first = window.gaps[0][0]
    window.gaps.insert(0, (first - 8, UNKNOWN_LOSS))
    window._segments.insert(1, window._segments[1])
    window.measure()
    (where, one), (_, other) = window.gaps
    assert (where, one) == (first - 8, IN_NEXT)
    assert abs(other - 61) <= 2
    assert window.samples_lost == other


def test_a_gap_before_the_first_sample_is_none():
    window = Window(64)
    window.clear(0)
    window.look(3, 0, LOOK_US)
    window.gap(0, True)
    assert window.gaps == []
    assert window._looks == 0


def test_without_enough_looks_the_interval_is_unknown():
    window = Window(64)
    window.clear(0)
    window.look(8, 6000, 6330)
    window.measure()
    assert window.interval_ns == 0
    assert window.interval_sigma_ns == UNKNOWN_SIGMA


def test_interrupted_looks_do_not_count():
    steady, stalled = looks(Window(1024), interval_us=744.0, seed=5), looks(Window(1024), interval_us=744.0, seed=5)
    for i in range(0, stalled._looks, 9):
        stalled._took_us[i] += 9000
        stalled._seen_us[i] += 4500
    steady.measure()
    stalled.measure()
    assert abs(stalled.interval_ns - steady.interval_ns) < 3 * steady.interval_sigma_ns


def test_the_first_sample_is_placed_within_a_sample():
    window = looks(Window(1024), interval_us=744.0, seed=2)
    window.measure()
    assert abs(window.first_sample_us - 744) < 744  # sample 0 exists from one interval after the start


def test_more_looks_than_there_is_room_for_are_left_out():
    window = Window(64)
    window.clear(0)
    for i in range(window._most_looks + 10):
        window.look(i, i * 744, i * 744 + 1)
    assert window._looks == window._most_looks


@given(st.lists(st.integers(-512, 511), min_size=192, max_size=192))
def test_right_justifying_keeps_every_count_and_flags_the_ends(counts):
    window = Window(64)
    for i, count in enumerate(counts):
        window.counts[i] = count << 6
    window.right_justify(6)
    assert list(window.counts) == counts
    assert bool(window.flags & SATURATED) == (max(counts) == 511 or min(counts) == -512)


@given(st.integers(0, 1 << 80))
def test_integer_square_root(value):
    assert _isqrt(value) == math.isqrt(value)
