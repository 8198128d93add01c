"""Guided noise predictions of the U-Net over the denoising steps of the same windows."""

import torch
from torch import Tensor

from latentsync.diffusion.step_plan import FeatureCacheMode
from latentsync.models.unet.unet import AudioContext, UNet3DConditionModel


class UNetPredictor:
    """Predicts the noise in windows of latents; whatever is constant over the steps is computed once, in `begin`.

    Args:
        unet: the network, on the device and in the dtype that all tensors given here have.
        split_guidance: run the two branches of guidance one after the other instead of as one batch, which halves the
            memory and takes slightly longer.
    """

    def __init__(self, unet: UNet3DConditionModel, *, split_guidance: bool = False) -> None:
        self._unet, self._split = unet, split_guidance
        self._conditioning: Tensor | None = None
        # The audio of each network call that a step takes, unguided and guided.
        self._runs: tuple[list[AudioContext], list[AudioContext]] = ([], [])
        self._kept: list[Tensor] = []
        self._kept_guided = False

    def begin(self, conditioning: Tensor, audio: Tensor) -> None:
        """Start on new windows, dropping the cached features of earlier ones.

        Args:
            conditioning: (b, in_channels - 4, f, h, w) mask, masked latents and reference latents.
            audio: (b, f, k, d) audio windows.
        """
        context = self._unet.project_audio(audio)
        if self._split:
            guided = [self._unet.project_audio(torch.zeros_like(audio)), context]
        else:
            guided = [[projected and projected._replace(guided=True) for projected in context]]
        self._conditioning, self._runs, self._kept = conditioning, ([context], guided), []

    def predict(
        self, latents: Tensor, timestep: int, guidance_scale: float, cache_mode: FeatureCacheMode = "fresh"
    ) -> Tensor:
        """The network's output for one step.

        Args:
            latents: (b, 4, f, h, w) noisy latents.
            timestep: 0..999.
            guidance_scale: 1 or less takes the prediction with audio; above 1 pushes away from the prediction without
                audio and takes about twice the work, see `apply_guidance`.
            cache_mode: "fresh" computes everything, "keep" also caches the deep features, "reuse" starts from those
                cached last, under the same guidance.

        Returns:
            (b, 4, f, h, w).

        Raises:
            RuntimeError: called before `begin`, or "reuse" without "keep" under the same guidance before it.
        """
        guided = guidance_scale > 1
        runs = self._runs[guided]
        if self._conditioning is None or (cache_mode == "reuse" and not (self._kept and self._kept_guided == guided)):
            raise RuntimeError(
                "No cached features to reuse: call begin, then predict with 'keep' under the same guidance first."
            )
        sample = torch.cat([latents, self._conditioning], dim=1)
        time = torch.full((), timestep, device=latents.device)
        if cache_mode == "reuse":
            outputs = [self._unet.forward_shallow(sample, time, *run) for run in zip(runs, self._kept, strict=True)]
        else:
            self._kept, self._kept_guided = [], guided
            outputs = [self._run_full(sample, time, context, keep=cache_mode == "keep") for context in runs]
        output = torch.cat(outputs)
        return apply_guidance(output, guidance_scale) if guided and len(output) > len(latents) else output

    def _run_full(self, sample: Tensor, time: Tensor, context: AudioContext, *, keep: bool) -> Tensor:
        output, deep = self._unet.forward_full(sample, time, context)
        if keep:
            self._kept.append(deep)
        return output


def apply_guidance(output: Tensor, guidance_scale: float | Tensor) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6).

    output (2b, c, f, h, w): predictions without audio, then those with it -> (b, c, f, h, w)
    """
    without_audio, with_audio = output.chunk(2)
    return without_audio + guidance_scale * (with_audio - without_audio)
