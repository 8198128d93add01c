"""A Triton kernel for attention across the frames of a window: one pass over memory, for CUDA in half precision.

Library kernels are made for long sequences; on 16 frames they reach a hundredth of a GPU's rate. Here a program takes a
few neighbouring positions of one head at once: with frames times positions in one tile, the matrix units are used, and
products between different positions are masked out.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_POSITIONS = 2  # at once: with windows of 16 frames tiles are 32 x 32


def fits(query: Tensor, heads: int, frames: int) -> bool:
    """Whether the kernel can run on such tensors ((b frames), s, (heads d)): sizes that its tiles divide."""
    width = query.shape[-1] // heads
    return (
        frames * _POSITIONS >= 16 and frames & (frames - 1) == 0 and query.shape[1] % _POSITIONS == 0 and width <= 256
    )


@torch.library.custom_op("latentsync::attend_across_frames", mutates_args=())
def attend_across_frames(query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int) -> Tensor:
    """As in `latentsync.models.layers.temporal_attention`; rows may be strided, channels are contiguous."""
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    rows, positions, channels = query.shape
    width = channels // heads
    grid = (heads, positions // _POSITIONS, rows // frames)
    with torch.cuda.device(query.device):
        _temporal_kernel[grid](
            query,
            key,
            value,
            output,
            *(stride for part in (query, key, value) for stride in part.stride()[:2]),
            positions,
            width**-0.5 * 1.4426950408889634,
            heads=heads,
            width=width,
            padded_width=max(16, triton.next_power_of_2(width)),
            frames=frames,
            group=_POSITIONS,
            num_warps=2,
        )
    return output


@attend_across_frames.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int) -> Tensor:
    return query.new_empty(query.shape)


@triton.jit
def _temporal_kernel(
    query,
    key,
    value,
    output,
    query_row,
    query_position,
    key_row,
    key_position,
    value_row,
    value_position,
    positions,
    scale,
    heads: tl.constexpr,
    width: tl.constexpr,
    padded_width: tl.constexpr,
    frames: tl.constexpr,
    group: tl.constexpr,
):
    head = tl.program_id(0)
    tile = tl.arange(0, frames * group)
    row = tl.program_id(2).to(tl.int64) * frames + tile // group
    position = tl.program_id(1) * group + tile % group
    channel = tl.arange(0, padded_width)
    inside = channel[None, :] < width
    columns = head * width + channel[None, :]
    q = tl.load(query + (row * query_row + position * query_position)[:, None] + columns, mask=inside, other=0.0)
    k = tl.load(key + (row * key_row + position * key_position)[:, None] + columns, mask=inside, other=0.0)
    v = tl.load(value + (row * value_row + position * value_position)[:, None] + columns, mask=inside, other=0.0)
    scores = tl.dot(q, tl.trans(k)) * scale
    scores = tl.where((tile % group)[:, None] == (tile % group)[None, :], scores, float("-inf"))
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
    weights = weights / tl.sum(weights, 1)[:, None]
    mixed = tl.dot(weights.to(v.dtype), v)
    place = (row * positions + position)[:, None] * (heads * width) + columns
    tl.store(output + place, mixed.to(output.dtype.element_ty), mask=inside)
