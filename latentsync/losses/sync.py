"""Whether mouth and speech belong together, judged by a SyncNet; and the loss that such a network is trained with."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latentsync.losses.frozen import FrozenNetworkLoss
from latentsync.losses.region import lower_half

# How near a cosine is taken to 0 and 1: the logarithm's gradient there is 1 / _MARGIN instead of infinite.
_MARGIN = 1e-5


def syncnet_bce(cosine: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of cosines.

    Args:
        cosine: (b,) agreement in [0, 1], up to rounding.
        labels: (b,) 1 where mouth and speech belong together, 0 where they do not.

    Returns:
        () float32, the mean. Finite with a finite gradient everywhere; a cosine outside [1e-5, 1 - 1e-5] counts as the
        bound but still gets its gradient, so that a hopeless pair is not given up.
    """
    probability = cosine.float()
    probability = probability + (probability.clamp(_MARGIN, 1 - _MARGIN) - probability).detach()
    labels = labels.float()
    return -(labels * probability.log() + (1 - labels) * torch.log1p(-probability)).mean()


def contrastive_loss(seen: Tensor, heard: Tensor, in_sync: Tensor, temperature: float = 0.07) -> Tensor:
    """Which of a batch's sounds belongs to each mouth, and the other way round (van den Oord et al. 2018, InfoNCE).

    A network that starts from nothing learns far sooner by choosing among many than by saying yes or no to one.

    Args:
        seen: (b, d) unit vectors of the mouths.
        heard: (b, d) unit vectors of the sounds.
        in_sync: (b,) 1 where the pair belongs together; the other rows only serve as wrong answers.
        temperature: of the softmax over cosines.

    Returns:
        () mean cross-entropy over the pairs in sync and both directions; 0 where there is none.
    """
    logits = seen.float() @ heard.float().T / temperature
    right = torch.arange(len(seen), device=seen.device)
    both = F.cross_entropy(logits, right, reduction="none") + F.cross_entropy(logits.T, right, reduction="none")
    weights = (in_sync > 0.5).float()
    return (both * weights).sum() / (2 * weights.sum().clamp(min=1))


class SyncLoss(FrozenNetworkLoss):
    """Cross-entropy of "this window belongs to this speech".

    Args:
        network: image (b, f * c, h, w), mel (b, 1, 80, m) -> unit vectors (b, d), (b, d), e.g.
            `latentsync.models.stable_syncnet.StableSyncNet`.
        resolution: height and width of the whole faces that the network was trained with; None for a network of
            latents, which are neither resized nor halved.
    """

    def __init__(self, network: nn.Module, resolution: int | None) -> None:
        super().__init__(network)
        self.resolution = resolution

    def forward(self, video: Tensor, mel: Tensor) -> Tensor:
        """Judge windows.

        video (b, 3, f, h, w) in [-1, 1], or latents (b, 4, f, h, w) for a network of latents; mel (b, 1, 80, m) -> ()
        """
        image = self._image(video).to(self.dtype)
        seen, heard = self.network(image, mel.to(self.dtype))
        cosine = (seen.float() * heard.float()).sum(dim=1)
        return syncnet_bce(cosine, torch.ones_like(cosine))

    def _image(self, video: Tensor) -> Tensor:
        """Frames stacked on channels as (frame, rgb): (b, c, f, h, w) -> (b, f * c, h', w')."""
        stacked = rearrange(video, "b c f h w -> b (f c) h w")
        if self.resolution is None:
            return stacked
        if stacked.shape[-2:] != (self.resolution, self.resolution):
            size = (self.resolution, self.resolution)
            stacked = F.interpolate(stacked.float(), size, mode="bicubic", align_corners=False)
        return lower_half(stacked)
