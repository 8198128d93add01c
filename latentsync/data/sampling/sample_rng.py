"""Random numbers that belong to a sample, not to a process: the same in one process as in many, and after a resume.

Every number is a hash of the run's seed, the sample, the purpose and the place in the answer, so that a whole batch is
drawn at once: generators, one per sample, would cost a small network more time than its training step.
"""

import hashlib
import math

import torch
from torch import Tensor

_STRIDE = -7046029254386353131  # 2**64 divided by the golden ratio, as a signed number: multiples lie far apart
# The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
_ROUNDS = ((30, -4658895280553007687), (27, -7723592293110705685))
_LAST_SHIFT = 31
_HALF_BITS = 32
_SINGLE_BITS = 24  # that a float32 in [0, 1) holds


class SampleRng:
    """Independent streams, one per sample of a batch.

    Args:
        seed: of the run.
        sample_ids: (b,) int64, see `latentsync.data.sampling.samples.SampleKey`.
        device: of the numbers; on every device they are the same, but for rounding in `normal`.
    """

    def __init__(self, seed: int, sample_ids: Tensor, device: torch.device) -> None:
        self.device = device
        self._keys = torch.tensor([_key(seed, sample_id) for sample_id in sample_ids.tolist()], dtype=torch.int64)
        self._purposes = 0

    def uniform(self) -> Tensor:
        """(b,) float32 in [0, 1), new numbers at every call."""
        # On the CPU, so that choices are the same wherever the network is trained.
        bits = _shifted(_mixed(self._new_keys()), 64 - _SINGLE_BITS)
        return (bits.float() / 2**_SINGLE_BITS).to(self.device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(b, *shape) float32 standard normal, new numbers at every call."""
        count = math.prod(shape)
        keys = _mixed(self._new_keys()).to(self.device)
        places = torch.arange(-(-count // 2), device=self.device) * _STRIDE
        bits = _mixed(keys[:, None] + places)
        # Box and Muller, "A note on the generation of random normal deviates", 1958: two of two uniform numbers.
        nearness = (_shifted(bits, _HALF_BITS).float() + 1) / 2**_HALF_BITS
        angle = (bits & (2**_HALF_BITS - 1)).float() * (2 * math.pi / 2**_HALF_BITS)
        radius = (-2 * nearness.log()).sqrt()
        numbers = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
        return numbers.reshape(len(keys), -1)[:, :count].reshape(len(keys), *shape)

    def _new_keys(self) -> Tensor:
        self._purposes += 1
        return self._keys + torch.tensor(self._purposes) * _STRIDE  # a tensor's product wraps round


def _key(seed: int, sample_id: int) -> int:
    """64 bits, signed, in which neighbouring runs and samples have nothing in common."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed}:{sample_id}".encode(), digest_size=8).digest(), "little", signed=True
    )


def _mixed(bits: Tensor) -> Tensor:
    """Hash each int64."""
    for places, factor in _ROUNDS:
        bits = (bits ^ _shifted(bits, places)) * factor
    return bits ^ _shifted(bits, _LAST_SHIFT)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Each int64 moved right, with zeros coming in."""
    return (bits >> places) & (2 ** (64 - places) - 1)
