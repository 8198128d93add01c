"""Attention and feed-forward blocks on token sequences."""

import torch.nn.functional as F
from torch import Tensor, nn

from latentsync.models.layers.layout import merge_heads, split_heads


class Attention(nn.Module):
    """Multi-head attention; keys and values come from ``context`` or, without one, from the tokens themselves."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None, *, qkv_bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=qkv_bias)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=qkv_bias)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=qkv_bias)
        # A list of one: published files call the output projection "to_out.0".
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, hidden_states: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend.

        hidden_states (n, s, dim), context (n, k, context_dim) or None -> (n, s, dim)
        """
        key, value = self.project_context(hidden_states if context is None else context)
        return self.attend(hidden_states, key, value)

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values for :meth:`attend`: (n, k, context_dim) -> two of (n, heads, k, d)."""
        return split_heads(self.to_k(context), self.heads), split_heads(self.to_v(context), self.heads)

    def attend(self, hidden_states: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend to projected keys and values: (n, s, dim), key and value (n, heads, k, d) -> (n, s, dim)."""
        query = split_heads(self.to_q(hidden_states), self.heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.to_out[0](merge_heads(attended))
        return output


class GEGLU(nn.Module):
    """Linear layer to twice the width, one half gating the other through an exact GELU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Project and gate: (..., dim_in) -> (..., dim_out)."""
        values, gate = self.proj(hidden_states).chunk(2, dim=-1)
        output: Tensor = values * F.gelu(gate)
        return output


class FeedForward(nn.Module):
    """GEGLU to four times the width and back."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # The identity stands where a dropout was, so that the second linear layer keeps its published name "net.2".
        self.net = nn.Sequential(GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Transform every token independently: (..., dim) -> (..., dim)."""
        output: Tensor = self.net(hidden_states)
        return output
