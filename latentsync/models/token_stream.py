"""The residual stream of a transformer: tokens that one layer after the other adds to.

Written plainly, every addition reads and writes all tokens once more, and a bias slows the matrix product down. In
compiled CUDA networks the product is therefore added where the tokens lie, and biases, which are the same for all
tokens, wait in a vector until somebody reads: the compiler then adds them on the way into the next norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models import kernels

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
        self._waiting = waiting

    @classmethod
    def project(cls, layer: Projection, inputs: Tensor) -> TokenStream:
        """Begin with ``layer(inputs)``: (n, s, k) -> n frames."""
        if kernels.adds_in_place(inputs):
            return cls(F.linear(inputs, _matrix(layer)), _bias(layer))
        return cls(F.linear(inputs, _matrix(layer), _bias(layer)))

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, last: int | None = None) -> Tensor:
        """The tokens of the last frames, by default of all: (n, s, c) or (last, s, c)."""
        tokens = self._tokens if last is None else self._tokens[-last:]
        return tokens if self._waiting is None else tokens + self._waiting

    def repeat(self) -> None:
        """Have every frame twice: first all, then all again."""
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

    def join(self, layer: Projection, other: TokenStream) -> None:
        """Add what ``layer`` makes of another stream's tokens, of n frames or of n twice."""
        if len(self) < len(other):
            self.repeat()
        if not self._in_place or other._waiting is None:
            self.add(layer, other.read())
            return
        add_product(self._tokens, other._tokens, _matrix(layer), 0)
        self._wait(F.linear(other._waiting, _matrix(layer), _bias(layer)))

    def _wait(self, bias: Tensor) -> None:
        self._waiting = bias if self._waiting is None else self._waiting + bias


@torch.library.custom_op("latentsync::add_product", mutates_args=("total",))
def add_product(total: Tensor, inputs: Tensor, weight: Tensor, first: int) -> None:
    """``total[first:] += inputs @ weight.T``.

    total (n, s, c) contiguous, inputs (n - first, s, k), weight (c, k)
    """
    total[first:].view(-1, total.shape[-1]).addmm_(inputs.reshape(-1, inputs.shape[-1]), weight.t())


@add_product.register_fake
def _(total: Tensor, inputs: Tensor, weight: Tensor, first: int) -> None:
    return None


def _matrix(layer: Projection) -> Tensor:
    return layer.weight.flatten(1)


def _bias(layer: Projection) -> Tensor:
    if layer.bias is None:
        raise ValueError("A layer that adds to a stream of tokens needs a bias.")
    return layer.bias
