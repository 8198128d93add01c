"""Perceptual distance of the lower half of a face: LPIPS, or Laplacian pyramids, which need no weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.errors import ConfigError
from latentsync.losses.frozen import FrozenNetworkLoss
from latentsync.losses.region import mouth_images

# Binomial approximation of a Gaussian (Burt and Adelson 1983).
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


class PerceptualLoss(FrozenNetworkLoss):
    """Mean distance of the frames' lower halves.

    Args:
        network: two batches of images (n, 3, h, w) in [-1, 1] -> (n,), e.g. `latentsync.models.vgg_lpips.VggLpips`.
        chunk_size: images compared at a time; the backward pass holds the activations of one chunk only.
    """

    def __init__(self, network: nn.Module, chunk_size: int = 16) -> None:
        super().__init__(network)
        if chunk_size < 1:
            raise ConfigError(f"Perceptual loss: chunk_size is {chunk_size}, expected 1 or more")
        self.chunk_size = chunk_size

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compare windows.

        predicted, target (b, 3, f, h, w) in [-1, 1] -> (). Only the prediction gets a gradient.
        """
        ours, theirs = (mouth_images(video).to(self.dtype) for video in (predicted, target.detach()))
        pairs = zip(ours.split(self.chunk_size), theirs.split(self.chunk_size), strict=True)
        distances = [checkpoint(self.network, *pair, use_reentrant=False) for pair in pairs]
        return torch.cat(distances).float().mean()


class LaplacianLoss(nn.Module):
    """Difference of Laplacian pyramids of the frames' lower halves; a substitute for `PerceptualLoss` without weights.

    ``sum_j 2^j mean|L_j(predicted) - L_j(target)|`` (Bojanowski et al. 2018, https://arxiv.org/abs/1707.05776, Lap1):
    a wrong pattern counts at every scale that shows it, a wrong brightness only once. It does not model human
    perception, so it suits models of plain images.

    Args:
        levels: bands of the pyramid besides the low-pass residual; fewer for small images.
    """

    def __init__(self, levels: int = 4) -> None:
        super().__init__()
        if levels < 1:
            raise ConfigError(f"Laplacian loss: levels is {levels}, expected 1 or more")
        self.levels = levels

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compare windows: predicted, target (b, 3, f, h, w) in [-1, 1] -> (). Only the prediction gets a gradient."""
        difference = mouth_images(predicted).float() - mouth_images(target.detach()).float()
        loss = difference.new_zeros(())
        # The pyramid is linear, so that of the difference is the difference of the pyramids.
        for level in range(self.levels):
            if min(difference.shape[-2:]) < len(_BINOMIAL):
                break
            smooth = _blur(difference)
            loss = loss + 2.0**level * (difference - smooth).abs().mean()
            difference = smooth[..., ::2, ::2]
        return loss + difference.abs().mean()


def _blur(images: Tensor) -> Tensor:
    """Smooth with a 5x5 binomial filter, reflecting at the border: (n, c, h, w) -> (n, c, h, w)."""
    channels = images.shape[1]
    row = images.new_tensor(_BINOMIAL)
    kernel = torch.outer(row, row).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)
