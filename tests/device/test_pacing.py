"""Pauses that grow, and the day's budget."""

import pytest

from node import clock
from node.pacing import DAY_US, LONGEST_PAUSE_S, Budget, Pause


@pytest.fixture
def now(monkeypatch):
    passed = [0]
    monkeypatch.setattr(clock, "now_us", lambda: passed[0])
    return passed


def test_a_pause_doubles_to_its_longest_by_a_random_part(now):
    pause = Pause()
    seconds = [pause.failed() for _ in range(14)]
    for count, one in enumerate(seconds):
        longest = min(LONGEST_PAUSE_S, 5 << count)
        assert longest // 2 <= one <= longest
    assert len({Pause().failed() for _ in range(100)}) > 1  # boards that failed together do not come back together
    pause.worked()
    assert pause.until_us == 0
    assert pause.failed() <= 5


def test_the_budget_is_a_day_s_and_counts_on(now):
    budget = Budget(1000)
    assert budget.left(0) == 1000
    assert budget.left(990) == 10
    assert budget.left(1500) == -500
    now[0] = DAY_US - 1
    assert budget.left(1500) == -500
    now[0] = DAY_US
    assert budget.left(1500) == 1000
    now[0] = 4 * DAY_US + 5
    assert budget.left(2000) == 1000
    assert budget.ends_us == 5 * DAY_US


def test_without_a_budget_there_is_no_limit():
    assert Budget(0).left(10**12) > 10**8
