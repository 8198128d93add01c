"""From the U-Net to guided noise predictions, step after step over the same windows."""

from typing import Literal

import torch
from torch import Tensor

from latentsync.models.unet import Heard, UNet3DConditionModel

Features = Literal["fresh", "keep", "reuse"]


class UNetPredictor:
    """Predicts the noise in windows of latents; what does not change over the steps is computed once, in `begin`.

    Args:
        unet: the network, on the device and in the dtype that all tensors given here have.
    """

    def __init__(self, unet: UNet3DConditionModel) -> None:
        self._unet = unet
        self._fixed: Tensor | None = None
        self._heard: tuple[Heard, Heard] = ([], [])
        self._kept: Tensor | None = None

    def begin(self, fixed: Tensor, audio: Tensor) -> None:
        """Start on other windows; what was kept of earlier ones is dropped.

        Args:
            fixed: (b, in_channels - 4, f, h, w) mask, masked latents and reference latents.
            audio: (b, f, k, d) audio windows.
        """
        heard = self._unet.hear(audio)
        guided = [part and part._replace(guided=True) for part in heard]
        self._fixed, self._heard, self._kept = fixed, (heard, guided), None

    def predict(self, latents: Tensor, timestep: int, guidance_scale: float, features: Features = "fresh") -> Tensor:
        """The network's output for one step.

        Args:
            latents: (b, 4, f, h, w) noisy latents.
            timestep: 0..999.
            guidance_scale: 1 or less follows the audio alone; above 1 pushes away from the prediction without audio
                and takes about twice the work, see `guide`.
            features: "fresh" computes everything, "keep" also keeps the deep features, "reuse" continues from those
                kept last, under the same guidance.

        Returns:
            (b, 4, f, h, w).

        Raises:
            RuntimeError: called before `begin`, or "reuse" before "keep".
        """
        if self._fixed is None or (features == "reuse" and self._kept is None):
            raise RuntimeError("The predictor has nothing to continue from: call begin, then predict with 'keep'.")
        sample = torch.cat([latents, self._fixed], dim=1)
        time = torch.full((), timestep, device=latents.device)
        guided = guidance_scale > 1
        heard = self._heard[guided]
        if features == "reuse" and self._kept is not None:
            output = self._unet.forward_shallow(sample, time, heard, self._kept)
        else:
            output, deep = self._unet.forward_full(sample, time, heard)
            self._kept = deep if features == "keep" else None
        return guide(output, guidance_scale) if guided and len(output) > len(latents) else output


def guide(output: Tensor, guidance_scale: float | Tensor) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6).

    output (2b, c, f, h, w): predictions without audio, then those with it -> (b, c, f, h, w)
    """
    without_audio, with_audio = output.chunk(2)
    return without_audio + guidance_scale * (with_audio - without_audio)
