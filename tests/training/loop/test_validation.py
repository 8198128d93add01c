"""Figures of a set that several processes share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.training.loop.validation import means


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40), st.integers(1, 5))
def test_the_mean_does_not_depend_on_the_shards(values, world):
    shards = [values[rank::world] for rank in range(world)]
    parts = [{"figure": (sum(shard), len(shard))} for shard in shards]
    assert means(parts)["figure"] == pytest.approx(sum(values) / len(values), abs=1e-9)


def test_figures_may_lack_in_a_shard_or_of_all_samples():
    assert means([{"a": (3.0, 2), "b": (0.0, 0)}, {"a": (1.0, 2)}, {}]) == {"a": 1.0}
