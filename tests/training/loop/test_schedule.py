"""Learning-rate factors over a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.training.loop.schedule import lr_factor, progress_fraction


@given(st.sampled_from(["constant", "cosine", "linear"]), st.integers(0, 50), st.integers(0, 200), st.floats(-1, 2))
def test_factors_stay_between_0_and_1(schedule, warmup, step, over):
    assert 0 <= lr_factor(schedule, warmup, step, over) <= 1


def test_the_rate_rises_in_the_warm_up_and_falls_as_named():
    assert [lr_factor("constant", 3, step, 0.9) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert lr_factor("linear", 0, 5, 0.25) == 0.75
    assert lr_factor("cosine", 0, 5, 0.5) == pytest.approx(0.5)
    assert lr_factor("cosine", 0, 5, 0.25) == pytest.approx(0.853553, abs=1e-6)
    assert lr_factor("cosine", 0, 5, 1.0) == lr_factor("linear", 0, 5, 1.0) == 0


def test_steps_or_time_whichever_is_further():
    assert progress_fraction(30, 110, 0.0, 0.0, warmup=10) == 0.2
    assert progress_fraction(5, 110, 0.0, 0.0, warmup=10) == 0
    assert progress_fraction(30, 110, 6.0, 10.0, warmup=10) == 0.6
    assert progress_fraction(30, None, 6.0, 10.0) == 0.6
    assert progress_fraction(30, None, 60.0, 10.0) == 1
    assert progress_fraction(30, None, 6.0, 0.0) == 0


def test_a_warm_up_over_a_fraction_of_the_run_precedes_the_fall():
    factors = [lr_factor("cosine", 0, step, step / 1000, warmup_fraction=0.05) for step in range(1001)]
    peak = factors.index(max(factors))
    assert peak == 50 and factors[peak] == 1 and 0 < factors[0] < 0.01
    assert factors[:peak] == sorted(factors[:peak])
    assert factors[peak:] == sorted(factors[peak:], reverse=True) and factors[-1] == pytest.approx(0)
