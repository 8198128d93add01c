"""The weighted sum of named losses."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from latentsync.errors import ConfigError

TOTAL = "total"


def compose(terms: Mapping[str, Callable[[], Tensor]], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Compute the terms that count, and their weighted sum.

    Args:
        terms: name -> function that computes the term, a scalar; it is called only where its weight is not 0.
        weights: name -> weight, 0 or more, of every term.

    Returns:
        The computed terms by name, not weighted and detached, and ``total``, which carries the gradient.

    Raises:
        ConfigError: a name has a term but no weight or the other way round, a weight is negative or not finite, or
            nothing counts.
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
