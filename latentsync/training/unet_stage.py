"""Stage `unet`: the lip-sync network itself, trained on latents of made clips and the frozen encoder's features."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn

from latentsync.diffusion.ddim import NoiseSchedule, Prediction, ddim_step
from latentsync.diffusion.noise import draw_mixed_noise
from latentsync.face.masks import latent_mask
from latentsync.models.loading import load_unet
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.unet_spec import UNetSpec
from latentsync.models.vae import decode_latents
from latentsync.training.clips import with_frames
from latentsync.training.denoising_loss import (
    NoiseOptions,
    alphas_at,
    denoising_loss,
    draw_blind,
    draw_timesteps,
    make_noisy,
    place_importance,
    share_noise,
)
from latentsync.training.latent_bank import LatentBank, WindowBatch
from latentsync.training.mouth_probe import MouthProbe, opening_correlation
from latentsync.training.optimizer import MasterOptimizer, OptimizerOptions
from latentsync.training.run_log import RunLog, save_half, save_sheet, write_json
from latentsync.training.stage import StageContext
from latentsync.training.time_budget import Pacer, TimeBudget, one_cycle

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class UNetStageOptions:
    """How the U-Net is made.

    Attributes:
        spec: its shape.
        batch_size: windows a step.
        num_frames: frames of a window.
        optimizer, noise: see there.
        silent_share: share of the windows whose audio is zeroed, so that guidance has an unconditional side.
        other_reference: share of the windows whose reference is from another part of the source take.
        bank_start: clips encoded before the first step.
        refresh_share: share of the time for rendering and encoding new clips afterwards.
        sample_steps: DDIM steps of the figures and of the sheet.
        prediction_type: what the network gives, see `NoiseSchedule`.
    """

    spec: UNetSpec
    batch_size: int = 24
    num_frames: int = 16
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    noise: NoiseOptions = field(default_factory=NoiseOptions)
    silent_share: float = 0.06
    other_reference: float = 0.2
    bank_start: int = 192
    refresh_share: float = 0.3
    sample_steps: int = 6
    prediction_type: Prediction = "sample"


@dataclass(frozen=True)
class LipMaterial:
    """What the U-Net is trained on.

    Attributes:
        training, held_out: banks of clips with different speech; the held-out one is not refreshed.
        vae: to look at samples.
        mask: (3, R, R) float32, 1 = keep.
        schedule: the noise schedule.
    """

    training: LatentBank
    held_out: LatentBank
    vae: AutoencoderKL
    mask: Tensor
    schedule: NoiseSchedule


def build_unet(spec: UNetSpec) -> UNet3DConditionModel:
    """An untrained network; conv_in starts as usual, since starting as zero would only delay the first steps."""
    unet = UNet3DConditionModel(spec)
    nn.Conv2d.reset_parameters(unet.conv_in)
    return unet


def conditions(batch: WindowBatch, mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The nine constant channels (b, 9, f, h, w): mask (1, h, w), masked and reference latents."""
    size, _, frames = batch.clean.shape[:3]
    mask_channel = with_frames(mask, size, frames).to(batch.masked.dtype)
    return torch.cat([mask_channel, batch.masked, batch.reference], dim=1).to(dtype)


def unet_loss(
    unet: nn.Module,
    batch: WindowBatch,
    mask: Tensor,
    schedule: NoiseSchedule,
    options: UNetStageOptions,
    generator: torch.Generator,
) -> Tensor:
    """Denoising loss of a batch with freshly drawn timesteps and noise; ``mask`` is (1, h, w), 1 = keep."""
    noise_options = options.noise
    clean = batch.clean.float()
    timesteps = draw_timesteps(len(clean), noise_options, generator)
    alpha = alphas_at(schedule, timesteps)
    shape = clean.shape[0], clean.shape[1], clean.shape[2], clean.shape[3], clean.shape[4]
    noise = draw_mixed_noise(shape, noise_options.mixed_noise_alpha, generator, torch.float32)
    blind = draw_blind(timesteps, noise_options, generator)
    noise = share_noise(noise, timesteps, blind, noise_options, generator)
    noisy = make_noisy(clean, noise, alpha, blind)
    dtype = next(unet.parameters()).dtype
    sample = torch.cat([noisy.to(dtype), conditions(batch, mask, dtype)], dim=1)
    heard = torch.rand(len(clean), generator=generator, device=clean.device) >= options.silent_share
    audio = batch.audio.to(dtype) * rearrange(heard, "b -> b 1 1 1")
    prediction = unet(sample, timesteps, audio).float()
    estimate = schedule.as_clean(prediction, noisy, rearrange(alpha, "b -> b 1 1 1 1"))
    importance = place_importance(mask[0], noise_options)
    return denoising_loss(estimate, clean, alpha, importance, noise_options.max_weight)


@torch.no_grad()
def sample_windows(
    unet: nn.Module, batch: WindowBatch, mask: Tensor, schedule: NoiseSchedule, steps: int, generator: torch.Generator
) -> Tensor:
    """DDIM without guidance for a batch of windows: (b, 4, f, h, w) float32; one noise draw shared by the frames."""
    dtype = next(unet.parameters()).dtype
    fixed, audio = conditions(batch, mask, dtype), batch.audio.to(dtype)
    first = torch.randn(batch.clean[:, :, :1].shape, generator=generator, device=mask.device)
    latents = first.expand(batch.clean.shape)
    timesteps = torch.tensor(schedule.timesteps(steps), device=mask.device)
    for index, (alpha, alpha_prev) in enumerate(schedule.alpha_pairs(steps)):
        prediction = unet(torch.cat([latents.to(dtype), fixed], dim=1), timesteps[index], audio).float()
        latents = ddim_step(latents, schedule.as_noise(prediction, latents, alpha), alpha, alpha_prev)
    return latents


def train_unet(
    options: UNetStageOptions, material: LipMaterial, context: StageContext, resume: bool = False
) -> UNet3DConditionModel:
    """Train the U-Net until the stage's budget is used; saves it and logs how it follows the speech regularly.

    Args:
        options: see there.
        material: see there.
        context: device, budget, folders.
        resume: start from the weights that an earlier run left in the checkpoint folder (only the weights: the
            schedule starts anew).

    Returns:
        The averaged network, float32, in evaluation mode.
    """
    log = RunLog(context.folder, "unet")
    mask = latent_mask(material.mask)[:1].to(context.device)
    unet = build_unet(options.spec).to(context.device).train()
    if resume:
        earlier = load_unet(options.spec, unet_path(context.checkpoint_folder), context.device, torch.float32)
        unet.load_state_dict(earlier.state_dict())
    optimizer = MasterOptimizer(unet, options.optimizer, context.dtype)
    budget = context.budget()
    judge = _prepare(options, material, mask, budget, context.generator)
    log.write(clips=material.training.filled, probe_r=judge.probe_r)
    pacer = Pacer(options.refresh_share)
    bank = material.training
    while budget.step():
        if pacer.due():
            with pacer:
                bank.add(context.generator)
        batch = bank.draw(options.batch_size, options.num_frames, context.generator, options.other_reference)
        loss = unet_loss(unet, batch, mask, material.schedule, options, context.generator)
        optimizer.step(loss, one_cycle(budget.fraction))
        if context.log_due():
            log.write(step=optimizer.steps, loss=loss.item(), skipped=optimizer.skipped, clips=bank.filled)
        if context.save_due():
            averaged = _save(optimizer, options, context)
            log.write(step=optimizer.steps, **judge.figures(averaged, options.sample_steps))
    averaged = _save(optimizer, options, context)
    figures = judge.figures(averaged, options.sample_steps)
    for steps in (4, 8, 20):
        figures[f"r_{steps}_steps"] = judge.figures(averaged, steps)["r"]
    log.write(step=optimizer.steps, **figures)
    write_json(context.folder / "validation.json", {"unet": {"steps": optimizer.steps, **figures}})
    judge.save_sheet(averaged, options.sample_steps, context.folder / "unet_sheet.jpg")
    return averaged


def unet_path(checkpoint_folder: Path) -> Path:
    """Where the stage leaves its network."""
    return checkpoint_folder / "unet.safetensors"


def _save(optimizer: MasterOptimizer, options: UNetStageOptions, context: StageContext) -> UNet3DConditionModel:
    averaged = UNet3DConditionModel(options.spec).to(context.device)
    averaged.load_state_dict(optimizer.averaged_state())
    save_half(averaged.state_dict(), unet_path(context.checkpoint_folder))
    return averaged.eval().requires_grad_(False)


@dataclass(frozen=True)
class Judge:
    """Samples the same held-out windows again and again.

    Attributes:
        batch: held-out windows whose reference is the source frame itself.
        probe: reads the mouth's opening.
        probe_r: correlation of what it reads from the true latents; no sample can be expected to beat it.
        mask: (1, h, w) latent mask.
        material: for decoding.
    """

    batch: WindowBatch
    probe: MouthProbe
    probe_r: float
    mask: Tensor
    material: LipMaterial

    def samples(self, unet: nn.Module, steps: int) -> Tensor:
        """Sampled latents of the windows (b, 4, f, h, w), always from the same noise."""
        generator = torch.Generator(self.mask.device).manual_seed(1247)
        return sample_windows(unet, self.batch, self.mask, self.material.schedule, steps, generator)

    def figures(self, unet: nn.Module, steps: int) -> dict[str, float]:
        """Correlations of the opening, and the error of the sampled latents in the repainted region."""
        latents = self.samples(unet, steps)
        batch = self.batch
        figures = opening_correlation(self.probe, latents, batch.reference, batch.mouth, batch.source_mouth)
        repainted = self.mask[0] < 0.5
        error = (latents - batch.clean.float())[..., repainted].square().mean()
        return {**figures, "latent_mse": float(error)}

    def save_sheet(self, unet: nn.Module, steps: int, path: Path, windows: int = 4, columns: int = 8) -> None:
        """For each window: source, truth, truth through the VAE, sample pasted into the source."""
        latents = self.samples(unet, steps)[:windows]
        vae, mask = self.material.vae, self.material.mask.to(self.mask.device)
        rows = []
        for index in range(len(latents)):
            pick = torch.linspace(0, latents.shape[2] - 1, columns).round().long().tolist()
            source, truth, sample = (
                decode_latents(vae, rearrange(values[index, :, pick], "c f h w -> f c h w").to(vae.dtype)).float()
                for values in (self.batch.reference, self.batch.clean, latents)
            )
            rows += [source, truth, torch.lerp(sample, source, mask)]
        save_sheet(path, [row.clamp(-1, 1) for row in rows])


def _prepare(
    options: UNetStageOptions, material: LipMaterial, mask: Tensor, budget: TimeBudget, generator: torch.Generator
) -> Judge:
    """Fill both banks, in a tenth of the time at most, and fit the probe."""
    training, held_out = material.training, material.held_out
    while held_out.filled < len(held_out.latents):
        held_out.add(generator)
    while training.filled < options.bank_start and (budget.fraction < 0.1 or training.filled < 4):
        training.add(generator)
    frames = options.num_frames
    fit = training.draw(min(256, 2 * training.filled), frames, generator, 0.0)
    held = held_out.draw(2 * held_out.filled, frames, generator, 0.0)
    change = (fit.mouth - fit.source_mouth)[..., 0]
    probe = MouthProbe.fit(fit.clean, fit.reference, change, mask[0] < 0.5)
    probe_r = opening_correlation(probe, held.clean, held.reference, held.mouth, held.source_mouth)["r"]
    return Judge(held, probe, probe_r, mask, material)
