"""The image autoencoder of Stable Diffusion, with the parameter names and the configuration of diffusers' files.

It computes the same as diffusers' `AutoencoderKL`, whose import takes longer than loading all networks of the demo
model. Only what published lip-sync autoencoders use is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latentsync.errors import CheckpointError

_EPSILON = 1e-6
_FIXED = {"act_fn": "silu", "mid_block_add_attention": True, "use_quant_conv": True, "use_post_quant_conv": True}


@dataclass(frozen=True)
class VaeConfig:
    """Sizes and scales, named as in diffusers' config.json; values also by key, as diffusers' configurations give them.

    Attributes:
        in_channels: of images.
        out_channels: of decoded images.
        block_out_channels: width at each resolution, from full to the smallest.
        layers_per_block: residual blocks per resolution of the encoder; the decoder has one more.
        latent_channels: of latents.
        norm_num_groups: groups of every group norm.
        scaling_factor: latents are multiplied by it for the diffusion model.
        shift_factor: subtracted before that; None is 0.
    """

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> VaeConfig:
        """The configuration in a diffusers config.json; entries that do not change the computation are ignored.

        Raises:
            CheckpointError: it describes an architecture that is not supported.
        """
        blocks = {*values.get("down_block_types", ()), *values.get("up_block_types", ())}
        other = [key for key, value in _FIXED.items() if values.get(key, value) != value]
        if other or not blocks <= {"DownEncoderBlock2D", "UpDecoderBlock2D"}:
            raise CheckpointError(
                f"The VAE's config.json asks for an architecture that is not supported ({', '.join(other) or blocks}); "
                "expected that of stabilityai/sd-vae-ft-mse in any size"
            )
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        if "block_out_channels" in known:
            known["block_out_channels"] = tuple(known["block_out_channels"])
        return cls(**known)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """Value of an entry, or the default where there is no such entry."""
        return getattr(self, name, default)


@dataclass(frozen=True)
class VaePosterior:
    """What the encoder returns for images: a diagonal Gaussian of the latents, (n, latent_channels, h/8, w/8) each."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class EncodedImages:
    """Result of `AutoencoderKL.encode`."""

    latent_dist: VaePosterior


@dataclass(frozen=True)
class DecodedImages:
    """Result of `AutoencoderKL.decode`: (n, out_channels, h, w)."""

    sample: Tensor


class AutoencoderKL(nn.Module):
    """Encoder and decoder.

    Args:
        config: sizes; also kept as `.config`.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = VaeEncoder(config), VaeDecoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.encoder.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.encoder.conv_in.weight.dtype

    def encode(self, images: Tensor) -> EncodedImages:
        """Encode images (n, in_channels, h, w) in [-1, 1] -> the distribution of their unscaled latents."""
        mean, log_variance = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        return EncodedImages(VaePosterior(mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))))

    def decode(self, latents: Tensor) -> DecodedImages:
        """Decode unscaled latents (n, latent_channels, h, w) -> images (n, out_channels, 8h, 8w), about [-1, 1]."""
        return DecodedImages(self.decoder(self.post_quant_conv(latents)))


class VaeEncoder(nn.Module):
    """Convolutions from images to the parameters of the latents' distribution."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for index, (width, before) in enumerate(zip(widths, (widths[0], *widths))):
            block = VaeBlock(before, width, config.layers_per_block, groups)
            if index < len(widths) - 1:
                block.downsamplers = nn.ModuleList([VaeDownsample(width)])
            self.down_blocks.append(block)
        self.mid_block = VaeMidBlock(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPSILON)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode: (n, in_channels, h, w) -> (n, 2 * latent_channels, h/8, w/8), means before log variances."""
        hidden = self.conv_in(images)
        for block in self.down_blocks:
            hidden = block(hidden)
        output: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(self.mid_block(hidden))))
        return output


class VaeDecoder(nn.Module):
    """Convolutions from latents to images."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.up_blocks = nn.ModuleList()
        for index, (width, before) in enumerate(zip(widths, (widths[0], *widths))):
            block = VaeBlock(before, width, config.layers_per_block + 1, groups)
            if index < len(widths) - 1:
                block.upsamplers = nn.ModuleList([VaeUpsample(width)])
            self.up_blocks.append(block)
        self.mid_block = VaeMidBlock(widths[0], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPSILON)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode: (n, latent_channels, h, w) -> (n, out_channels, 8h, 8w)."""
        hidden = self.mid_block(self.conv_in(latents))
        for block in self.up_blocks:
            hidden = block(hidden)
        output: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return output


class VaeBlock(nn.Module):
    """Residual blocks of one resolution, then a change of resolution where one is set."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * (layers - 1)
        self.resnets = nn.ModuleList([VaeResnet(width, out_channels, groups) for width in widths])
        self.downsamplers: nn.ModuleList | None = None
        self.upsamplers: nn.ModuleList | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform: (n, in_channels, h, w) -> (n, out_channels, h, w), half or twice the height and width."""
        for layer in (*self.resnets, *(self.downsamplers or ()), *(self.upsamplers or ())):
            hidden = layer(hidden)
        return hidden


class VaeMidBlock(nn.Module):
    """Residual block, attention, residual block at the smallest resolution."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([VaeAttention(width, groups)])
        self.resnets = nn.ModuleList([VaeResnet(width, width, groups) for _ in range(2)])

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform: (n, width, h, w) -> the same shape."""
        output: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](hidden)))
        return output


class VaeResnet(nn.Module):
    """Two convolutions, each after group norm and SiLU, beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=_EPSILON)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=_EPSILON)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform: (n, in_channels, h, w) -> (n, out_channels, h, w)."""
        made = self.conv1(F.silu(self.norm1(hidden)))
        made = self.conv2(F.silu(self.norm2(made)))
        output: Tensor = (hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)) + made
        return output


class VaeAttention(nn.Module):
    """Attention with one head over the positions of an image, with a residual connection."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, eps=_EPSILON)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, hidden: Tensor) -> Tensor:
        """Attend: (n, width, h, w) -> the same shape."""
        normed = self.group_norm(rearrange(hidden, "n c h w -> n c (h w)"))
        tokens = rearrange(normed, "n c t -> n t c")
        query, key, value = (layer(tokens).unsqueeze(1) for layer in (self.to_q, self.to_k, self.to_v))
        attended = self.to_out[0](F.scaled_dot_product_attention(query, key, value).squeeze(1))
        return rearrange(attended, "n (h w) c -> n c h w", h=hidden.shape[-2]) + hidden


class VaeDownsample(nn.Module):
    """Convolution with stride 2, padded at the right and bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, hidden: Tensor) -> Tensor:
        """Halve the resolution: (n, channels, h, w) -> (n, channels, h/2, w/2)."""
        output: Tensor = self.conv(F.pad(hidden, (0, 1, 0, 1)))
        return output


class VaeUpsample(nn.Module):
    """Nearest-neighbour upsampling and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Double the resolution: (n, channels, h, w) -> (n, channels, 2h, 2w)."""
        output: Tensor = self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return output
