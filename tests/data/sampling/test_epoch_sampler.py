"""Sample order: complete, reproducible, and independent of the number of processes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.data.sampling.epoch_sampler import BatchPartition, EpochSampler
from latentsync.errors import DataError


@given(clips=st.integers(1, 40), repeats=st.integers(1, 4), seed=st.integers(-5, 2**63), epoch=st.integers(0, 1000))
def test_every_clip_comes_equally_often(clips, repeats, seed, epoch):
    order = EpochSampler(clips, repeats, seed)
    drawn = [order.clip_index(epoch, index) for index in range(len(order))]
    assert sorted(drawn) == sorted(list(range(clips)) * repeats)


@given(seed=st.integers(0, 99), calls=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 59)), max_size=20))
def test_clip_index_does_not_depend_on_earlier_calls(seed, calls):
    order = EpochSampler(30, 2, seed)
    for epoch, index in calls:
        assert order.clip_index(epoch, index) == EpochSampler(30, 2, seed).clip_index(epoch, index)


def test_epochs_and_seeds_differ():
    orders = {
        tuple(EpochSampler(50, 1, seed).clip_index(epoch, index) for index in range(50))
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_sample_ids_are_unique():
    order = EpochSampler(7, 2, 0)
    ids = [order.key(epoch, index).sample_id for epoch in range(3) for index in range(14)]
    assert ids == list(range(42))


@st.composite
def partitions(draw):
    world = draw(st.sampled_from([1, 2, 3, 4, 6]))
    batch = world * draw(st.integers(1, 4))
    return world, batch, batch + draw(st.integers(0, 60))


@given(plan=partitions(), data=st.data())
def test_processes_partition_the_batches_of_one_process(plan, data):
    world, batch, samples = plan
    whole = [list(indices) for indices in BatchPartition(samples, batch).batches(0)]
    assert whole == [list(range(k * batch, (k + 1) * batch)) for k in range(samples // batch)]
    parts = [list(BatchPartition(samples, batch, rank, world).batches(0)) for rank in range(world)]
    for step, indices in enumerate(whole):
        parts_of_step = [list(part[step]) for part in parts]
        assert sorted(index for part in parts_of_step for index in part) == indices
        assert {len(part) for part in parts_of_step} == {batch // world}
    first = data.draw(st.integers(0, len(whole)))
    rank = data.draw(st.integers(0, world - 1))
    assert list(BatchPartition(samples, batch, rank, world).batches(first)) == parts[rank][first:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((7, 8, 0, 1), "more clips"),
        ((80, 6, 0, 4), "multiple of the number of processes"),
        ((80, 0, 0, 1), "batch of 0"),
        ((80, 8, 2, 2), "rank 2"),
    ],
)
def test_partitions_without_a_full_batch_are_refused(arguments, words):
    with pytest.raises(DataError, match=words):
        BatchPartition(*arguments)
