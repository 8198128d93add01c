"""The fused CUDA kernels as plain formulas, so that networks prepared for CUDA run on a CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.kernels import dispatch as kernels
from latentsync.models.layers.layout import from_tokens, to_tokens

SPREAD = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
GATHER = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])


def use_plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make fused networks behave as if compiled for CUDA."""
    monkeypatch.setattr(kernels, "adds_in_place", lambda tensor: True)
    monkeypatch.setattr(kernels, "enable", lambda device: None)
    for name in ("fuses_geglu", "convolves"):
        monkeypatch.setattr(kernels, name, lambda: True)
    for plain in (group_moments, convolve_normed, geglu_into, layer_norm):
        monkeypatch.setattr(kernels, plain.__name__, plain)


def group_moments(parts: list[Tensor], added: Tensor | None, norm: nn.GroupNorm, frames: int) -> Tensor:
    """See `latentsync.models.kernels.dispatch`."""
    tokens = torch.cat(parts, dim=-1).unflatten(0, (-1, frames)).flatten(1, 2)
    shift = torch.zeros(1, tokens.shape[-1], dtype=tokens.dtype) if added is None else added
    groups = (tokens + shift[:, None]).unflatten(-1, (norm.num_groups, -1))
    mean, variance = groups.mean(dim=(1, 3)), groups.var(dim=(1, 3), correction=0)
    width = groups.shape[-1]
    scale = (variance + norm.eps).rsqrt().repeat_interleave(width, dim=1) * norm.weight
    offset = norm.bias - (mean.repeat_interleave(width, dim=1) - shift) * scale
    return torch.stack([scale, offset], dim=1)


def convolve_normed(
    parts: list[Tensor], vectors: Tensor, matrices: Tensor, height: int, residual: Tensor | None
) -> Tensor:
    """See `latentsync.models.kernels.dispatch`."""
    scale, offset = vectors[:, :, None, None].unbind(1)
    normed = (torch.cat(parts, dim=-1).unflatten(0, (len(vectors), -1)) * scale + offset).flatten(0, 1)
    output = to_tokens(convolve_by_matrices(F.silu(from_tokens(normed, height)), matrices))
    return output if residual is None else output + residual


def convolve_by_matrices(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Convolve with padding 1 by 16 products: (n, c, h, w), matrices (16, c, out) -> (n, out, h, w)."""
    spread, gather = SPREAD.to(pixels.dtype), GATHER.to(pixels.dtype)
    tiles = F.pad(pixels, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)
    sums = torch.einsum("ia, nctuab, jb -> ijntuc", spread, tiles, spread)
    products = torch.einsum("ijntuc, ijco -> ijntuo", sums, matrices.unflatten(0, (4, 4)))
    return torch.einsum("ai, ijntuo, bj -> notaub", gather, products, gather).flatten(4, 5).flatten(2, 3)


def geglu_into(wide: Tensor, tokens: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """See `latentsync.models.kernels.dispatch`."""
    values, gate = F.linear(tokens, weight, bias).unflatten(-1, (-1, 2)).unbind(-1)
    wide[..., -values.shape[-1] :] = values * F.gelu(gate)
    return True


def layer_norm(
    tokens: Tensor, last: int, pending_bias: Tensor | None, norm: nn.LayerNorm, pos_embed: Tensor | None
) -> Tensor:
    """See `latentsync.models.kernels.dispatch`."""
    tokens = tokens[-last:, :, : norm.normalized_shape[0]]
    output: Tensor = norm(tokens if pending_bias is None else tokens + pending_bias)
    return (
        output if pos_embed is None else (output.unflatten(0, (-1, len(pos_embed))) + pos_embed[:, None]).flatten(0, 1)
    )
