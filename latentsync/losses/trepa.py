"""TREPA, temporal representation alignment: match the video features of generated and real windows.

LatentSync (Li et al. 2024, https://arxiv.org/abs/2412.09262), section 3.3.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latentsync.losses.frozen import FrozenNetworkLoss


class TrepaLoss(FrozenNetworkLoss):
    """Mean squared error between the normalized features of two windows.

    Args:
        network: (b, 3, f, size, size) in [0, 1] -> (b, d), e.g. `latentsync.models.video_mae.VideoMae`.
        size: height and width of the network's input.
    """

    def __init__(self, network: nn.Module, size: int = 224) -> None:
        super().__init__(network)
        self.size = size

    def describe(self, video: Tensor) -> Tensor:
        """Features of windows: (b, 3, f, h, w) in [-1, 1] -> (b, d) float32, not normalized."""
        images = rearrange(video, "b c f h w -> (b f) c h w").float()
        images = F.interpolate(images, (self.size, self.size), mode="bicubic", align_corners=False)
        images = (images / 2 + 0.5).clamp(0, 1).to(self.dtype)
        result: Tensor = self.network(rearrange(images, "(b f) c h w -> b c f h w", b=len(video)))
        return result.float()

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compare windows.

        predicted, target (b, 3, f, h, w) in [-1, 1] -> (). Only the prediction gets a gradient.
        """
        with torch.no_grad():
            wanted = F.normalize(self.describe(target), dim=1)
        return F.mse_loss(F.normalize(self.describe(predicted), dim=1), wanted)
