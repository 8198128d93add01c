"""The residual stream of a transformer: tokens to which one layer after the other adds its output.

Written plainly, every addition reads and writes all tokens once more, and a bias slows the matrix product down. In
compiled CUDA networks products are therefore accumulated in place, and biases, which are equal for all tokens, are
collected in a vector until the tokens are read: the compiler then fuses that addition into the next norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.backends.fused.weights import LayerWeights
from latentsync.models.kernels import dispatch as kernels


class ResidualStream:
    """Tokens of n frames, updated in place.

    Args:
        tokens: (n, s, c).
        pending_bias: (c,) a bias that is still to be added to each of them.
    """

    def __init__(self, tokens: Tensor, pending_bias: Tensor | None = None) -> None:
        self._in_place = kernels.adds_in_place(tokens)
        self._tokens = tokens.contiguous() if self._in_place else tokens
        self._width = tokens.shape[-1]
        self._pending_bias = pending_bias

    @classmethod
    def project(cls, layer: LayerWeights, inputs: Tensor, extra_channels: int = 0) -> ResidualStream:
        """Start with ``layer(inputs)``: (n, s, k) -> n frames; see :meth:`write_geglu` for the extra channels."""
        if not kernels.adds_in_place(inputs):
            return cls(F.linear(inputs, _matrix(layer), _bias(layer)))
        if not extra_channels:
            return cls(F.linear(inputs, _matrix(layer)), _bias(layer))
        stream = cls(project_wide(inputs, _matrix(layer), extra_channels), _bias(layer))
        stream._width -= extra_channels
        return stream

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, last: int | None = None) -> Tensor:
        """The tokens of the last frames, by default of all: (n, s, c) or (last, s, c)."""
        tokens = self._tokens if last is None else self._tokens[-last:]
        tokens = tokens[..., : self._width]
        return tokens if self._pending_bias is None else tokens + self._pending_bias

    def tokens_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """The tokens as stored (n, s, c), and the bias that is still to be added to them (c,), if any."""
        return self._tokens[..., : self._width], self._pending_bias

    def normalize(self, norm: nn.LayerNorm, last: int | None = None, pos_embed: Tensor | None = None) -> Tensor:
        """``norm`` of what :meth:`read` returns, plus pos_embed (f, c) on the frames of every window of f."""
        count = len(self) if last is None else last
        fused = kernels.layer_norm(self._tokens, count, self._pending_bias, norm, pos_embed)
        if fused is not None:
            return fused
        tokens: Tensor = norm(self.read(last))
        if pos_embed is None:
            return tokens
        return (tokens.unflatten(0, (-1, len(pos_embed))) + pos_embed[:, None]).flatten(0, 1)

    def repeat(self) -> None:
        """Double the batch: first all frames, then all again."""
        if self._tokens.shape[-1] > self._width:
            self._tokens = repeat_wide(self._tokens, self._width)
        else:
            self._tokens = torch.cat([self._tokens, self._tokens])

    def add(self, layer: LayerWeights, inputs: Tensor) -> None:
        """Add ``layer(inputs)``; the inputs of frames before the last len(inputs) are zero, so they get the bias only.

        inputs (m, s, k), m <= n
        """
        before = len(self) - len(inputs)
        if self._in_place:
            add_product(self._tokens, inputs, _matrix(layer), before)
            self._add_pending_bias(_bias(layer))
            return
        added = self._tokens[before:] + F.linear(inputs, _matrix(layer), _bias(layer))
        self._tokens = torch.cat([self._tokens[:before] + _bias(layer), added]) if before else added

    def add_parts(self, layer: LayerWeights, parts: Sequence[Tensor]) -> None:
        """As :meth:`add` with inputs that are the channels of all parts (n, s, k), in a compiled network."""
        for part, matrix in zip(parts, _matrix(layer).split([part.shape[-1] for part in parts], dim=1), strict=True):
            add_product(self._tokens, part, matrix, 0)
        self._add_pending_bias(_bias(layer))

    def add_stream(self, layer: LayerWeights, other: ResidualStream) -> None:
        """Add ``layer`` of another stream's tokens, of n frames or of n doubled."""
        if len(self) < len(other):
            self.repeat()
        if not self._in_place or other._pending_bias is None:
            self.add(layer, other.read())
            return
        add_product(self._tokens, other._tokens, _matrix(layer), 0)
        self._add_pending_bias(F.linear(other._pending_bias, _matrix(layer), _bias(layer)))

    def write_geglu(self, norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> bool:
        """Write the GEGLU of the normalized tokens into the extra channels, if there are any and a kernel.

        weight, bias as for `latentsync.models.kernels.dispatch.geglu`
        """
        if 2 * (self._tokens.shape[-1] - self._width) != len(weight):
            return False
        return kernels.geglu_into(self._tokens, self.normalize(norm), weight, bias)

    def add_stream_fused(self, weight: Tensor, bias: Tensor, other: ResidualStream) -> None:
        """Add a product of another stream's tokens and extra channels, of n frames or of n doubled.

        weight (c, k) for both together, bias (c,) the contribution of all biases; the other's pending one is ignored
        """
        if len(self) < len(other):
            self.repeat()
        add_product(self._tokens, other._tokens, weight, 0)
        self._add_pending_bias(bias)

    def _add_pending_bias(self, bias: Tensor) -> None:
        self._pending_bias = bias if self._pending_bias is None else self._pending_bias + bias


@torch.library.custom_op("latentsync::add_product", mutates_args=("total",))
def add_product(total: Tensor, inputs: Tensor, weight: Tensor, first: int) -> None:
    """``total[first:, :, :c] += inputs[..., :k] @ weight.T``.

    total (n, s, >= c) contiguous, inputs (n - first, s, >= k), weight (c, k)
    """
    columns, depth = weight.shape
    rows = total[first:].view(-1, total.shape[-1])[:, :columns]
    rows.addmm_(inputs.reshape(-1, inputs.shape[-1])[:, :depth], weight.t())


@add_product.register_fake
def _(total: Tensor, inputs: Tensor, weight: Tensor, first: int) -> None:
    return None


@torch.library.custom_op("latentsync::project_wide", mutates_args=())
def project_wide(inputs: Tensor, weight: Tensor, extra_channels: int) -> Tensor:
    """``inputs @ weight.T`` and unfilled extra channels: (n, s, k), weight (c, k) -> (n, s, c + extra)."""
    wide = inputs.new_empty((*inputs.shape[:-1], len(weight) + extra_channels))
    rows = wide.view(-1, wide.shape[-1])[:, : len(weight)]
    torch.mm(inputs.reshape(-1, inputs.shape[-1]), weight.t(), out=rows)
    return wide


@project_wide.register_fake
def _(inputs: Tensor, weight: Tensor, extra_channels: int) -> Tensor:
    return inputs.new_empty((*inputs.shape[:-1], len(weight) + extra_channels))


@torch.library.custom_op("latentsync::repeat_wide", mutates_args=())
def repeat_wide(wide: Tensor, width: int) -> Tensor:
    """Repeat all frames: (n, s, c) -> (2n, s, c), of which the first ``width`` channels are filled."""
    twice = wide.new_empty((2 * len(wide), *wide.shape[1:]))
    twice.unflatten(0, (2, -1))[..., :width] = wide[..., :width]
    return twice


@repeat_wide.register_fake
def _(wide: Tensor, width: int) -> Tensor:
    return wide.new_empty((2 * len(wide), *wide.shape[1:]))


def _matrix(layer: LayerWeights) -> Tensor:
    return layer.weight.flatten(1)


def _bias(layer: LayerWeights) -> Tensor:
    if layer.bias is None:
        raise ValueError("A layer that adds to a residual stream needs a bias.")
    return layer.bias
