"""The end of a transformer: from its own tokens back into the stream outside."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from latentsync.models.layers.attention import GEGLU, FeedForward
from latentsync.models.layers.residual_stream import Projection, TokenStream


class WayBack(nn.Module):
    """A feed-forward, and the projection of what it leaves into the stream outside.

    ``proj_out(tokens + net_2(gated))`` is one product of tokens and gated side by side, with the two last matrices
    multiplied beforehand: a pass over the tokens less. Until :meth:`pack` it is done in two.
    """

    weight: Tensor | None
    bias: Tensor
    audio_bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "audio_bias"):
            self.register_buffer(name, None, persistent=False)

    def pack(
        self, proj_out: Projection, net_2: nn.Linear, biases: Sequence[Tensor], audio_bias: Tensor | None = None
    ) -> None:
        """Multiply the matrices, for networks that are not trained any more.

        biases (c,) of all layers that add to the tokens; audio_bias (c,) that of the attention to the audio
        """
        dtype, outer = net_2.weight.dtype, proj_out.weight.detach().flatten(1).float()
        self.weight = torch.cat([outer, outer @ net_2.weight.detach().float()], dim=1).to(dtype)
        waiting = torch.stack([bias.detach().float() for bias in biases]).sum(dim=0)
        self.bias = (outer @ waiting + cast(Tensor, proj_out.bias).detach().float()).to(dtype)
        heard = torch.zeros_like(waiting) if audio_bias is None else audio_bias.detach().float()
        self.audio_bias = (outer @ heard).to(dtype)

    @property
    def room(self) -> int:
        """Channels that :meth:`forward` wants beside those of its inner stream."""
        return 0 if self.weight is None else self.weight.shape[1] - self.weight.shape[0]

    def forward(
        self,
        outer: TokenStream,
        inner: TokenStream,
        ff: FeedForward,
        norm: nn.LayerNorm,
        proj_out: Projection,
        heard: bool = False,
    ) -> None:
        """Add to the outer stream what the inner one becomes.

        ff, its norm and proj_out as packed, heard: whether the tokens attended to audio
        """
        gate = cast(GEGLU, ff.net[0])
        if self.weight is not None and gate.normalised_into(inner, norm):
            outer.join_wide(self.weight, self.bias + self.audio_bias if heard else self.bias, inner)
        else:
            ff.add_to(inner, norm)
            outer.join(proj_out, inner)
