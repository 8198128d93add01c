"""The lip-sync U-Net: predicts the noise in a window of face latents, conditioned on the audio around each frame."""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.layers.frame_norm import FrameGroupNorm
from latentsync.models.layers.layout import to_images, to_video
from latentsync.models.unet.blocks import Condition, DownLevel, MidLevel, UpLevel
from latentsync.models.unet.resnet import to_channels_last
from latentsync.models.unet.spatial_transformer import AudioConditioned, AudioKeysValues
from latentsync.models.unet.spec import UNetSpec

AudioContext = list[AudioKeysValues | None]
"""Projected audio of every transformer of the network, in order."""


class ZeroConv(nn.Conv2d):
    """A convolution initialized to zero."""

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of timesteps and an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, 4 * width)
        self.linear_2 = nn.Linear(4 * width, 4 * width)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Embed: (b,) -> (b, 4 * width)."""
        waves = sinusoids(timesteps, self.width).to(self.linear_1.weight.dtype)
        output: Tensor = self.linear_2(F.silu(self.linear_1(waves)))
        return output


def sinusoids(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding, cosines first: (b,) -> (b, width) float32."""
    half = width // 2
    exponent = torch.arange(half, device=timesteps.device, dtype=torch.float32) / half
    angle = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class UNet3DConditionModel(nn.Module):
    """Noise prediction for windows of video latents; see :class:`UNetSpec` for the sizes.

    Group norms of the residual blocks run jointly over the frames of a window, so a frame's result depends on the
    window it is in. conv_in, conv_out and the motion modules' output projections are initialized to zero.
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
        for index, transformer in enumerate(self._transformers()):
            transformer.index = index
        to_channels_last(self)

    def _transformers(self) -> list[AudioConditioned]:
        return [module for module in self.modules() if isinstance(module, AudioConditioned)]

    def project_audio(self, encoder_hidden_states: Tensor | None, *, guided: bool = False) -> AudioContext:
        """Keys and values of every transformer's audio attention, computed once per window for all denoising steps.

        encoder_hidden_states ((b f), k, d) or (b, f, k, d), or None to skip the audio attention. guided: predict both
        branches of classifier-free guidance, first all windows with zero audio, then all with this audio; layers
        before the first audio attention run once for both. Raises ValueError when the width is not the network's.
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
        return [transformer.project_audio(audio, guided=guided) for transformer in self._transformers()]

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute each layer's activations in the backward pass (less memory, about a third more time)."""
        for block in (*self.down_blocks, *self.up_blocks):
            block.gradient_checkpointing = enabled

    def forward(self, sample: Tensor, timesteps: Tensor, encoder_hidden_states: Tensor | None) -> Tensor:
        """Predict the noise.

        sample (b, in_channels, f, h, w): noisy latents, mask (1 = keep), masked latents, reference latents;
        timesteps () or (b,), 0..999; encoder_hidden_states as in :meth:`project_audio`
        -> (b, out_channels, f, h, w). Raises
        ValueError when the shapes do not fit.
        """
        return self.forward_full(sample, timesteps, self.project_audio(encoder_hidden_states))[0]

    def forward_full(self, sample: Tensor, timesteps: Tensor, audio: AudioContext) -> tuple[Tensor, Tensor]:
        """Predict the noise and return the features that :meth:`forward_shallow` can reuse at the next step.

        sample, timesteps as in :meth:`forward`, audio from :meth:`project_audio`; where it is guided, timesteps is ()
        and the results hold 2b windows, those with zero audio first
        -> noise_pred (b, out_channels, f, h, w), cached features ((b f), c, h, w)
        """
        stem, condition = self._embed_inputs(sample, timesteps, audio)
        skips = [stem]
        for down_block in self.down_blocks:
            skips.extend(down_block(skips[-1], condition))
        hidden = self.mid_block(skips[-1], condition)
        for up_block in self.up_blocks:
            hidden, cached = up_block(hidden, skips, condition)
        return self._project_output(hidden, condition), cached

    def forward_shallow(self, sample: Tensor, timesteps: Tensor, audio: AudioContext, cached: Tensor) -> Tensor:
        """Predict the noise from the deep features of an earlier step, running only the outermost layer.

        Arguments as in :meth:`forward_full`, cached = its second result for the same window
        -> (b, out_channels, f, h, w)
        """
        stem, condition = self._embed_inputs(sample, timesteps, audio)
        last = cast(UpLevel, self.up_blocks[-1])
        return self._project_output(last.last_layer(cached, stem, condition), condition)

    def _embed_inputs(self, sample: Tensor, timesteps: Tensor, audio: AudioContext) -> tuple[Tensor, Condition]:
        self._check_shapes(sample, audio)
        time_emb = self.time_embedding(timesteps.reshape(-1))
        hidden = self.conv_in(to_images(sample).contiguous(memory_format=torch.channels_last))
        return hidden, Condition(time_emb, audio, sample.shape[2])

    def _project_output(self, hidden: Tensor, condition: Condition) -> Tensor:
        hidden = self.conv_out(F.silu(self.conv_norm_out(hidden, condition.frames)))
        return to_video(hidden, condition.frames)

    def _check_shapes(self, sample: Tensor, audio: AudioContext) -> None:
        spec = self.spec
        if sample.ndim != 5 or sample.shape[1] != spec.in_channels:
            raise ValueError(f"sample has shape {tuple(sample.shape)}, expected (b, {spec.in_channels}, f, h, w).")
        batch, _, frames = sample.shape[:3]
        if spec.use_motion_module and frames > spec.motion_max_len:
            raise ValueError(f"A window of {frames} frames is too long, this network takes {spec.motion_max_len}.")
        lengths = {len(projected.key) for projected in audio if projected is not None}
        if lengths - {batch * frames}:
            raise ValueError(
                f"encoder_hidden_states describes {max(lengths)} frames, expected {batch * frames} for sample "
                f"{tuple(sample.shape)}."
            )


def _up_widths(spec: UNetSpec) -> list[tuple[int, list[int]]]:
    """Level and input widths of its layers for the decoder, found by following the skip tensors."""
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
