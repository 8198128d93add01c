"""The residual stream of a transformer: tokens that one layer after the other adds to.

Written plainly, every addition reads and writes all tokens once more, and a bias slows the matrix product down. In
compiled CUDA networks the product is therefore added where the tokens lie, and biases, which are the same for all
tokens, wait in a vector until somebody reads: the compiler then adds them on the way into the next norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.kernels import dispatch as kernels

Projection = nn.Linear | nn.Conv2d
"""A layer that works on each token by itself: a linear one, or a convolution of 1x1."""


class TokenStream:
    """Tokens of n frames that grow in place.

    Args:
        tokens: (n, s, c).
        waiting: (c,) a bias that is still to be added to each of them.
    """

    def __init__(self, tokens: Tensor, waiting: Tensor | None = None) -> None:
        self._in_place = kernels.adds_in_place(tokens)
        self._tokens = tokens.contiguous() if self._in_place else tokens
        self._width = tokens.shape[-1]
        self._waiting = waiting

    @classmethod
    def project(cls, layer: Projection, inputs: Tensor, room: int = 0) -> TokenStream:
        """Begin with ``layer(inputs)``: (n, s, k) -> n frames; see :meth:`gate_into` for the room beside them."""
        if not kernels.adds_in_place(inputs):
            return cls(F.linear(inputs, _matrix(layer), _bias(layer)))
        if not room:
            return cls(F.linear(inputs, _matrix(layer)), _bias(layer))
        stream = cls(project_wide(inputs, _matrix(layer), room), _bias(layer))
        stream._width -= room
        return stream

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, last: int | None = None) -> Tensor:
        """The tokens of the last frames, by default of all: (n, s, c) or (last, s, c)."""
        tokens = self._tokens if last is None else self._tokens[-last:]
        tokens = tokens[..., : self._width]
        return tokens if self._waiting is None else tokens + self._waiting

    def apart(self) -> tuple[Tensor, Tensor | None]:
        """The tokens as they lie (n, s, c), and what waits to be added to them (c,), if anything."""
        return self._tokens[..., : self._width], self._waiting

    def normalise(self, norm: nn.LayerNorm, last: int | None = None, places: Tensor | None = None) -> Tensor:
        """``norm`` of what :meth:`read` gives, and places (f, c) added to the frames of every window of f."""
        fused = kernels.layer_norm(self._tokens, len(self) if last is None else last, self._waiting, norm, places)
        if fused is not None:
            return fused
        tokens: Tensor = norm(self.read(last))
        return tokens if places is None else (tokens.unflatten(0, (-1, len(places))) + places[:, None]).flatten(0, 1)

    def repeat(self) -> None:
        """Have every frame twice: first all, then all again."""
        if self._tokens.shape[-1] > self._width:
            self._tokens = repeat_wide(self._tokens, self._width)
        else:
            self._tokens = torch.cat([self._tokens, self._tokens])

    def add(self, layer: Projection, inputs: Tensor) -> None:
        """Add ``layer(inputs)``; frames before the last len(inputs) have zeros for input, so they get the bias alone.

        inputs (m, s, k), m <= n
        """
        before = len(self) - len(inputs)
        if self._in_place:
            add_product(self._tokens, inputs, _matrix(layer), before)
            self._wait(_bias(layer))
            return
        added = self._tokens[before:] + F.linear(inputs, _matrix(layer), _bias(layer))
        self._tokens = torch.cat([self._tokens[:before] + _bias(layer), added]) if before else added

    def add_parts(self, layer: Projection, parts: Sequence[Tensor]) -> None:
        """As :meth:`add` of parts (n, s, k) side by side, in a compiled network."""
        for part, matrix in zip(parts, _matrix(layer).split([part.shape[-1] for part in parts], dim=1), strict=True):
            add_product(self._tokens, part, matrix, 0)
        self._wait(_bias(layer))

    def join(self, layer: Projection, other: TokenStream) -> None:
        """Add what ``layer`` makes of another stream's tokens, of n frames or of n twice."""
        if len(self) < len(other):
            self.repeat()
        if not self._in_place or other._waiting is None:
            self.add(layer, other.read())
            return
        add_product(self._tokens, other._tokens, _matrix(layer), 0)
        self._wait(F.linear(other._waiting, _matrix(layer), _bias(layer)))

    def gate_into(self, norm: nn.LayerNorm, weight: Tensor, bias: Tensor) -> bool:
        """Put the GEGLU of the normalised tokens into the room beside them, if there is room for it and a kernel.

        weight, bias as for `latentsync.models.kernels.dispatch.geglu`
        """
        if 2 * (self._tokens.shape[-1] - self._width) != len(weight):
            return False
        return kernels.geglu_into(self._tokens, self.normalise(norm), weight, bias)

    def join_wide(self, weight: Tensor, bias: Tensor, other: TokenStream) -> None:
        """Add a product of another stream's tokens and of what was put beside them, of n frames or of n twice.

        weight (c, k) for both together, bias (c,) what comes of all biases; those that wait there are left out
        """
        if len(self) < len(other):
            self.repeat()
        add_product(self._tokens, other._tokens, weight, 0)
        self._wait(bias)

    def _wait(self, bias: Tensor) -> None:
        self._waiting = bias if self._waiting is None else self._waiting + bias


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
def project_wide(inputs: Tensor, weight: Tensor, room: int) -> Tensor:
    """``inputs @ weight.T`` with room beside it: (n, s, k), weight (c, k) -> (n, s, c + room), the room not filled."""
    wide = inputs.new_empty((*inputs.shape[:-1], len(weight) + room))
    rows = wide.view(-1, wide.shape[-1])[:, : len(weight)]
    torch.mm(inputs.reshape(-1, inputs.shape[-1]), weight.t(), out=rows)
    return wide


@project_wide.register_fake
def _(inputs: Tensor, weight: Tensor, room: int) -> Tensor:
    return inputs.new_empty((*inputs.shape[:-1], len(weight) + room))


@torch.library.custom_op("latentsync::repeat_wide", mutates_args=())
def repeat_wide(wide: Tensor, width: int) -> Tensor:
    """All frames twice: (n, s, c) -> (2n, s, c), of which the first ``width`` channels are filled."""
    twice = wide.new_empty((2 * len(wide), *wide.shape[1:]))
    twice.unflatten(0, (2, -1))[..., :width] = wide[..., :width]
    return twice


@repeat_wide.register_fake
def _(wide: Tensor, width: int) -> Tensor:
    return wide.new_empty((2 * len(wide), *wide.shape[1:]))


def _matrix(layer: Projection) -> Tensor:
    return layer.weight.flatten(1)


def _bias(layer: Projection) -> Tensor:
    if layer.bias is None:
        raise ValueError("A layer that adds to a stream of tokens needs a bias.")
    return layer.bias
