"""Stage `vae`: a small autoencoder for aligned faces, faces with the repainted region blanked, and photographs."""

import json
import logging
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.models.vae import load_vae
from latentsync.training.demo.clips import ClipSource, ImageBank, PhotoCrops, sample_mouth_states
from latentsync.training.demo.optimizer import MasterOptimizer, OptimizerOptions
from latentsync.training.demo.run_log import RunLog, save_half, write_json
from latentsync.training.demo.stage import StageContext
from latentsync.training.demo.time_budget import Pacer, one_cycle
from latentsync.training.reporting.image_sheet import save_sheet

logger = logging.getLogger(__name__)

_CONFIG_NAME = "config.json"
_WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class VaeStageOptions:
    """How the autoencoder is made.

    Attributes:
        block_out_channels: width at each of the four scales, finest first.
        layers_per_block, norm_num_groups: as in diffusers.
        batch_size: pictures a step.
        optimizer: see there.
        kl_weight: weight of the latents' divergence from a standard normal, per latent number.
        gradient_weight: weight of the error of neighbouring pixels' differences.
        colour_weight: weight of the error of hue, without which a small network saves itself the colours: brightness
            is most of what the other terms see.
        mouth_weight: extra weight of the repainted region.
        masked_fraction: share of the pictures that are shown with the repainted region blanked.
        crop_fraction: fraction of the budget, from the start, in which squares are cropped, every other time
            round the repainted region: more of what matters in less time.
        crop_side: of these squares in pixels.
        bank_capacity, bank_warmup_clips: pictures kept, and clips rendered before the first step.
        refresh_fraction: share of the time for rendering new clips afterwards.
        compile: let torch compile both halves, which pays after a minute on a GPU.
        start_from: folder of an autoencoder of these sizes to go on from; "" starts from nothing.
    """

    block_out_channels: tuple[int, ...] = (24, 48, 96, 96)
    layers_per_block: int = 1
    norm_num_groups: int = 8
    batch_size: int = 32
    optimizer: OptimizerOptions = field(default_factory=lambda: OptimizerOptions(lr=2e-3, weight_decay=0.0))
    kl_weight: float = 2e-4
    gradient_weight: float = 1.0
    colour_weight: float = 0.0
    mouth_weight: float = 1.0
    masked_fraction: float = 0.3
    crop_fraction: float = 0.0
    crop_side: int = 160
    bank_capacity: int = 12000
    bank_warmup_clips: int = 64
    refresh_fraction: float = 0.3
    compile: bool = False
    start_from: str = ""


def build_vae(options: VaeStageOptions, resolution: int) -> AutoencoderKL:
    """The autoencoder to train, float32 on the CPU: from ``start_from``, or untrained of the options' size.

    Raises:
        ConfigError: the one to go on from has other sizes.
        CheckpointError: it is missing or damaged.
    """
    levels = len(options.block_out_channels)
    fresh = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=options.block_out_channels,
        layers_per_block=options.layers_per_block,
        norm_num_groups=options.norm_num_groups,
        latent_channels=4,
        sample_size=resolution,
    )
    if not options.start_from:
        return fresh
    trained = load_vae(Path(options.start_from), torch.device("cpu"), torch.float32)
    wanted, given = _sizes(fresh), _sizes(trained)
    if wanted != given:
        raise ConfigError(f"vae.start_from: {options.start_from} has {given}, but the recipe asks for {wanted}")
    fresh.load_state_dict(trained.state_dict())
    return fresh


def _sizes(vae: AutoencoderKL) -> dict[str, Any]:
    names = ("layers_per_block", "norm_num_groups")
    return {"block_out_channels": list(vae.config["block_out_channels"])} | {name: vae.config[name] for name in names}


def vae_loss(vae: AutoencoderKL, pixels: Tensor, importance: Tensor, options: VaeStageOptions) -> dict[str, Tensor]:
    """Loss terms of a batch.

    Args:
        vae: the autoencoder.
        pixels: (n, 3, R, R) float32 in [-1, 1].
        importance: (1, 1, R, R) weight of each pixel.
        options: weights of the terms.

    Returns:
        Scalars: total, pixel (mean absolute error), colour (that of the means of 4 x 4 pixels less their grey), kl (per
        latent number).
    """
    posterior = vae.encode(pixels.to(vae.dtype, memory_format=torch.channels_last)).latent_dist
    noise = torch.randn_like(posterior.mean)
    restored = vae.decode(posterior.mean + posterior.std * noise).sample.float()
    error = restored - pixels
    pixel = (error.abs() * importance).mean()
    across = ((error[..., 1:] - error[..., :-1]).abs() * importance[..., 1:]).mean()
    down = ((error[..., 1:, :] - error[..., :-1, :]).abs() * importance[..., 1:, :]).mean()
    coarse = F.avg_pool2d(error * importance, 4)
    colour = (coarse - coarse.mean(1, keepdim=True)).abs().mean()
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    likeness = pixel + coarse.abs().mean() + options.gradient_weight * (across + down) + options.colour_weight * colour
    return {"total": likeness + options.kl_weight * kl, "pixel": pixel, "colour": colour, "kl": kl}


class RandomCrops:
    """Random squares of pictures, every other one round the repainted region.

    Args:
        side: of the squares in pixels; whole pictures where those are smaller.
        mask: (R, R), 1 = keep, 0 = repaint.
        seed: of the places.
    """

    def __init__(self, side: int, mask: Tensor, seed: int) -> None:
        self.side = side
        self._random = random.Random(seed)
        repainted = torch.nonzero(mask < 0.5).float()
        self._centre = repainted.mean(0).tolist() if len(repainted) else [mask.shape[0] / 2] * 2
        self._near = False

    def draw(self, resolution: int) -> tuple[Any, slice, slice]:
        """Index of the next square, for pictures (..., R, R)."""
        self._near = not self._near
        free = max(0, resolution - self.side)
        if self._near:
            wander = free / 4
            starts = [center - self.side / 2 + self._random.uniform(-wander, wander) for center in self._centre]
        else:
            starts = [self._random.uniform(0, free) for _ in range(2)]
        top, left = (min(max(0, round(start)), free) for start in starts)
        return ..., slice(top, top + self.side), slice(left, left + self.side)


@dataclass(frozen=True)
class FaceMaterial:
    """What the autoencoder is shown.

    Attributes:
        source: makes the faces.
        held_out: makes faces of other people, for the figures.
        photos: pieces of photographs, or None.
        curves: (n, t, 7) mouth curves to show.
        mask: (3, R, R) float32, 1 = keep, 0 = repaint.
    """

    source: ClipSource
    held_out: ClipSource
    photos: PhotoCrops | None
    curves: Tensor
    mask: Tensor


def train_vae(options: VaeStageOptions, material: FaceMaterial, context: StageContext) -> AutoencoderKL:
    """Train the autoencoder until the stage's budget is used; saves it regularly.

    Returns:
        The averaged autoencoder with its scaling factor set, as saved, in float32 and evaluation mode.
    """
    log = RunLog(context.folder, "vae")
    mask = material.mask.to(context.device)
    importance = 1 + options.mouth_weight * (1 - mask[None, :1])
    importance = importance / importance.mean()
    states = sample_mouth_states(material.curves.to(context.device), 50000, context.generator)
    bank = ImageBank(options.bank_capacity, material.source, material.photos, states)
    vae = build_vae(options, material.source.resolution).to(context.device).train()
    vae.to(memory_format=torch.channels_last)
    if options.compile:
        vae.encoder.compile()
        vae.decoder.compile()
    optimizer = MasterOptimizer(vae, options.optimizer, context.dtype)
    budget = context.budget()
    while bank.filled < options.bank_warmup_clips * bank.clip_frames and budget.fraction < 0.1:
        bank.add(context.generator)
    pacer = Pacer(options.refresh_fraction)
    crops = RandomCrops(options.crop_side, mask[0], context.seed)
    while budget.step():
        if pacer.due():
            with pacer:
                bank.add(context.generator)
        pixels = bank.draw(options.batch_size, context.generator)
        pixels[: round(options.masked_fraction * len(pixels))] *= mask
        crop_index = crops.draw(pixels.shape[-1]) if budget.fraction < options.crop_fraction else (...,)
        losses = vae_loss(vae, pixels[crop_index], importance[crop_index], options)
        optimizer.step(losses["total"], one_cycle(budget.fraction))
        if context.log_due():
            metrics = {name: value.item() for name, value in losses.items()}
            log.write(step=optimizer.steps, skipped=optimizer.skipped, images=bank.filled, **metrics)
        if context.save_due():
            _save(vae, optimizer, bank, context)
    saved = _save(vae, optimizer, bank, context)
    metrics = _evaluate(saved, material, mask, context)
    log.write(step=optimizer.steps, **metrics)
    write_json(context.folder / "validation.json", {"vae": {"steps": optimizer.steps, **metrics}})
    return saved


def vae_folder(checkpoint_folder: Path) -> Path:
    """Where the stage leaves its autoencoder."""
    return checkpoint_folder / "vae"


@torch.no_grad()
def _save(vae: AutoencoderKL, optimizer: MasterOptimizer, bank: ImageBank, context: StageContext) -> AutoencoderKL:
    """Save the averaged weights, with the factor that brings face latents to unit deviation; returns what was saved."""
    averaged = AutoencoderKL.from_config(vae.config).to(context.device)
    averaged.load_state_dict(optimizer.averaged_state())
    averaged.eval().requires_grad_(False)
    generator = torch.Generator(context.device).manual_seed(0)
    latents = torch.cat([averaged.encode(bank.draw(16, generator)).latent_dist.mean for _ in range(8)])
    averaged.register_to_config(scaling_factor=float(1 / latents.std()), sample_size=bank.source.resolution)
    folder = vae_folder(context.checkpoint_folder)
    save_half(averaged.state_dict(), folder / _WEIGHTS_NAME)
    # diffusers' private entries must go: _use_default_values would make the loader ignore the scaling factor.
    config = {name: value for name, value in averaged.config.items() if not name.startswith("_")}
    text = json.dumps({"_class_name": "AutoencoderKL", **config}, indent=1)
    (folder / _CONFIG_NAME).write_text(text + "\n", "utf-8")
    return averaged


@torch.no_grad()
def _evaluate(vae: AutoencoderKL, material: FaceMaterial, mask: Tensor, context: StageContext) -> dict[str, float]:
    """Quality on new faces, reloaded from the files; also writes the sheet."""
    loaded = load_vae(vae_folder(context.checkpoint_folder), context.device, torch.float32)
    generator = torch.Generator(context.device).manual_seed(context.seed + 1)
    states = sample_mouth_states(material.curves.to(context.device), 12, generator)
    faces = torch.cat([material.held_out.clips(state[None, None], generator)[0] for state in states])
    latents = loaded.encode(faces).latent_dist.mean
    restored = loaded.decode(latents).sample.clamp(-1, 1)
    scaled = latents * float(loaded.config.scaling_factor)
    save_sheet(context.folder / "vae_sheet.jpg", [faces, restored])
    error = (restored - faces).square()
    repainted = 1 - mask
    mouth = (error * repainted).sum() / (repainted.sum() * len(faces))
    return {
        "psnr": float(10 * torch.log10(4 / error.mean())),
        "psnr_repainted": float(10 * torch.log10(4 / mouth)),
        "scaling_factor": float(loaded.config.scaling_factor),
        "latent_mean": float(scaled.mean()),
        "latent_std": float(scaled.std()),
        "latent_max": float(scaled.abs().max()),
    }
