"""The image autoencoder: what the pipelines need of one, loading, and latent scaling."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from latentsync.errors import CheckpointError
from latentsync.models.autoencoder import AutoencoderKL, VaeConfig
from latentsync.models.weights.identify import describe_state_dict
from latentsync.models.weights.state_dict import assign_tensors, read_state_dict

_LOGGER = logging.getLogger(__name__)
_WEIGHT_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# The shape of stabilityai/sd-vae-ft-mse, for a weights file that stands alone without its config.json.
PUBLISHED_CONFIG = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 256,
}
_OLD_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION_KEY = re.compile(r"(.*mid_block\.attentions\.0\.)(query|key|value|proj_attn)(\.(?:weight|bias))$")


class LatentPosterior(Protocol):
    """The distribution of an image's latents, a Gaussian per element."""

    @property
    def mean(self) -> Tensor:
        """(n, c, h/8, w/8), unscaled."""
        ...

    @property
    def std(self) -> Tensor:
        """(n, c, h/8, w/8); read only where latents are sampled."""
        ...


class CodecEncoding(Protocol):
    """Result of `LatentCodec.encode`."""

    @property
    def latent_dist(self) -> LatentPosterior:
        """The latents' distribution."""
        ...


class CodecDecoding(Protocol):
    """Result of `LatentCodec.decode`."""

    @property
    def sample(self) -> Tensor:
        """(n, 3, h, w), about [-1, 1] and not clamped."""
        ...


class CodecConfig(Protocol):
    """Configuration values by name, as diffusers' configurations give them."""

    def __getitem__(self, name: str, /) -> Any:
        """Value of an entry that must exist."""
        ...

    def get(self, name: str, default: Any = None, /) -> Any:
        """Value of an entry, or the default."""
        ...


class LatentCodec(Protocol):
    """An image autoencoder as the pipelines use it: the interface of diffusers' AutoencoderKL.

    Anything of this shape can stand in for it, such as a TensorRT engine or a small distilled decoder, as long as it
    shares the latent space that the U-Net was trained in.
    """

    @property
    def config(self) -> CodecConfig:
        """``latent_channels``, ``scaling_factor`` and, unless it is 0, ``shift_factor``."""
        ...

    @property
    def device(self) -> torch.device:
        """Where images and latents must be."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of images and latents."""
        ...

    def encode(self, x: Tensor, /) -> CodecEncoding:
        """Encode images (n, 3, h, w) in [-1, 1], h and w multiples of 8."""
        ...

    def decode(self, z: Tensor, /) -> CodecDecoding:
        """Decode unscaled latents (n, c, h, w) to images of 8h by 8w pixels."""
        ...


def load_vae(path: Path, device: torch.device | str, dtype: torch.dtype) -> AutoencoderKL:
    """Load the autoencoder from a diffusers folder, or from a weights file with or without a config.json beside it.

    path: folder with config.json and weights, or a .safetensors/.bin/.pt file -> model in eval mode on device in
    dtype. Older names of the mid-block attention are accepted. Raises CheckpointError when something is missing or
    does not fit.
    """
    path = Path(path)
    weights = _find_weights(path) if path.is_dir() else path
    config_path = weights.with_name("config.json")
    if config_path.is_file():
        config = _read_config(config_path)
    elif path.is_dir():
        raise CheckpointError(f"VAE folder {path} has no config.json; expected a diffusers folder. Fetch it again.")
    else:
        _LOGGER.info("no config.json beside %s: taking the sizes of sd-vae-ft-mse", path)
        config = VaeConfig.from_mapping(PUBLISHED_CONFIG)
    state_dict = _with_current_names(read_state_dict(weights))
    with torch.device("meta"):
        vae = AutoencoderKL(config)
    missing = sorted(vae.state_dict().keys() - state_dict.keys())
    if missing:
        raise CheckpointError(
            f"{weights} is not the VAE that its config asks for: {len(missing)} entries missing, e.g. {missing[0]}. "
            f"The file looks like {describe_state_dict(state_dict)}. Give the folder of stabilityai/sd-vae-ft-mse."
        )
    assign_tensors(vae, state_dict, weights, device, dtype)
    vae.eval().requires_grad_(False)
    return vae


def encode_latents(vae: LatentCodec, pixels: Tensor, noise: Tensor | None = None, chunk_size: int = 8) -> Tensor:
    """Encode images into scaled latents.

    pixels (n, 3, h, w) in [-1, 1]; noise (n, 4, h/8, w/8) standard normal draws a sample, None takes the mean;
    chunk_size images are encoded at a time -> latents (n, 4, h/8, w/8) times the VAE's scaling factor
    """
    means, stds = [], []
    for chunk in _chunks(pixels, chunk_size):
        posterior = vae.encode(chunk).latent_dist
        means.append(posterior.mean)
        if noise is not None:
            stds.append(posterior.std)
    latents = torch.cat(means)[: len(pixels)]
    if noise is not None:
        latents = latents + torch.cat(stds)[: len(pixels)] * noise
    return (latents - _shift(vae)) * float(vae.config["scaling_factor"])


def decode_latents(vae: LatentCodec, latents: Tensor, chunk_size: int = 8) -> Tensor:
    """Decode scaled latents into images.

    latents (n, 4, h, w) as from :func:`encode_latents`; chunk_size images are decoded at a time
    -> pixels (n, 3, 8h, 8w), about [-1, 1] and not clamped
    """
    unscaled = latents / float(vae.config["scaling_factor"]) + _shift(vae)
    return torch.cat([vae.decode(chunk).sample for chunk in _chunks(unscaled, chunk_size)])[: len(latents)]


def _shift(vae: LatentCodec) -> float:
    return float(vae.config.get("shift_factor") or 0.0)


def _chunks(images: Tensor, size: int) -> Iterator[Tensor]:
    """Channels-last chunks of images (n, c, h, w).

    For inference on a GPU all have one size, since kernels are specialized for it; the last is padded.
    """
    filled = images.is_cuda and not torch.is_grad_enabled()
    for chunk in images.split(size):
        if filled and len(chunk) < size:
            chunk = torch.cat([chunk, chunk[-1:].expand(size - len(chunk), -1, -1, -1)])
        yield chunk.contiguous(memory_format=torch.channels_last)


def _read_config(path: Path) -> VaeConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"VAE configuration {path} cannot be read ({error}). Fetch sd-vae-ft-mse again."
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"VAE configuration {path} is not a JSON object. Fetch it again.")
    return VaeConfig.from_mapping(values)


def _find_weights(folder: Path) -> Path:
    for name in _WEIGHT_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"VAE folder {folder} has no weights; expected one of {', '.join(_WEIGHT_NAMES)}. Fetch sd-vae-ft-mse again."
    )


def _with_current_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the mid-block attention of older files; their projections may also be stored as 1x1 convolutions."""
    renamed = {}
    for key, tensor in state_dict.items():
        match = _OLD_ATTENTION_KEY.match(key)
        if match:
            key = match[1] + _OLD_ATTENTION_NAMES[match[2]] + match[3]
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor
        renamed[key] = tensor
    return renamed
