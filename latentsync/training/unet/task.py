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
from latentsync.losses.compose import compose
from latentsync.models.weights.published_layout import save_published
from latentsync.training.loop.task import Shard
from latentsync.training.reporting.image_sheet import save_sheet
from latentsync.training.unet.denoising import (
    NoiseOptions,
    NoisyLatents,
    draw_noisy_latents,
    loss_weight_map,
    motion_loss,
    recon_loss,
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
        recon_weight: weight of the denoising error.
        motion_weight: weight of `motion_loss`; 0 as published.
        uncond_prob: share of the windows trained without sound, so that guidance has an unconditional side.
        sample_steps: DDIM steps of validation.
    """

    seed: int = 1247
    noise: NoiseOptions = field(default_factory=NoiseOptions)
    recon_weight: float = 1.0
    motion_weight: float = 0.0
    uncond_prob: float = 0.0
    sample_steps: int = 20


@dataclass
class ValidationSet:
    """What a U-Net in training is judged on.

    Attributes:
        batches: always the same, as from the data; cheap to keep.
        render: makes a whole video with the network and returns figures on it: (network, folder, step) -> None.
    """

    batches: Sequence[Any] = ()
    render: Callable[[nn.Module, Path, int], None] | None = None


class UNetTask:
    """See `TrainingTask`.

    Args:
        network: the U-Net.
        prepare: turns a batch of the source into `LatentWindows`; has ``mask`` (3, R, R), 1 = keep, and ``to(device)``.
        schedule: the noise schedule.
        supervision: judges of the decoded picture.
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
        """See `TrainingTask.losses`: the denoising error, and what the judges say of the clean estimate."""
        windows: LatentWindows = self.prepare(batch)
        noisy, prediction = self._predict(network, windows)
        estimate = self.schedule.as_clean(prediction, noisy.latents, noisy.alpha)
        answer = (prediction, windows.clean, noisy, self.schedule, self._weight_map)
        terms = {"recon": lambda: recon_loss(*answer), "motion": lambda: motion_loss(*answer)}
        options = self.options
        weights = {"recon": options.recon_weight, "motion": options.motion_weight, **self.supervision.weights}
        return compose({**terms, **self.supervision.terms(estimate, windows)}, weights)

    def _predict(self, network: nn.Module, windows: LatentWindows) -> tuple[NoisyLatents, Tensor]:
        """Noisy windows and the network's answer (b, 4, f, h, w) float32."""
        rng = SampleRng(self.options.seed, windows.sample_ids, windows.clean.device)
        noisy = draw_noisy_latents(windows.clean, self.schedule, self.options.noise, rng)
        silent = rearrange(rng.uniform() < self.options.uncond_prob, "b -> b 1 1 1")
        audio = torch.where(silent, 0.0, windows.audio)
        sample = torch.cat([noisy.latents, windows.conditions(self._mask)], dim=1)
        return noisy, network(sample, noisy.timesteps, audio).float()

    @torch.no_grad()
    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """See `TrainingTask.validate`: the denoising error at fixed noise, and PSNR and sync of sampled mouths."""
        sums: dict[str, list[float]] = {}
        counts: dict[str, int] = {}
        for batch in self.validation.batches[shard.rank :: shard.world_size]:
            windows: LatentWindows = self.prepare(batch)
            noisy, prediction = self._predict(network, windows)
            metrics = {"recon": float(recon_loss(prediction, windows.clean, noisy, self.schedule, self._weight_map))}
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
        images = self.supervision.decode(latents)
        truth = windows.gt_pixel_values
        if truth is None:
            truth = self.supervision.decode(windows.clean)
        repaint_mask = 1 - self.prepare.mask
        error = ((images.clamp(-1, 1) - truth) * rearrange(repaint_mask, "c h w -> c 1 h w")).square()
        mse = error.sum(dim=(1, 2, 3, 4)) / (repaint_mask.sum() * images.shape[2])
        metrics["mouth_psnr"] = float((20 * torch.log10(_PEAK / mse.sqrt())).mean())
        if "sync" in self.supervision.critics:
            critic = self.supervision.critics["sync"]
            seen = images if self.supervision.in_pixels else latents
            true_seen = truth if self.supervision.in_pixels else windows.clean
            metrics["sync_loss"] = float(critic(seen, windows.mel))
            metrics["sync_loss_of_truth"] = float(critic(true_seen, windows.mel))
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
