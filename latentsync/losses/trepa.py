"""TREPA: a window should move as the real one does, judged by a network that was trained to understand videos.

Temporal representation alignment, LatentSync (Li et al. 2024, https://arxiv.org/abs/2412.09262), section 3.3.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latentsync.losses.frozen import FrozenNetworkLoss


class TrepaLoss(FrozenNetworkLoss):
    """Mean squared error between the unit-length descriptions of two windows.

    Args:
        network: (b, 3, f, size, size) in [0, 1] -> (b, d), e.g. `latentsync.models.video_mae.VideoMae`.
        size: height and width of the pictures that the network takes.
    """

    def __init__(self, network: nn.Module, size: int = 224) -> None:
        super().__init__(network)
        self.size = size

    def describe(self, video: Tensor) -> Tensor:
        """The network's description of windows: (b, 3, f, h, w) in [-1, 1] -> (b, d) float32, not normalised."""
        pictures = rearrange(video, "b c f h w -> (b f) c h w").float()
        pictures = F.interpolate(pictures, (self.size, self.size), mode="bicubic", align_corners=False)
        pictures = (pictures / 2 + 0.5).clamp(0, 1).to(self.dtype)
        features: Tensor = self.network(rearrange(pictures, "(b f) c h w -> b c f h w", b=len(video)))
        return features.float()

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compare windows.

        predicted, target (b, 3, f, h, w) in [-1, 1] -> (). Only the prediction gets a gradient.
        """
        with torch.no_grad():
            wanted = F.normalize(self.describe(target), dim=1)
        return F.mse_loss(F.normalize(self.describe(predicted), dim=1), wanted)
