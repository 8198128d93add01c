"""Training the demo model's VAE: a small autoencoder for aligned faces, masked faces and photographs."""

import copy
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from latentsync.errors import ConfigError
from latentsync.losses.weighted_sum import weighted_sum
from latentsync.models.vae import load_vae
from latentsync.training.demo.clips import ImageBank
from latentsync.training.demo.half_weights import save_half
from latentsync.training.demo.pacer import Pacer
from latentsync.training.loop.options import UpdateOptions
from latentsync.training.loop.task import Shard
from latentsync.training.reporting.image_sheet import save_sheet

_CONFIG_NAME = "config.json"
_WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"


_VAE = "vae."
_SCALE_IMAGES = 128  # that the latents' standard deviation is measured on
_CHUNK = 16


@dataclass(frozen=True)
class VaeStageOptions:
    """How the VAE is trained.

    Attributes:
        block_out_channels: channels at each of the four scales, finest first.
        layers_per_block, norm_num_groups: as in diffusers.
        batch_size: images per step.
        optimizer: see `UpdateOptions`.
        kl_weight: weight of the KL divergence from a standard normal, per latent value.
        gradient_weight: weight of the error of horizontal and vertical differences.
        colour_weight: weight of the error of hue. The other terms are dominated by brightness, so a small network
            spends no capacity on color without it.
        mouth_weight: extra weight of the repainted region.
        masked_fraction: fraction of the images with the repainted region blanked.
        crop_fraction: fraction of the run, from the start, that trains on square crops, every other one around the
            repainted region: more of what matters in less time.
        crop_side: of the crops in pixels.
        bank_capacity, bank_warmup_clips: images kept, and clips rendered before the first step.
        refresh_fraction: fraction of the time for rendering new clips afterwards.
        compile: use ``torch.compile``, which pays off after a minute on a GPU.
        start_from: folder of a VAE of these sizes to start from; "" = from scratch.
    """

    block_out_channels: tuple[int, ...] = (24, 48, 96, 96)
    layers_per_block: int = 1
    norm_num_groups: int = 8
    batch_size: int = 32
    optimizer: UpdateOptions = field(
        default_factory=lambda: UpdateOptions(
            lr=2e-3,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            lr_scheduler="cosine",
            lr_warmup_fraction=0.05,
            ema_decay=0.999,
        )
    )
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
    """The VAE to train, float32 on the CPU: from ``start_from``, or randomly initialized.

    Raises:
        ConfigError: the VAE to start from has other sizes.
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


class NoisyAutoencoder(nn.Module):
    """A VAE in training: encodes, samples the posterior, decodes.

    Args:
        vae: is trained.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, 3, R, R) in [-1, 1] -> restored pixels (n, 3, R, R), mean and log variance (n, 4, R / 8, R / 8)."""
        posterior = self.vae.encode(pixels.contiguous(memory_format=torch.channels_last)).latent_dist
        noise = torch.randn_like(posterior.mean)
        restored = self.vae.decode(posterior.mean + posterior.std * noise).sample
        return restored, posterior.mean, posterior.logvar


def vae_losses(
    outputs: tuple[Tensor, Tensor, Tensor], pixels: Tensor, importance: Tensor, options: VaeStageOptions
) -> dict[str, Tensor]:
    """Loss terms of a batch.

    Args:
        outputs: of a `NoisyAutoencoder`.
        pixels: (n, 3, R, R) float32 in [-1, 1].
        importance: (1, 1, R, R) weight of each pixel.
        options: weights of the terms.

    Returns:
        Scalars: pixel (mean absolute error), coarse (that of means of 4 x 4 pixels), gradient (that of differences),
        colour (that of coarse chroma), kl (per latent value), and their weighted sum ``total``.
    """
    restored, mean, logvar = (each.float() for each in outputs)
    error = restored - pixels
    coarse = F.avg_pool2d(error * importance, 4)

    def gradient() -> Tensor:
        across = ((error[..., 1:] - error[..., :-1]).abs() * importance[..., 1:]).mean()
        return across + ((error[..., 1:, :] - error[..., :-1, :]).abs() * importance[..., 1:, :]).mean()

    terms = {
        "pixel": lambda: (error.abs() * importance).mean(),
        "coarse": lambda: coarse.abs().mean(),
        "gradient": gradient,
        "colour": lambda: (coarse - coarse.mean(1, keepdim=True)).abs().mean(),
        "kl": lambda: 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean(),
    }
    weights = {"gradient": options.gradient_weight, "colour": options.colour_weight, "kl": options.kl_weight}
    return weighted_sum(terms, {"pixel": 1.0, "coarse": 1.0, **weights})


class RandomCrops:
    """Random square crops of images.

    Args:
        side: of the squares in pixels; whole images where those are smaller.
        mask: (R, R), 1 = keep, 0 = repaint.
    """

    def __init__(self, side: int, mask: Tensor) -> None:
        self.side = side
        repainted = torch.nonzero(mask < 0.5).float()
        self._center = repainted.mean(0).tolist() if len(repainted) else [mask.shape[0] / 2] * 2

    def draw(self, resolution: int, at_mouth: bool, seed: int) -> tuple[slice, slice]:
        """Rows and columns of a crop of an image (..., R, R), around the repainted region or anywhere."""
        rng = random.Random(seed)
        free = max(0, resolution - self.side)
        if at_mouth:
            starts = [center - self.side / 2 + rng.uniform(-free / 4, free / 4) for center in self._center]
        else:
            starts = [rng.uniform(0, free) for _ in range(2)]
        top, left = (min(max(0, round(start)), free) for start in starts)
        return slice(top, top + self.side), slice(left, left + self.side)


@dataclass(frozen=True)
class VaeBatch:
    """Images (n, 3, R, R) float32 in [-1, 1], some masked; and the crop of them to train on early in the run."""

    pixels: Tensor
    crop: tuple[slice, slice]


class VaeImages:
    """Draws `VaeBatch` from a bank that is refreshed as time permits.

    Args:
        options: see there.
        bank: filled.
        mask: (3, R, R) on the bank's device, 1 = keep, 0 = repaint.
        generator: of new images.
    """

    def __init__(self, options: VaeStageOptions, bank: ImageBank, mask: Tensor, generator: torch.Generator) -> None:
        self.options, self.bank, self.mask, self.generator = options, bank, mask, generator
        self._pacer = Pacer(options.refresh_fraction)
        self._crops = RandomCrops(options.crop_side, mask[0])

    def draw(self, number: int, seed: int) -> VaeBatch:
        """See `GeneratedBatches`."""
        if self._pacer.due():
            with self._pacer:
                self.bank.add(self.generator)
        generator = torch.Generator(self.mask.device).manual_seed(seed)
        pixels = self.bank.draw(self.options.batch_size, generator)
        pixels[: round(self.options.masked_fraction * len(pixels))] *= self.mask
        return VaeBatch(pixels, self._crops.draw(pixels.shape[-1], number % 2 == 0, seed))


class VaeTask:
    """See `TrainingTask` and `ScheduledTask`.

    Args:
        options: see there.
        bank: training images, which the latents' scale is measured on.
        mask: (3, R, R) float32, 1 = keep, 0 = repaint.
        held_out: (n, 3, R, R) faces of the validation.
    """

    name = "vae"

    def __init__(self, options: VaeStageOptions, bank: ImageBank, mask: Tensor, held_out: Tensor) -> None:
        self.options, self.bank, self.mask, self.held_out = options, bank, mask, held_out
        self._vae = build_vae(options, bank.source.resolution)
        self.network: nn.Module = NoisyAutoencoder(self._vae)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        importance = 1 + options.mouth_weight * (1 - mask[None, :1])
        self._importance = importance / importance.mean()
        self._fraction_done = 0.0

    def to(self, device: torch.device) -> None:
        """See `TrainingTask.to`."""
        self.mask, self.held_out = self.mask.to(device), self.held_out.to(device)
        self._importance = self._importance.to(device)

    def set_progress(self, fraction_done: float) -> None:
        """See `ScheduledTask`: crops first, whole images later."""
        self._fraction_done = fraction_done

    def losses(self, network: nn.Module, batch: VaeBatch) -> dict[str, Tensor]:
        """See `TrainingTask.losses`; see `vae_losses`."""
        index = (..., *batch.crop) if self._fraction_done < self.options.crop_fraction else (...,)
        pixels = batch.pixels[index]
        return vae_losses(network(pixels), pixels, self._importance[index], self.options)

    @torch.no_grad()
    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """See `TrainingTask.validate`: PSNR on faces of held-out people, of the image and of the repainted region."""
        faces = self.held_out[shard.rank :: shard.world_size]
        if not len(faces):
            return {}
        error = (self._restored(faces) - faces).square()
        repainted = 1 - self.mask
        mouth = (error * repainted).sum(dim=(1, 2, 3)) / repainted.sum()
        found = {"psnr": error.mean(dim=(1, 2, 3)), "psnr_repainted": mouth}
        return {name: (float((10 * torch.log10(4 / mse)).sum()), len(faces)) for name, mse in found.items()}

    def save_samples(self, network: nn.Module, folder: Path, step: int) -> None:
        """See `TrainingTask.save_samples`: a row of held-out faces above their reconstructions."""
        save_sheet(folder / f"vae-{step}.jpg", [self.held_out, self._restored(self.held_out)])

    def _restored(self, faces: Tensor) -> Tensor:
        vae = self._vae
        parts = [vae.decode(vae.encode(part).latent_dist.mean).sample for part in faces.split(_CHUNK)]
        return torch.cat(parts).float().clamp(-1, 1)

    @torch.no_grad()
    def export(self, state_dict: Mapping[str, Tensor], folder: Path, step: int) -> Path:
        """See `TrainingTask.export`: diffusers' layout, with the scaling factor that gives latents unit deviation."""
        # A copy: constructing another VAE would draw from the run's random generator.
        vae = copy.deepcopy(self._vae).eval()
        vae.load_state_dict({name.removeprefix(_VAE): value for name, value in state_dict.items()})
        generator = torch.Generator(self.mask.device).manual_seed(0)
        images = self.bank.draw(_SCALE_IMAGES, generator).split(_CHUNK)
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in images])
        # diffusers' private entries must go: _use_default_values would make the loader ignore the scaling factor.
        config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
        config |= {"scaling_factor": float(1 / latents.std()), "sample_size": self.bank.source.resolution}
        target = vae_folder(folder)
        save_half(vae.state_dict(), target / _WEIGHTS_NAME)
        text = json.dumps({"_class_name": "AutoencoderKL", **config}, indent=1)
        (target / _CONFIG_NAME).write_text(text + "\n", "utf-8")
        return target / _WEIGHTS_NAME


def vae_folder(checkpoint_folder: Path) -> Path:
    """Where a folder of trained files holds the VAE."""
    return checkpoint_folder / "vae"
