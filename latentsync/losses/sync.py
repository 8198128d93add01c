"""SyncNet losses: sync supervision by a frozen SyncNet, and the losses that train one."""

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
        labels: (b,) 1 = in sync, 0 = out of sync.

    Returns:
        () float32, the mean. Finite with a finite gradient everywhere; a cosine outside [1e-5, 1 - 1e-5] counts as the
        bound but still gets its gradient, so that a hopeless pair is not given up.
    """
    probability = cosine.float()
    probability = probability + (probability.clamp(_MARGIN, 1 - _MARGIN) - probability).detach()
    labels = labels.float()
    return -(labels * probability.log() + (1 - labels) * torch.log1p(-probability)).mean()


def contrastive_loss(vision_embeds: Tensor, audio_embeds: Tensor, in_sync: Tensor, temperature: float = 0.07) -> Tensor:
    """Symmetric InfoNCE over the batch (van den Oord et al. 2018).

    A network trained from scratch learns far sooner from many negatives than from single labeled pairs.

    Args:
        vision_embeds: (b, d) unit vectors.
        audio_embeds: (b, d) unit vectors.
        in_sync: (b,) 1 = in sync; rows of the other pairs serve as negatives only.
        temperature: of the softmax over cosines.

    Returns:
        () mean cross-entropy over the pairs in sync and both directions; 0 where there is none.
    """
    logits = vision_embeds.float() @ audio_embeds.float().T / temperature
    matches = torch.arange(len(logits), device=logits.device)
    both = F.cross_entropy(logits, matches, reduction="none") + F.cross_entropy(logits.T, matches, reduction="none")
    weights = (in_sync > 0.5).float()
    return (both * weights).sum() / (2 * weights.sum().clamp(min=1))


class SyncLoss(FrozenNetworkLoss):
    """Cross-entropy of "this window is in sync with this speech".

    Args:
        network: image (b, f * c, h, w), mel (b, 1, 80, m) -> unit vectors (b, d), (b, d), e.g.
            `latentsync.models.stable_syncnet.StableSyncNet`.
        resolution: height and width of the face crops the network was trained on; None for a SyncNet on latents, which
            are neither resized nor cropped.
    """

    def __init__(self, network: nn.Module, resolution: int | None) -> None:
        super().__init__(network)
        self.resolution = resolution

    def forward(self, video: Tensor, mel: Tensor) -> Tensor:
        """Score windows.

        video (b, 3, f, h, w) in [-1, 1], or latents (b, 4, f, h, w) for a SyncNet on latents; mel (b, 1, 80, m) -> ()
        """
        image = self._image(video).to(self.dtype)
        vision_embeds, audio_embeds = self.network(image, mel.to(self.dtype))
        cosine = (vision_embeds.float() * audio_embeds.float()).sum(dim=1)
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
