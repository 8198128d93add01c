"""What losses that look through a network share."""

import torch
from torch import nn


class FrozenNetworkLoss(nn.Module):
    """Holds a network that is looked through and never trained.

    Args:
        network: is switched to evaluation and loses its parameters' gradients; ``train()`` of whatever holds the loss
            does not switch it back.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenNetworkLoss":
        """Switch everything but the network."""
        super().train(mode)
        self.network.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The number format that the network computes in."""
        return next(self.network.parameters()).dtype
