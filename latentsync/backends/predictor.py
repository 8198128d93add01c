"""From the U-Net to guided noise predictions, step after step over the same windows."""

from typing import Literal

import torch
from torch import Tensor

from latentsync.models.unet.unet import Heard, UNet3DConditionModel

Features = Literal["fresh", "keep", "reuse"]


class UNetPredictor:
    """Predicts the noise in windows of latents; what does not change over the steps is computed once, in `begin`.

    Args:
        unet: the network, on the device and in the dtype that all tensors given here have.
        split_guidance: predict without audio and with it one after the other instead of together, which takes half
            the memory and a little longer.
    """

    def __init__(self, unet: UNet3DConditionModel, *, split_guidance: bool = False) -> None:
        self._unet, self._split = unet, split_guidance
        self._fixed: Tensor | None = None
        # What is heard in each run of the network that a step takes, unguided and guided.
        self._runs: tuple[list[Heard], list[Heard]] = ([], [])
        self._kept: list[Tensor] = []
        self._kept_guided = False

    def begin(self, fixed: Tensor, audio: Tensor) -> None:
        """Start on other windows; what was kept of earlier ones is dropped.

        Args:
            fixed: (b, in_channels - 4, f, h, w) mask, masked latents and reference latents.
            audio: (b, f, k, d) audio windows.
        """
        heard = self._unet.hear(audio)
        if self._split:
            guided = [self._unet.hear(torch.zeros_like(audio)), heard]
        else:
            guided = [[part and part._replace(guided=True) for part in heard]]
        self._fixed, self._runs, self._kept = fixed, ([heard], guided), []

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
            RuntimeError: called before `begin`, or "reuse" without "keep" under the same guidance before it.
        """
        guided = guidance_scale > 1
        runs = self._runs[guided]
        if self._fixed is None or (features == "reuse" and not (self._kept and self._kept_guided == guided)):
            raise RuntimeError("The predictor has nothing to continue from: call begin, then predict with 'keep'.")
        sample = torch.cat([latents, self._fixed], dim=1)
        time = torch.full((), timestep, device=latents.device)
        if features == "reuse":
            outputs = [self._unet.forward_shallow(sample, time, *run) for run in zip(runs, self._kept, strict=True)]
        else:
            self._kept, self._kept_guided = [], guided
            outputs = [self._run_full(sample, time, heard, keep=features == "keep") for heard in runs]
        output = torch.cat(outputs)
        return guide(output, guidance_scale) if guided and len(output) > len(latents) else output

    def _run_full(self, sample: Tensor, time: Tensor, heard: Heard, *, keep: bool) -> Tensor:
        output, deep = self._unet.forward_full(sample, time, heard)
        if keep:
            self._kept.append(deep)
        return output


def guide(output: Tensor, guidance_scale: float | Tensor) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6).

    output (2b, c, f, h, w): predictions without audio, then those with it -> (b, c, f, h, w)
    """
    without_audio, with_audio = output.chunk(2)
    return without_audio + guidance_scale * (with_audio - without_audio)
