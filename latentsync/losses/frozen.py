"""Base class of losses that compare through a frozen network."""

import torch
from torch import nn


class FrozenNetworkLoss(nn.Module):
    """Holds a frozen critic.

    Args:
        network: put into evaluation mode, its parameters without gradients; ``train()`` of a parent module does not
            change that.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenNetworkLoss":
        """Change the mode of everything but the network."""
        super().train(mode)
        self.network.eval()
        return self

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return next(self.network.parameters()).dtype
