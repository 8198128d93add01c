"""VideoMAE v2's vision transformer (Wang et al. 2023, https://arxiv.org/abs/2303.16727) as a describer of motion.

Only what gives the features is built: published files also hold a classification head, which is left out.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from latentsync.errors import ConfigError
from latentsync.models.layers.layout import merge_heads, split_heads
from latentsync.models.weights.state_dict import read_state_dict
from latentsync.models.weights.strict_loading import load_strictly

_EPS = 1e-6
_HEAD = ("head.",)


@dataclass(frozen=True)
class VideoMaeSpec:
    """Sizes of the transformer; the defaults are those of ViT-g. Raises ConfigError when they do not fit."""

    image_size: int = 224
    """Height and width of the frames."""
    frames: int = 16
    """Frames of a clip."""
    patch_size: int = 14
    """Height and width of the part of a frame that becomes a token."""
    tubelet_size: int = 2
    """Frames that a token spans."""
    width: int = 1408
    """Width of a token."""
    depth: int = 40
    """Transformer blocks."""
    heads: int = 16
    """Attention heads."""
    mlp_width: int = 6144
    """Width inside the feed-forward layers."""

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size or self.frames % self.tubelet_size or self.width % self.heads:
            raise ConfigError(f"VideoMAE: patches, tubelets and heads must divide image, frames and width; got {self}")

    @property
    def tokens(self) -> int:
        """Tokens of a clip."""
        return (self.frames // self.tubelet_size) * (self.image_size // self.patch_size) ** 2


class TubeletProjection(nn.Conv3d):
    """A convolution whose kernels do not overlap, computed as one matrix product."""

    def __init__(self, spec: VideoMaeSpec) -> None:
        size = (spec.tubelet_size, spec.patch_size, spec.patch_size)
        super().__init__(3, spec.width, kernel_size=size, stride=size)

    def forward(self, video: Tensor) -> Tensor:
        """Cut into tokens: (b, 3, f, h, w) -> (b, tokens, width), frame by frame, row by row."""
        depth, height, width = self.kernel_size
        pattern = "b c (f d) (h p) (w q) -> b (f h w) (c d p q)"
        return F.linear(
            rearrange(video, pattern, d=depth, p=height, q=width), rearrange(self.weight, "o ... -> o (...)"), self.bias
        )


class TubeletEmbedding(nn.Module):
    """The projection under the name that published files give it."""

    def __init__(self, spec: VideoMaeSpec) -> None:
        super().__init__()
        self.proj = TubeletProjection(spec)

    def forward(self, video: Tensor) -> Tensor:
        """Embed: (b, 3, f, h, w) -> (b, tokens, width)."""
        output: Tensor = self.proj(video)
        return output


class TokenPositions(nn.Module):
    """Fixed sine/cosine table of token positions, which published files do not store."""

    table: Tensor

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.empty(1, tokens, width), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the table: sines on even, cosines on odd channels."""
        _, tokens, width = self.table.shape
        device, exact = self.table.device, torch.float64
        exponent = torch.arange(0, width, 2, dtype=exact, device=device) / width
        angle = torch.outer(torch.arange(tokens, dtype=exact, device=device), 10000.0**-exponent)
        self.table = rearrange([angle.sin(), angle.cos()], "k t c -> 1 t (c k)").to(self.table.dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """Add positions: (b, tokens, width) -> the same shape."""
        return tokens + self.table


class QueryValueBiasAttention(nn.Module):
    """Self-attention; queries and values have a bias, keys have none."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend: (b, s, width) -> (b, s, width)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        parts = F.linear(tokens, self.qkv.weight, bias).chunk(3, dim=-1)
        query, key, value = (split_heads(part, self.heads) for part in parts)
        output: Tensor = self.proj(merge_heads(F.scaled_dot_product_attention(query, key, value)))
        return output


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform every token by itself: (..., width) -> (..., width)."""
        output: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return output


class VideoMaeBlock(nn.Module):
    """Attention and feed-forward, each normalised before and added after."""

    def __init__(self, spec: VideoMaeSpec) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(spec.width, eps=_EPS)
        self.attn = QueryValueBiasAttention(spec.width, spec.heads)
        self.norm2 = nn.LayerNorm(spec.width, eps=_EPS)
        self.mlp = Mlp(spec.width, spec.mlp_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform: (b, s, width) -> (b, s, width)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class VideoMae(nn.Module):
    """One vector for a clip: the normalised mean of its tokens. No dropout: meant for use, not for training."""

    def __init__(self, spec: VideoMaeSpec) -> None:
        super().__init__()
        self.spec = spec
        self.gradient_checkpointing = False
        self.patch_embed = TubeletEmbedding(spec)
        self.positions = TokenPositions(spec.tokens, spec.width)
        self.blocks = nn.ModuleList([VideoMaeBlock(spec) for _ in range(spec.depth)])
        self.fc_norm = nn.LayerNorm(spec.width, eps=_EPS)

    def enable_gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute each block's activations in the backward pass (less memory, about a third more time)."""
        self.gradient_checkpointing = enabled

    def forward(self, video: Tensor) -> Tensor:
        """Describe a clip.

        video (b, 3, frames, image_size, image_size) in [0, 1], without further normalisation -> (b, width). Raises
        ValueError for another size.
        """
        spec = self.spec
        expected = (3, spec.frames, spec.image_size, spec.image_size)
        if video.ndim != 5 or tuple(video.shape[1:]) != expected:
            raise ValueError(f"video has shape {tuple(video.shape)}, expected (b, {', '.join(map(str, expected))}).")
        tokens = self.positions(self.patch_embed(video))
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        features: Tensor = self.fc_norm(tokens.mean(dim=1))
        return features


def load_video_mae(spec: VideoMaeSpec, path: Path, device: torch.device | str, dtype: torch.dtype) -> VideoMae:
    """Build the transformer and load its weights.

    path: a .pth/.pt file ({"model": ...}, {"module": ...}, {"state_dict": ...} or bare) or .safetensors -> network
    in eval mode on device in dtype, its parameters without gradient. The classification head is reported and left
    out. Raises CheckpointError when anything else does not fit.
    """
    path = Path(path)
    with torch.device("meta"):
        model = VideoMae(spec)
    return load_strictly(model, read_state_dict(path), path, (device, dtype), _HEAD)
