"""Generators that depend on the seed and on what is drawn, never on what was drawn before."""

import numpy as np

_ORDER, _SAMPLE = 1, 2
_UNSIGNED = 2**64 - 1


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Generator of an epoch's order."""
    return np.random.default_rng((_ORDER, seed & _UNSIGNED, epoch))


def sample_generator(seed: int, epoch: int, index: int, attempt: int) -> np.random.Generator:
    """Generator of everything that is random in one sample; ``attempt`` counts the clips tried for it, from 0."""
    return np.random.default_rng((_SAMPLE, seed & _UNSIGNED, epoch, index, attempt))
