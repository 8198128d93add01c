"""Random numbers that belong to a sample, not to a process: the same in one process as in many, and after a resume."""

import hashlib

import torch
from torch import Tensor

_PURPOSE_STRIDE = 1 << 20


class SampleDraws:
    """Independent streams, one per sample of a batch.

    Args:
        seed: of the run.
        sample_ids: (b,) int64, see `latentsync.data.samples.SampleKey`.
        device: of the numbers; streams of different kinds of device differ.
    """

    def __init__(self, seed: int, sample_ids: Tensor, device: torch.device) -> None:
        self.device = device
        self._seeds = [_mixed(seed, sample_id) for sample_id in sample_ids.tolist()]
        self._purposes = 0

    def uniform(self) -> Tensor:
        """(b,) float32 in [0, 1), new numbers at every call."""
        # On the CPU, so that choices are the same wherever the network is trained.
        numbers = [float(torch.rand(1, generator=generator)) for generator in self._generators(torch.device("cpu"))]
        return torch.tensor(numbers, device=self.device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(b, *shape) float32 standard normal, new numbers at every call."""
        generators = self._generators(self.device)
        return torch.stack([torch.randn(shape, generator=each, device=self.device) for each in generators])

    def _generators(self, device: torch.device) -> list[torch.Generator]:
        self._purposes += 1
        return [torch.Generator(device).manual_seed(seed + self._purposes * _PURPOSE_STRIDE) for seed in self._seeds]


def _mixed(seed: int, sample_id: int) -> int:
    """A 62-bit seed in which neighbouring runs and samples have nothing in common."""
    digest = hashlib.blake2b(f"{seed}:{sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2
