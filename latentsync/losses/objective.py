"""The objective of a training run: the weighted sum of its losses."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from latentsync.errors import ConfigError
from latentsync.losses.loss import Loss
from latentsync.losses.weighted_sum import weighted_sum


class Objective:
    """Named losses with weights; one whose weight is 0 is dropped.

    Args:
        losses: by name; the names appear in logs and curves.
        weights: by the same names, 0 or more.
    """

    def __init__(self, losses: Mapping[str, Loss[Any]], weights: Mapping[str, float]) -> None:
        self.losses = {name: loss for name, loss in losses.items() if weights[name]}
        self.weights = {name: weights[name] for name in self.losses}
        for loss in self.losses.values():
            if isinstance(loss, nn.Module):
                loss.requires_grad_(False).eval()

    def to(self, device: torch.device) -> None:
        """Move the losses that are modules."""
        for loss in self.losses.values():
            if isinstance(loss, nn.Module):
                loss.to(device)

    def __call__(self, inputs: Any) -> dict[str, Tensor]:
        """Every loss by name, unweighted and detached, and ``total``, which carries the gradient.

        Raises:
            ConfigError: no loss has a weight, or one does not return a scalar tensor.
        """
        return weighted_sum({name: partial(self._value, name, inputs) for name in self.losses}, self.weights)

    def _value(self, name: str, inputs: Any) -> Tensor:
        value = self.losses[name](inputs)
        if isinstance(value, Tensor) and value.ndim == 0:
            return value
        found = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(
            f"losses.{name}: {type(self.losses[name]).__name__} returned {found}, expected a scalar tensor; reduce it, "
            "for example by .mean()"
        )
