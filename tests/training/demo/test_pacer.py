"""Work beside training, on a clock that the test turns by hand."""

import pytest

from latentsync.training.demo.pacer import Pacer


def test_a_side_task_keeps_to_its_fraction_of_the_time() -> None:
    now = [100.0]
    pacer = Pacer(0.25, lambda: now[0])
    side = 0.0
    for _ in range(400):
        now[0] += 1.0
        if pacer.due():
            with pacer:
                now[0] += 0.7
            side += 0.7
    assert side / (now[0] - 100.0) == pytest.approx(0.25, abs=0.01)
