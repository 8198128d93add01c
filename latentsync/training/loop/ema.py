"""Exponential moving average of the trained weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from latentsync.errors import CheckpointError


class Ema:
    """Exponential moving average in float32 of the parameters with ``requires_grad``.

    After n updates the decay is ``min(decay, (1 + n) / (10 + n))``, so that the initial weights fade quickly.

    Args:
        network: whose parameters are averaged; the average starts at their present values.
        decay: 0 to below 1.
        device: of the average; None = that of the parameters.
    """

    def __init__(self, network: nn.Module, decay: float, device: torch.device | None = None) -> None:
        self.network = network
        self.decay = decay
        self.updates = 0
        self._parameters = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self.averages: dict[str, Tensor] = {
            name: value.detach().to(device or value.device, torch.float32, copy=True)
            for name, value in self._parameters.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the current weights."""
        weight = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages = list(self.averages.values())
        present = [
            value.detach().to(average.device, torch.float32)
            for value, average in zip(self._parameters.values(), averages)
        ]
        torch._foreach_lerp_(averages, present, weight)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the averages into the network within the context; the weights are restored exactly."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        # One parameter at a time: a second copy of the network may not fit the GPU.
        for name, parameter in self._parameters.items():
            average = self.averages[name]
            held = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(held)

    def averaged_state(self) -> dict[str, Tensor]:
        """The network's state dict with averaged parameters; memory is shared."""
        return {name: value.detach() for name, value in self.network.state_dict().items()} | self.averages

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs."""
        return {"updates": self.updates, "averages": self.averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved average.

        Raises:
            CheckpointError: it is of other parameters.
        """
        averages = state["averages"]
        if averages.keys() != self.averages.keys():
            odd = sorted(averages.keys() ^ self.averages.keys())
            raise CheckpointError(f"The saved average is of other parameters than this network trains, as {odd[:3]}.")
        self.updates = int(state["updates"])
        for name, average in self.averages.items():
            average.copy_(averages[name])
