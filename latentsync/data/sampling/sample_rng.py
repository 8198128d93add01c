"""Counter-based random numbers per sample: independent of the number of processes and reproducible after a resume.

Every number is a hash of the run's seed, the sample id, the draw and the position in the result, so that a whole batch
is drawn at once: one generator per sample would take longer than the training step of a small network.
"""

import hashlib
import math

import torch
from torch import Tensor

_STRIDE = -7046029254386353131  # 2**64 / golden ratio as a signed integer: its multiples are well spread
# The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
_ROUNDS = ((30, -4658895280553007687), (27, -7723592293110705685))
_LAST_SHIFT = 31
_HALF_BITS = 32
_SINGLE_BITS = 24  # precision of a float32


class SampleRng:
    """Independent random streams, one per sample of a batch.

    Args:
        seed: of the run.
        sample_ids: (b,) int64, see `latentsync.data.sampling.samples.SampleKey`.
        device: of the results; they are the same on every device, up to rounding in `normal`.
    """

    def __init__(self, seed: int, sample_ids: Tensor, device: torch.device) -> None:
        self.device = device
        self._keys = torch.tensor([_key(seed, sample_id) for sample_id in sample_ids.tolist()], dtype=torch.int64)
        self._num_draws = 0

    def uniform(self) -> Tensor:
        """(b,) float32 in [0, 1), new numbers at every call."""
        # Computed on the CPU, so that decisions based on them do not depend on the device.
        bits = _shift_right(_mix(self._new_keys()), 64 - _SINGLE_BITS)
        return (bits.float() / 2**_SINGLE_BITS).to(self.device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(b, *shape) float32 standard normal, new numbers at every call."""
        count = math.prod(shape)
        keys = _mix(self._new_keys()).to(self.device)
        counters = torch.arange(-(-count // 2), device=self.device) * _STRIDE
        bits = _mix(keys[:, None] + counters)
        # Box-Muller transform (1958): two normal deviates from two uniform ones.
        uniform = (_shift_right(bits, _HALF_BITS).float() + 1) / 2**_HALF_BITS
        angle = (bits & (2**_HALF_BITS - 1)).float() * (2 * math.pi / 2**_HALF_BITS)
        radius = (-2 * uniform.log()).sqrt()
        deviates = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
        return deviates.reshape(len(keys), -1)[:, :count].reshape(len(keys), *shape)

    def _new_keys(self) -> Tensor:
        self._num_draws += 1
        return self._keys + torch.tensor(self._num_draws) * _STRIDE  # a tensor product wraps around


def _key(seed: int, sample_id: int) -> int:
    """Signed 64-bit key; keys of adjacent seeds and samples are uncorrelated."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed}:{sample_id}".encode(), digest_size=8).digest(), "little", signed=True
    )


def _mix(bits: Tensor) -> Tensor:
    """Hash each int64."""
    for shift, factor in _ROUNDS:
        bits = (bits ^ _shift_right(bits, shift)) * factor
    return bits ^ _shift_right(bits, _LAST_SHIFT)


def _shift_right(bits: Tensor, shift: int) -> Tensor:
    """Logical right shift of each int64."""
    return (bits >> shift) & (2 ** (64 - shift) - 1)
