"""UTC from whole seconds: the bounds always hold the truth and narrow down."""

from hypothesis import given
from hypothesis import strategies as st

from node.clock import Calendar


def ask(calendar, offset_us, at_us, took_us):
    """The card's answer: whole seconds of UTC at some moment of the question."""
    calendar.learn((at_us + took_us // 2 + offset_us) // 1_000_000, at_us, at_us + took_us)


def test_time_is_unknown_until_told():
    assert Calendar().utc_us(5) == (0, 0)


@given(
    st.integers(10**15, 2 * 10**15),
    st.lists(st.tuples(st.integers(0, 7_200_000_000), st.integers(50_000, 400_000)), min_size=1, max_size=30),
)
def test_the_truth_stays_within_the_stated_uncertainty(offset_us, asked):
    calendar, now_us = Calendar(), 0
    for wait_us, took_us in asked:
        now_us += wait_us
        ask(calendar, offset_us, now_us, took_us)
        now_us += took_us
        utc_us, uncertainty_ms = calendar.utc_us(now_us)
        assert abs(utc_us - (now_us + offset_us)) <= uncertainty_ms * 1000


def test_answers_at_other_phases_of_the_second_narrow_it_down():
    calendar = Calendar()
    uncertainties = []
    for i in range(40):
        at_us = i * 3_170_000
        ask(calendar, 10**15, at_us, 100_000)
        uncertainties.append(calendar.utc_us(at_us + 100_000)[1])
    assert uncertainties[0] > 500
    assert uncertainties[-1] < 130


def test_a_clock_that_jumps_is_believed():
    calendar = Calendar()
    ask(calendar, 10**15, 0, 1000)
    ask(calendar, 10**15 + 10**10, 1_000_000, 1000)
    utc_us, uncertainty_ms = calendar.utc_us(1_001_000)
    assert abs(utc_us - (1_001_000 + 10**15 + 10**10)) <= uncertainty_ms * 1000


def test_uncertainty_grows_while_nobody_asks():
    calendar = Calendar()
    ask(calendar, 10**15, 0, 1000)
    assert calendar.utc_us(86_400_000_000)[1] > calendar.utc_us(1000)[1] + 4000
