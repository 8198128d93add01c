"""Training the lip-sync U-Net: the task that `latentsync.training.loop.trainer.Trainer` works on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from latentsync.data.sampling.sample_rng import SampleRng
from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.errors import ConfigError
from latentsync.face.compositing.masks import latent_mask
from latentsync.losses.inputs import LossInputs
from latentsync.losses.reconstruction import denoising_loss
from latentsync.losses.terms import SyncTerm
from latentsync.models.weights.published_layout import save_published
from latentsync.training.loop.task import Shard
from latentsync.training.reporting.image_sheet import save_sheet
from latentsync.training.unet.denoising import (
    NoiseOptions,
    NoisyLatents,
    denoising_target,
    draw_noisy_latents,
    loss_weight_map,
)
from latentsync.training.unet.latent_windows import LatentWindows
from latentsync.training.unet.sampling import sample_windows
from latentsync.training.unet.supervision import Supervision

_SHEET_WINDOWS = 4
_SHEET_COLUMNS = 8
_PEAK = 2.0  # of pixel values in [-1, 1]


@dataclass(frozen=True)
class UNetTaskOptions:
    """How the U-Net is trained.

    Attributes:
        seed: of noise and timesteps.
        noise: see there.
        uncond_prob: fraction of the windows trained without audio, for classifier-free guidance.
        sample_steps: DDIM steps of validation.
    """

    seed: int = 1247
    noise: NoiseOptions = field(default_factory=NoiseOptions)
    uncond_prob: float = 0.0
    sample_steps: int = 20


@dataclass
class ValidationSet:
    """What a U-Net in training is validated on.

    Attributes:
        batches: a fixed set, as from the data source.
        render: writes a whole video made with the network: (network, folder, step) -> None.
    """

    batches: Sequence[Any] = ()
    render: Callable[[nn.Module, Path, int], None] | None = None


class UNetTask:
    """See `TrainingTask`.

    Args:
        network: the U-Net.
        prepare: turns a batch of the source into `LatentWindows`; has ``mask`` (3, R, R), 1 = keep, and ``to(device)``.
        schedule: the noise schedule.
        supervision: losses, and the VAE that decodes for them.
        options: see there.
        validation: see there.
    """

    name = "unet"

    def __init__(
        self,
        network: nn.Module,
        prepare: Any,
        schedule: NoiseSchedule,
        supervision: Supervision,
        options: UNetTaskOptions,
        validation: ValidationSet,
    ) -> None:
        self.network = network
        self.prepare = prepare
        self.schedule = schedule
        self.supervision = supervision
        self.options = options
        self.validation = validation
        self._mask = latent_mask(prepare.mask)[:1]
        self._weight_map = loss_weight_map(self._mask[0], options.noise)

    def to(self, device: torch.device) -> None:
        """See `TrainingTask.to`."""
        self.prepare.to(device)
        self.supervision.to(device)
        self._mask, self._weight_map = self._mask.to(device), self._weight_map.to(device)

    def losses(self, network: nn.Module, batch: Any) -> dict[str, Tensor]:
        """See `TrainingTask.losses`: every loss of the objective."""
        return self.supervision.objective(self._step(network, self.prepare(batch)))

    def _step(self, network: nn.Module, windows: LatentWindows) -> LossInputs:
        """Add noise, run the network, and collect what losses may read."""
        rng = SampleRng(self.options.seed, windows.sample_ids, windows.clean.device)
        noisy = draw_noisy_latents(windows.clean, self.schedule, self.options.noise, rng)
        unconditional = rearrange(rng.uniform() < self.options.uncond_prob, "b -> b 1 1 1")
        audio_embeds = torch.where(unconditional, 0.0, windows.audio)
        sample = torch.cat([noisy.latents, windows.conditions(self._mask)], dim=1)
        prediction = network(sample, noisy.timesteps, audio_embeds).float()
        return self._loss_inputs(windows, noisy, prediction, audio_embeds)

    def _loss_inputs(
        self, windows: LatentWindows, noisy: NoisyLatents, prediction: Tensor, audio_embeds: Tensor
    ) -> LossInputs:
        target, window_weights = denoising_target(windows.clean, noisy, self.schedule)
        return LossInputs(
            prediction=prediction,
            target=target,
            window_weights=window_weights,
            weight_map=self._weight_map,
            pred_latents=self.schedule.as_clean(prediction, noisy.latents, noisy.alpha),
            gt_latents=windows.clean,
            noisy_latents=noisy.latents,
            noise=noisy.noise,
            timesteps=noisy.timesteps,
            alpha_bar=noisy.alpha,
            audio_embeds=audio_embeds,
            mel=windows.mel,
            mask=self.prepare.mask[:1],
            decode=self.supervision.decode_with_gradient,
            load_gt_pixels=lambda: self.supervision.gt_pixels(windows),
        )

    @torch.no_grad()
    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """See `TrainingTask.validate`: the denoising error at fixed noise, and PSNR and sync of sampled mouths."""
        sums: dict[str, list[float]] = {}
        counts: dict[str, int] = {}
        for batch in self.validation.batches[shard.rank :: shard.world_size]:
            windows: LatentWindows = self.prepare(batch)
            step = self._step(network, windows)
            error = step.prediction - step.target
            metrics = {"recon": float(denoising_loss(error, step.weight_map, step.window_weights))}
            metrics |= self._sample_metrics(network, windows)
            for name, value in metrics.items():
                sums.setdefault(name, []).append(value * len(windows.clean))
                counts[name] = counts.get(name, 0) + len(windows.clean)
        return {name: (sum(values), counts[name]) for name, values in sums.items()}

    def _sample_metrics(self, network: nn.Module, windows: LatentWindows) -> dict[str, float]:
        latents = sample_windows(
            network, windows, self._mask, self.schedule, self.options.sample_steps, self.options.seed
        )
        repainted = self._mask[0] < 0.5
        metrics = {"latent_mse": float((latents - windows.clean)[..., repainted].square().mean())}
        images, truth = self.supervision.decode(latents), self.supervision.gt_pixels(windows)
        repaint_mask = 1 - self.prepare.mask
        error = ((images.clamp(-1, 1) - truth) * rearrange(repaint_mask, "c h w -> c 1 h w")).square()
        mse = error.sum(dim=(1, 2, 3, 4)) / (repaint_mask.sum() * images.shape[2])
        metrics["mouth_psnr"] = float((20 * torch.log10(_PEAK / mse.sqrt())).mean())
        for loss in self.supervision.objective.losses.values():
            if isinstance(loss, SyncTerm):
                sampled, true = (latents, windows.clean) if loss.on_latents else (images, truth)
                metrics["sync_loss"] = float(loss.critic(sampled, windows.mel))
                metrics["sync_loss_of_truth"] = float(loss.critic(true, windows.mel))
        return metrics

    @torch.no_grad()
    def save_samples(self, network: nn.Module, folder: Path, step: int) -> None:
        """See `TrainingTask.save_samples`: per window a row each of reference, truth and sample pasted in."""
        if self.validation.batches:
            windows = self.prepare(self.validation.batches[0]).first(_SHEET_WINDOWS)
            latents = sample_windows(
                network, windows, self._mask, self.schedule, self.options.sample_steps, self.options.seed
            )
            pick = torch.linspace(0, latents.shape[2] - 1, _SHEET_COLUMNS).round().long()
            rows = []
            for index in range(len(latents)):
                reference, truth, sample = (
                    self.supervision.decode(each[index : index + 1, :, pick])[0]
                    for each in (windows.reference, windows.clean, latents)
                )
                mask = rearrange(self.prepare.mask, "c h w -> c 1 h w")
                pasted = torch.lerp(sample, truth, mask)
                rows += [rearrange(row, "c f h w -> f c h w").clamp(-1, 1) for row in (reference, truth, pasted)]
            save_sheet(folder / f"unet-{step}.jpg", rows)
        if self.validation.render is not None:
            self.validation.render(network, folder, step)

    def export(self, state_dict: Mapping[str, Tensor], folder: Path, step: int) -> Path:
        """See `TrainingTask.export`: ``{"state_dict", "global_step"}``."""
        return save_published(state_dict, folder / f"latentsync_unet-{step}.pt", step)


def select_trainable(network: nn.Module, names: Sequence[str]) -> None:
    """Leave gradients on only for parameters whose name contains one of ``names``; all where there are none.

    Raises:
        ConfigError: a name fits no parameter.
    """
    if not names:
        network.requires_grad_(True)
        return
    idle = [name for name in names if not any(name in key for key, _ in network.named_parameters())]
    if idle:
        raise ConfigError(f"run.trainable_modules: {idle} fit no parameter of this network; see docs/training.md")
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(any(name in key for name in names))
