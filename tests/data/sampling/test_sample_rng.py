"""Random numbers per sample: reproducible in any batch, and independent between samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latentsync.data.sampling.sample_rng import SampleRng

CPU = torch.device("cpu")
SHAPE = (2, 3)


def drawn(seed: int, ids: list[int]) -> list[torch.Tensor]:
    """A sequence of draws as in a training step."""
    rng = SampleRng(seed, torch.tensor(ids), CPU)
    return [rng.uniform(), rng.normal(SHAPE), rng.uniform(), rng.normal(SHAPE), rng.normal(SHAPE)]


@given(
    st.integers(-(2**31), 2**31),
    st.lists(st.integers(0, 2**40), min_size=2, max_size=5, unique=True),
    st.randoms(use_true_random=False),
)
def test_a_sample_gets_the_same_numbers_in_every_batch(seed: int, ids: list[int], shuffler) -> None:
    together = dict(zip(ids, zip(*drawn(seed, ids))))
    shuffler.shuffle(ids)
    for batch in (ids[:1], ids[1:]):
        for sample, numbers in zip(batch, zip(*drawn(seed, batch))):
            assert all(torch.equal(one, other) for one, other in zip(numbers, together[sample]))


def test_global_generator_is_neither_used_nor_advanced() -> None:
    torch.manual_seed(1)
    first = drawn(5, [1, 2])
    expected = torch.rand(3)
    torch.manual_seed(1)
    torch.rand(7)
    second = drawn(5, [1, 2])
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one, other) for one, other in zip(first, second))


def test_streams_of_seeds_samples_and_draws_are_uncorrelated() -> None:
    rows = []
    for seed in (1247, 1248):
        rng = SampleRng(seed, torch.arange(20), CPU)
        rows += [rng.normal((500,)) for _ in range(3)]
    streams = torch.cat(rows)
    correlations = torch.corrcoef(streams) - torch.eye(len(streams))
    assert len(streams) == 120
    # The largest of 7140 chance correlations of 500 numbers is near 4 / sqrt(500) = 0.18.
    assert correlations.abs().max() < 0.25


def test_numbers_follow_their_distributions() -> None:
    rng = SampleRng(0, torch.arange(4000), CPU)
    uniform, normal = rng.uniform(), rng.normal((3,))
    assert uniform.shape == (4000,) and normal.shape == (4000, 3)
    assert 0 <= uniform.min() and uniform.max() < 1
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is passed by chance once in a thousand.
    for values, law in ((uniform, lambda x: x), (normal.flatten(), torch.distributions.Normal(0, 1).cdf)):
        ranks = torch.arange(1, values.numel() + 1) / values.numel()
        assert (law(values.sort().values) - ranks).abs().max() < 1.95 / values.numel() ** 0.5


def test_numbers_are_stable_across_versions() -> None:
    rng = SampleRng(3, torch.tensor([5, 2**40]), CPU)
    assert rng.uniform().tolist() == pytest.approx([0.7393027544, 0.0439463258], abs=1e-9)


@pytest.mark.gpu
def test_a_gpu_draws_the_same_numbers() -> None:
    on_cpu, on_gpu = (SampleRng(3, torch.arange(50), torch.device(name)) for name in ("cpu", "cuda"))
    for _ in range(3):
        assert torch.equal(on_gpu.uniform().cpu(), on_cpu.uniform())
        torch.testing.assert_close(on_gpu.normal((7, 5)).cpu(), on_cpu.normal((7, 5)), atol=1e-5, rtol=1e-5)
