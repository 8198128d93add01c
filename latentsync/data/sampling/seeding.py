"""Stateless seeding: generators derived from the seed and the identity of what is drawn."""

import numpy as np

_ORDER, _SAMPLE = 1, 2
_UNSIGNED = 2**64 - 1


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Generator for the sample order of an epoch."""
    return np.random.default_rng((_ORDER, seed & _UNSIGNED, epoch))


def sample_generator(seed: int, epoch: int, index: int, attempt: int) -> np.random.Generator:
    """Generator for all random choices in one sample; ``attempt`` is the 0-based number of clips tried before."""
    return np.random.default_rng((_SAMPLE, seed & _UNSIGNED, epoch, index, attempt))
