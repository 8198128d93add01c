"""The end of a transformer: its feed-forward and the projection back into the outer residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latentsync.backends.fused.attention import FusedFeedForward
from latentsync.backends.fused.residual_stream import ResidualStream
from latentsync.backends.fused.weights import LayerWeights


class FusedOutput(nn.Module):
    """A feed-forward, and the projection of the transformer's tokens into the outer stream.

    ``proj_out(tokens + net_2(gated))`` is one product of tokens and gated side by side, with the two matrices
    multiplied beforehand: one pass over the tokens less. Without :meth:`pack` it runs as two products.
    """

    weight: Tensor | None
    bias: Tensor
    audio_bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "audio_bias"):
            self.register_buffer(name, None, persistent=False)

    def pack(
        self,
        proj_out: LayerWeights,
        net_2: LayerWeights,
        biases: Sequence[Tensor | None],
        audio_bias: Tensor | None = None,
    ) -> None:
        """Multiply the matrices.

        biases (c,) of all layers that add to the tokens; audio_bias (c,) that of the audio attention
        """
        dtype, outer = net_2.weight.dtype, proj_out.weight.detach().flatten(1).float()
        self.weight = torch.cat([outer, outer @ net_2.weight.detach().float()], dim=1).to(dtype)
        pending = torch.stack([bias.detach().float() for bias in biases if bias is not None]).sum(dim=0)
        assert proj_out.bias is not None
        self.bias = (outer @ pending + proj_out.bias.detach().float()).to(dtype)
        inner_audio_bias = torch.zeros_like(pending) if audio_bias is None else audio_bias.detach().float()
        self.audio_bias = (outer @ inner_audio_bias).to(dtype)

    @property
    def extra_channels(self) -> int:
        """Channels that :meth:`forward` needs beside those of its inner stream."""
        return 0 if self.weight is None else self.weight.shape[1] - self.weight.shape[0]

    def forward(
        self,
        outer: ResidualStream,
        inner: ResidualStream,
        ff: FusedFeedForward,
        norm: nn.LayerNorm,
        proj_out: LayerWeights,
        with_audio: bool = False,
    ) -> None:
        """Add the projection of the inner stream to the outer one.

        ff, its norm and proj_out as packed, with_audio: whether the tokens attended to audio
        """
        if self.weight is not None and ff.gate.write_into(inner, norm):
            outer.add_stream_fused(self.weight, self.bias + self.audio_bias if with_audio else self.bias, inner)
        else:
            ff.add_to(inner, norm)
            outer.add_stream(proj_out, inner)
