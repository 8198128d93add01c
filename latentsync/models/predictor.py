"""From the U-Net to guided noise predictions, step after step over the same windows."""

from typing import Literal

import torch
from torch import Tensor

from latentsync.models.unet import UNet3DConditionModel

Features = Literal["fresh", "keep", "reuse"]


class UNetPredictor:
    """Predicts the noise in windows of latents; what does not change over the steps is computed once, in `begin`.

    Args:
        unet: the network, on the device and in the dtype that all tensors given here have.
    """

    def __init__(self, unet: UNet3DConditionModel) -> None:
        self._unet = unet
        self._fixed: Tensor | None = None
        self._audio: Tensor | None = None
        self._kept: Tensor | None = None

    def begin(self, fixed: Tensor, audio: Tensor) -> None:
        """Start on other windows; what was kept of earlier ones is dropped.

        Args:
            fixed: (b, in_channels - 4, f, h, w) mask, masked latents and reference latents.
            audio: (b, f, k, d) audio windows.
        """
        self._fixed, self._audio, self._kept = fixed, audio, None

    def predict(self, latents: Tensor, timestep: int, guidance_scale: float, features: Features = "fresh") -> Tensor:
        """The network's output for one step.

        Args:
            latents: (b, 4, f, h, w) noisy latents.
            timestep: 0..999.
            guidance_scale: 1 or less follows the audio alone; above 1 pushes away from the prediction without audio
                (classifier-free guidance, Ho & Salimans 2022, eq. 6) and takes about twice the work.
            features: "fresh" computes everything, "keep" also keeps the deep features, "reuse" continues from those
                kept last, under the same guidance.

        Returns:
            (b, 4, f, h, w).

        Raises:
            RuntimeError: called before `begin`, or "reuse" before "keep".
        """
        if self._fixed is None or self._audio is None or (features == "reuse" and self._kept is None):
            raise RuntimeError("The predictor has nothing to continue from: call begin, then predict with 'keep'.")
        guided = guidance_scale > 1
        sample = torch.cat([latents, self._fixed], dim=1)
        audio = self._audio
        if guided:
            sample, audio = sample.repeat(2, 1, 1, 1, 1), torch.cat([torch.zeros_like(audio), audio])
        time = torch.full((), timestep, device=latents.device)
        if features == "reuse" and self._kept is not None:
            output = self._unet.forward_shallow(sample, time, audio, self._kept)
        elif features == "keep":
            output, self._kept = self._unet.forward_full(sample, time, audio)
        else:
            output = self._unet(sample, time, audio)
        if not guided:
            return output
        without_audio, with_audio = output.chunk(2)
        return torch.lerp(without_audio, with_audio, guidance_scale)
