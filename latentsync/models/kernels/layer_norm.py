"""A Triton kernel for layer norm as a stream of tokens needs it, for CUDA in half precision.

It adds what still waits to be added, and the positions of frames, on the way: one pass over memory at the rate of a
copy at every width, where a compiler's kernels take up to three times as long.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS = 4
_WIDEST = 4096


def fits(tokens: Tensor, width: int) -> bool:
    """Whether the kernel can run on tokens (n, s, >= width): sizes that its tiles divide."""
    return tokens.ndim == 3 and tokens.shape[1] % _ROWS == 0 and width <= _WIDEST and tokens.is_contiguous()


@torch.library.custom_op("latentsync::layer_norm", mutates_args=())
def layer_norm(
    tokens: Tensor,
    last: int,
    waiting: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    places: Tensor | None,
    eps: float,
) -> Tensor:
    """Layer norm of the first c channels of the last frames.

    tokens (n, s, >= c) contiguous; waiting (c,) is added before, places (f, c) after, frame by frame of windows of f
    frames; weight, bias (c,) -> (last, s, c)
    """
    tokens = tokens[-last:]
    width = weight.shape[0]
    output = torch.empty((*tokens.shape[:2], width), dtype=tokens.dtype, device=tokens.device)
    padded = triton.next_power_of_2(width)
    with torch.cuda.device(tokens.device):
        _norm_kernel[(output.numel() // width // _ROWS,)](
            tokens,
            waiting,
            weight,
            bias,
            places,
            output,
            tokens.shape[2],
            tokens.shape[1],
            1 if places is None else len(places),
            eps,
            width=width,
            padded=padded,
            rows=_ROWS,
            waits=waiting is not None,
            placed=places is not None,
            num_warps=min(max(padded // 256, 1), 8),
        )
    return output


@layer_norm.register_fake
def _(
    tokens: Tensor,
    last: int,
    waiting: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    places: Tensor | None,
    eps: float,
) -> Tensor:
    return tokens.new_empty((last, tokens.shape[1], weight.shape[0]))


@triton.jit
def _norm_kernel(
    tokens,
    waiting,
    weight,
    bias,
    places,
    output,
    row_length,
    positions,
    frames,
    eps,
    width: tl.constexpr,
    padded: tl.constexpr,
    rows: tl.constexpr,
    waits: tl.constexpr,
    placed: tl.constexpr,
):
    column = tl.arange(0, padded)
    inside = column < width
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    at = row.to(tl.int64)[:, None] * row_length + column[None, :]
    token = tl.load(tokens + at, mask=inside[None, :], other=0.0).to(tl.float32)
    if waits:
        token += tl.load(waiting + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    mean = tl.sum(token, 1) / width
    token = tl.where(inside[None, :], token - mean[:, None], 0.0)
    token *= tl.rsqrt(tl.sum(token * token, 1) / width + eps)[:, None]
    token *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    token += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    if placed:
        frame = (tl.program_id(0) * rows // positions) % frames
        token += tl.load(places + frame * width + column, mask=inside, other=0.0).to(tl.float32)[None, :]
    place = row.to(tl.int64)[:, None] * width + column[None, :]
    tl.store(output + place, token.to(output.dtype.element_ty), mask=inside[None, :])
