"""The losses that ship with the package, each as a class that a configuration can name."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.errors import ConfigError
from latentsync.losses.inputs import LossInputs, SyncNetLossInputs
from latentsync.losses.perceptual import LaplacianLoss, PerceptualLoss
from latentsync.losses.reconstruction import denoising_loss, flicker_loss, pixel_loss
from latentsync.losses.sync import SyncLoss, contrastive_loss, syncnet_bce
from latentsync.losses.trepa import TrepaLoss


class ReconTerm:
    """Squared error of the prediction; see `denoising_loss`."""

    def __call__(self, inputs: LossInputs) -> Tensor:
        """See `Loss`."""
        return denoising_loss(inputs.prediction - inputs.target, inputs.weight_map, inputs.window_weights)


class MotionTerm:
    """Change of the prediction's error from frame to frame; see `flicker_loss`."""

    def __call__(self, inputs: LossInputs) -> Tensor:
        """See `Loss`."""
        return flicker_loss(inputs.prediction - inputs.target, inputs.weight_map, inputs.window_weights)


class PixelTerm:
    """Absolute error of the decoded pixels in the repainted region; see `pixel_loss`."""

    def __call__(self, inputs: LossInputs) -> Tensor:
        """See `Loss`."""
        return pixel_loss(inputs.pred_pixels, inputs.gt_pixels, 1 - inputs.mask[None, None])


class SyncTerm(nn.Module):
    """SyncNet's cross-entropy of "in sync"; see `SyncLoss` for the arguments."""

    needs = frozenset({"mel", "syncnet"})

    def __init__(self, syncnet: nn.Module, syncnet_resolution: int | None) -> None:
        super().__init__()
        self.critic = SyncLoss(syncnet, syncnet_resolution)
        self.on_latents = syncnet_resolution is None

    def forward(self, inputs: LossInputs) -> Tensor:
        """See `Loss`."""
        return self.critic(inputs.pred_latents if self.on_latents else inputs.pred_pixels, inputs.mel)


class LpipsTerm(nn.Module):
    """LPIPS of the lower half of the face; see `PerceptualLoss`."""

    needs = frozenset({"lpips"})

    def __init__(self, lpips: nn.Module, chunk_size: int = 16) -> None:
        super().__init__()
        self.critic = PerceptualLoss(lpips, chunk_size)

    def forward(self, inputs: LossInputs) -> Tensor:
        """See `Loss`."""
        return self.critic(inputs.pred_pixels, inputs.gt_pixels)


class PyramidTerm:
    """Laplacian pyramids of the lower half of the face, a substitute for LPIPS without weights; see `LaplacianLoss`."""

    def __init__(self, levels: int = 4) -> None:
        self.pyramid = LaplacianLoss(levels)

    def __call__(self, inputs: LossInputs) -> Tensor:
        """See `Loss`."""
        return self.pyramid(inputs.pred_pixels, inputs.gt_pixels)


class TrepaTerm(nn.Module):
    """Temporal representation alignment; see `TrepaLoss`."""

    needs = frozenset({"videomae"})

    def __init__(self, videomae: nn.Module, size: int = 224) -> None:
        super().__init__()
        self.critic = TrepaLoss(videomae, size)

    def forward(self, inputs: LossInputs) -> Tensor:
        """See `Loss`."""
        return self.critic(inputs.pred_pixels, inputs.gt_pixels)


class BceTerm:
    """SyncNet training: cross-entropy of single pairs; see `syncnet_bce`."""

    def __call__(self, inputs: SyncNetLossInputs) -> Tensor:
        """See `Loss`."""
        return syncnet_bce(inputs.cosine, inputs.labels)


class ContrastiveTerm:
    """SyncNet training: InfoNCE over the batch; see `contrastive_loss`."""

    def __init__(self, temperature: float = 0.07) -> None:
        self.temperature = temperature

    def __call__(self, inputs: SyncNetLossInputs) -> Tensor:
        """See `Loss`."""
        return contrastive_loss(inputs.vision_embeds, inputs.audio_embeds, inputs.labels, self.temperature)


class MouthTerm:
    """SyncNet training: squared error of the mouth parameters that a `GuidedSyncNet` reads from both embeddings."""

    def __call__(self, inputs: SyncNetLossInputs) -> Tensor:
        """See `Loss`. Raises ConfigError for clips without mouth curves."""
        if inputs.mouth_curves is None:
            raise ConfigError(
                "run.mouth_weight needs clips whose sidecars hold mouth curves, as those of a synthetic corpus do "
                f"(docs/data.md), and data.cache_frames=true; {inputs.clips[0]} has none. Set run.mouth_weight=0"
            )
        pairs = zip(inputs.mouth_readings, inputs.mouth_curves, strict=True)
        return torch.stack([F.mse_loss(reading, curve) for reading, curve in pairs]).sum()


UNET_LOSSES = {
    "recon": ReconTerm,
    "motion": MotionTerm,
    "pixel": PixelTerm,
    "sync": SyncTerm,
    "lpips": LpipsTerm,
    "pyramid": PyramidTerm,
    "trepa": TrepaTerm,
}
"""Short names of U-Net losses."""

SYNCNET_LOSSES = {"bce": BceTerm, "contrastive": ContrastiveTerm, "mouth": MouthTerm}
"""Short names of SyncNet losses."""
