"""Everything a training loss may read, computed at most once per step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass
class LossInputs:
    """One step of U-Net training: b windows of f frames, R pixels and h = w = R / 8 latents to a side, on the device.

    Everything is float32 unless stated otherwise. Only ``prediction`` and what derives from it (``pred_latents``,
    ``pred_pixels``) carries a gradient.

    Attributes:
        prediction: (b, 4, f, h, w) output of the U-Net.
        target: (b, 4, f, h, w) what it should be: the noise, or the clean latents if the network predicts those.
        window_weights: (b,) weight of each window's denoising error; depends on its timestep.
        weight_map: (h, w) weight of each latent position, mean 1.
        pred_latents: (b, 4, f, h, w) clean, scaled latents that the prediction stands for.
        gt_latents: (b, 4, f, h, w) clean, scaled latents of the ground truth.
        noisy_latents, noise: (b, 4, f, h, w) input of the U-Net, and the noise in it.
        timesteps: (b,) int64.
        alpha_bar: (b, 1, 1, 1, 1) cumulative product of the schedule's alphas at the timesteps.
        audio_embeds: (b, f, 50, d) what the U-Net was conditioned on; zeros in unconditional windows.
        mel: (b, 1, 80, m) SyncNet mel of the window; m = 0 unless a loss of the run needs "mel".
        mask: (1, R, R), 1 = keep, 0 = repaint.
        decode: (b, 4, f, h, w) scaled latents -> (b, 3, f, R, R) pixels, differentiable.
        load_gt_pixels: gives (b, 3, f, R, R) pixels of the ground truth in [-1, 1].
    """

    prediction: Tensor
    target: Tensor
    window_weights: Tensor
    weight_map: Tensor
    pred_latents: Tensor
    gt_latents: Tensor
    noisy_latents: Tensor
    noise: Tensor
    timesteps: Tensor
    alpha_bar: Tensor
    audio_embeds: Tensor
    mel: Tensor
    mask: Tensor
    decode: Callable[[Tensor], Tensor]
    load_gt_pixels: Callable[[], Tensor]

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return self.prediction.shape[2]

    @cached_property
    def pred_pixels(self) -> Tensor:
        """(b, 3, f, R, R) the decoded ``pred_latents``, about [-1, 1]; decoded when the first loss reads them."""
        return self.decode(self.pred_latents)

    @cached_property
    def gt_pixels(self) -> Tensor:
        """(b, 3, f, R, R) ground truth in [-1, 1]; decoded from ``gt_latents`` where a run caches only latents."""
        return self.load_gt_pixels()


@dataclass
class SyncNetLossInputs:
    """One step of SyncNet training: b pairs of a window and a mel, on the device, float32.

    Attributes:
        vision_embeds, audio_embeds: (b, d) unit vectors, with a gradient.
        cosine: (b,) their agreement in [0, 1].
        labels: (b,) 1 = in sync, 0 = out of sync.
        mouth_readings: of a `GuidedSyncNet`: (b, f, k) mouth parameters read from either embedding; else empty.
        mouth_curves: (b, f, k) true mouth parameters of the video and of the audio; None where the clips have none.
        clips: names of the clips.
    """

    vision_embeds: Tensor
    audio_embeds: Tensor
    cosine: Tensor
    labels: Tensor
    mouth_readings: Sequence[Tensor]
    mouth_curves: Sequence[Tensor] | None
    clips: Sequence[str]
