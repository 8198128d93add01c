"""The lip-sync U-Net: predicts the noise in a window of face latents, told by the speech around each frame."""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.layout import to_pictures, to_video
from latentsync.models.unet.blocks import Condition, DownLevel, MidLevel, UpLevel
from latentsync.models.unet.resnet import ResnetBlock, to_channels_last
from latentsync.models.unet.spatial_transformer import HeardAudio, SpatialTransformer
from latentsync.models.unet.spec import UNetSpec

Heard = list[HeardAudio | None]

_CHANNELS_TOGETHER = 16  # as tensor cores take them


class ZeroConv(nn.Conv2d):
    """A convolution that starts as zero."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class TimeEmbedding(nn.Module):
    """Timesteps to the vector that every residual block adds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, 4 * width)
        self.linear_2 = nn.Linear(4 * width, 4 * width)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Embed: (b,) -> (b, 4 * width). Cosines first, then sines."""
        half = self.width // 2
        exponent = torch.arange(half, device=timesteps.device, dtype=torch.float32) / half
        angle = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
        output: Tensor = self.linear_2(F.silu(self.linear_1(waves.to(self.linear_1.weight.dtype))))
        return output


class Entry(nn.Module):
    """What a U-Net does before its first level, as few products of sizes that GPUs like: until `pack` it has none."""

    time_weight: Tensor | None
    time_bias: Tensor
    conv_weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("time_weight", "time_bias", "conv_weight"):
            self.register_buffer(name, None, persistent=False)

    def pack(self, conv: nn.Conv2d, blocks: Sequence[ResnetBlock]) -> None:
        """Lay the blocks' time projections below each other, and fill the convolution's inputs up with zeros."""
        layers = [block.time_emb_proj for block in blocks]
        self.time_weight = torch.cat([layer.weight.detach() for layer in layers])
        self.time_bias = torch.cat([layer.bias.detach() for layer in layers])
        start = 0
        for block, layer in zip(blocks, layers, strict=True):
            block.time_place = slice(start, start + layer.out_features)
            start += layer.out_features
        padding = -conv.in_channels % _CHANNELS_TOGETHER
        padded = F.pad(conv.weight.detach(), (0, 0, 0, 0, 0, padding))
        self.conv_weight = padded.contiguous(memory_format=torch.channels_last)

    def forward(self, pixels: Tensor, conv: nn.Conv2d, time_emb: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve pictures (n, c, h, w), channels-last; time_emb (b, d) -> what the residual blocks want of it."""
        if self.time_weight is None:
            return conv(pixels), time_emb
        padding = self.conv_weight.shape[1] - pixels.shape[1]
        padded = F.pad(pixels, (0, 0, 0, 0, 0, padding)).contiguous(memory_format=torch.channels_last)
        hidden = F.conv2d(padded, self.conv_weight, conv.bias, padding=1)
        return hidden, F.linear(time_emb, self.time_weight, self.time_bias)


class UNet3DConditionModel(nn.Module):
    """Noise prediction for windows of video latents; see :class:`UNetSpec` for the sizes.

    Group norms of the residual blocks run jointly over the frames of a window, so a frame's result depends on the
    window it is in. conv_in, conv_out and the motion modules' last projections start as zero.
    """

    def __init__(self, spec: UNetSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = spec.block_out_channels
        self.conv_in = ZeroConv(spec.in_channels, widths[0], kernel_size=3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0])
        self.down_blocks = nn.ModuleList([DownLevel(spec, level) for level in range(len(widths))])
        self.mid_block = MidLevel(spec)
        self.up_blocks = nn.ModuleList([UpLevel(spec, level, in_channels) for level, in_channels in _up_widths(spec)])
        self.conv_norm_out = FrameGroupNorm(spec.norm_num_groups, widths[0], eps=spec.norm_eps)
        self.conv_out = ZeroConv(widths[0], spec.out_channels, kernel_size=3, padding=1)
        self.entry = Entry()
        for place, transformer in enumerate(self._transformers()):
            transformer.place = place
        to_channels_last(self)

    def _transformers(self) -> list[SpatialTransformer]:
        return [module for module in self.modules() if isinstance(module, SpatialTransformer)]

    def pack(self) -> None:
        """Lay weights out for fewer products, for networks that are not trained any more."""
        self.entry.pack(self.conv_in, [module for module in self.modules() if isinstance(module, ResnetBlock)])

    def hear(self, encoder_hidden_states: Tensor | None, *, guided: bool = False) -> Heard:
        """Audio as the transformers need it: computed once, it serves all steps.

        encoder_hidden_states ((b f), k, d) or (b, f, k, d), or None to leave the audio attention out. guided: give
        predictions without audio (with zeros in its place) and, behind them, those with it, for classifier-free
        guidance; what both have in common is computed once, and attention to zeros not at all. Raises ValueError when
        the width is not the network's.
        """
        if encoder_hidden_states is None:
            return [None] * len(self._transformers())
        width = encoder_hidden_states.shape[-1]
        if encoder_hidden_states.ndim not in (3, 4) or width != self.spec.cross_attention_dim:
            raise ValueError(
                f"encoder_hidden_states has shape {tuple(encoder_hidden_states.shape)}, expected ((b f), k, "
                f"{self.spec.cross_attention_dim}) or (b, f, k, {self.spec.cross_attention_dim})."
            )
        audio = encoder_hidden_states.flatten(0, -3)
        return [transformer.hear(audio, guided=guided) for transformer in self._transformers()]

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute each layer's activations in the backward pass (less memory, about a third more time)."""
        for block in (*self.down_blocks, *self.up_blocks):
            block.gradient_checkpointing = enabled

    def forward(self, sample: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor | None) -> Tensor:
        """Predict the noise.

        sample (b, in_channels, f, h, w): noisy latents, mask (1 = keep), masked latents, reference latents;
        timesteps () or (b,), 0..999; encoder_hidden_states as in :meth:`hear` -> (b, out_channels, f, h, w). Raises
        ValueError when the shapes do not fit.
        """
        return self.forward_full(sample, timesteps, self.hear(encoder_hidden_states))[0]

    def forward_full(self, sample: Tensor, timesteps: Tensor, heard: Heard) -> tuple[Tensor, Tensor]:
        """Predict the noise and hand out what :meth:`forward_shallow` can reuse at the next step.

        sample, timesteps as in :meth:`forward`, heard from :meth:`hear`; where it is guided, timesteps is () and the
        results hold 2b windows, those without audio first
        -> noise_pred (b, out_channels, f, h, w), cached features ((b f), c, h, w)
        """
        stem, condition = self._enter(sample, timesteps, heard)
        skips = [stem]
        for down in self.down_blocks:
            skips.extend(down(skips[-1], condition))
        hidden = self.mid_block(skips[-1], condition)
        for up in self.up_blocks:
            hidden, cached = up(hidden, skips, condition)
        return self._leave(hidden, condition), cached

    def forward_shallow(self, sample: Tensor, timesteps: Tensor, heard: Heard, cached: Tensor) -> Tensor:
        """Predict the noise from the deep features of an earlier step; only the outermost layer is run.

        Arguments as in :meth:`forward_full`, cached = its second result for the same window
        -> (b, out_channels, f, h, w)
        """
        stem, condition = self._enter(sample, timesteps, heard)
        last = cast(UpLevel, self.up_blocks[-1])
        return self._leave(last.last_layer(cached, stem, condition), condition)

    def _enter(self, sample: Tensor, timesteps: Tensor, heard: Heard) -> tuple[Tensor, Condition]:
        self._check_shapes(sample, heard)
        time_emb = F.silu(self.time_embedding(timesteps.reshape(-1)))
        pixels = to_pictures(sample).contiguous(memory_format=torch.channels_last)
        hidden, time_emb = self.entry(pixels, self.conv_in, time_emb)
        return hidden, Condition(time_emb, heard, sample.shape[2])

    def _leave(self, hidden: Tensor, condition: Condition) -> Tensor:
        hidden = self.conv_out(F.silu(self.conv_norm_out(hidden, condition.frames)))
        return to_video(hidden, condition.frames)

    def _check_shapes(self, sample: Tensor, heard: Heard) -> None:
        spec = self.spec
        if sample.ndim != 5 or sample.shape[1] != spec.in_channels:
            raise ValueError(f"sample has shape {tuple(sample.shape)}, expected (b, {spec.in_channels}, f, h, w).")
        batch, _, frames = sample.shape[:3]
        if spec.use_motion_module and frames > spec.motion_max_len:
            raise ValueError(f"A window of {frames} frames is too long, this network takes {spec.motion_max_len}.")
        lengths = {len(audio.key) for audio in heard if audio is not None}
        if lengths - {batch * frames}:
            raise ValueError(
                f"encoder_hidden_states describes {max(lengths)} frames, expected {batch * frames} for sample "
                f"{tuple(sample.shape)}."
            )


def _up_widths(spec: UNetSpec) -> list[tuple[int, list[int]]]:
    """Level and layers' input widths on the way up, found by following the skip tensors through the network."""
    widths = spec.block_out_channels
    skips = [widths[0]]
    for width in widths:
        skips += [width] * (spec.layers_per_block + 1)
    skips.pop()  # the coarsest level has no downsampler
    plan = []
    current = widths[-1]
    for level in reversed(range(len(widths))):
        in_channels = []
        for _ in range(spec.layers_per_block + 1):
            in_channels.append(current + skips.pop())
            current = widths[level]
        plan.append((level, in_channels))
    return plan
