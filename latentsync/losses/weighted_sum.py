"""The weighted sum of named losses."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from latentsync.errors import ConfigError

TOTAL = "total"


def weighted_sum(terms: Mapping[str, Callable[[], Tensor]], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Compute the terms with a weight, and their weighted sum.

    Args:
        terms: name -> function that computes the scalar term; not called if its weight is 0.
        weights: name -> weight, 0 or more, of every term.

    Returns:
        The computed terms by name, not weighted and detached, and ``total``, which carries the gradient.

    Raises:
        ConfigError: terms and weights differ in their names, a weight is negative or not finite, or all are 0.
    """
    if terms.keys() != weights.keys() or TOTAL in terms:
        raise ConfigError(
            f"Losses: terms {sorted(terms)} and weights {sorted(weights)} must have the same names, and none may be "
            f"called {TOTAL!r}"
        )
    wrong = {name: weight for name, weight in weights.items() if not 0 <= weight < float("inf")}
    active = {name: weight for name, weight in weights.items() if weight}
    if wrong or not active:
        raise ConfigError(f"Losses: weights {dict(weights)}; expected finite ones of 0 or more, at least one above 0")
    values = {name: terms[name]() for name in active}
    total = torch.stack([weight * values[name] for name, weight in active.items()]).sum()
    return {name: value.detach() for name, value in values.items()} | {TOTAL: total}
