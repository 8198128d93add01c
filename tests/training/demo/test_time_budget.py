"""The clock that training runs by, on a clock that tests turn by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.errors import ConfigError
from latentsync.training.demo.time_budget import Every, Pacer, TimeBudget, one_cycle


class HandClock:
    """Shows the time it was set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_budget_ends_with_its_time() -> None:
    clock = HandClock()
    budget = TimeBudget(10.0, clock=clock)
    assert budget.step() and budget.fraction == 0.0
    clock.now += 4.0
    assert budget.step() and budget.fraction == pytest.approx(0.4)
    clock.now += 6.0
    assert not budget.step()
    assert budget.steps == 2


def test_budget_ends_with_its_steps_if_they_are_used_up_first() -> None:
    budget = TimeBudget(10.0, max_steps=3, clock=HandClock())
    assert [budget.step() for _ in range(5)] == [True, True, True, False, False]


def test_budget_without_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        TimeBudget(0.0)


def test_every_is_due_once_per_interval() -> None:
    clock = HandClock()
    due = Every(5.0, clock)
    answers = []
    for _ in range(11):
        clock.now += 1.0
        answers.append(due())
    assert [i for i, answer in enumerate(answers) if answer] == [4, 9]


def test_pacer_keeps_its_share() -> None:
    clock = HandClock()
    pacer = Pacer(0.25, clock)
    side = 0.0
    for _ in range(400):
        clock.now += 1.0
        if pacer.due():
            with pacer:
                clock.now += 0.7
            side += 0.7
    assert side / (clock.now - 100.0) == pytest.approx(0.25, abs=0.01)


@given(st.floats(0, 1))
def test_one_cycle_stays_between_nothing_and_the_peak(fraction: float) -> None:
    assert 0 < one_cycle(fraction) <= 1


def test_one_cycle_rises_then_falls() -> None:
    factors = [one_cycle(i / 1000) for i in range(1001)]
    peak = factors.index(max(factors))
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert peak == 50 and factors[-1] == pytest.approx(0.01)
