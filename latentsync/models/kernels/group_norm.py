"""Triton kernels for what a group norm has to know of its input, for CUDA in half precision: one pass over memory.

What comes of it is a multiplication and an addition for each channel, which whoever reads the input next can do.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _CHANNELS = 32, 64
_PROGRAMS = 1024  # about eight for each processor of a large GPU


def fits(parts: list[Tensor], groups: int, frames: int) -> bool:
    """Whether the kernels can run on tokens (n, s, c) of each part: sizes that their tiles divide."""
    channels = sum(part.shape[2] for part in parts)
    return (
        parts[0].shape[1] * frames % _ROWS == 0
        and channels % groups == 0
        and channels // groups <= 256
        and all(part.shape[2] % _CHANNELS == 0 and part.is_contiguous() for part in parts)
    )


@torch.library.custom_op("latentsync::group_moments", mutates_args=())
def group_moments(
    parts: list[Tensor], added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, frames: int, eps: float
) -> Tensor:
    """Group norm as ``x * scale + offset``.

    parts: tokens (n, s, c) contiguous, whose channels follow each other; added (1 or n / frames, all c) is added to
    them before; weight, bias (all c,) of the norm; statistics are shared by each run of ``frames`` frames
    -> (n / frames, 2, all c) float32, scale and offset for tokens to which nothing was added
    """
    # Compilers have been seen to lay parts of a list out in another way than they say.
    parts = [part.contiguous() for part in parts]
    windows, channels = len(parts[0]) // frames, sum(part.shape[2] for part in parts)
    rows = parts[0].shape[1] * frames
    splits = max(1, min(_PROGRAMS // (windows * (channels // _CHANNELS)), rows // _ROWS))
    while rows // _ROWS % splits:
        splits -= 1
    sums = torch.empty((windows, splits, 2, channels), dtype=torch.float32, device=weight.device)
    vectors = torch.empty((windows, 2, channels), dtype=torch.float32, device=weight.device)
    with torch.cuda.device(weight.device):
        first = 0
        for part in parts:
            grid = (part.shape[2] // _CHANNELS, splits, windows)
            _sum_kernel[grid](
                part, sums, rows, part.shape[2], channels, first, rows // splits, rows=_ROWS, width=_CHANNELS
            )
            first += part.shape[2]
        width = channels // groups
        _vector_kernel[(groups, windows)](
            sums,
            added,
            weight,
            bias,
            vectors,
            splits,
            channels,
            rows,
            0 if added is None or len(added) == 1 else channels,
            eps,
            width=width,
            padded=triton.next_power_of_2(width),
            padded_splits=triton.next_power_of_2(splits),
            adds=added is not None,
            num_warps=2,
        )
    return vectors


@group_moments.register_fake
def _(
    parts: list[Tensor], added: Tensor | None, weight: Tensor, bias: Tensor, groups: int, frames: int, eps: float
) -> Tensor:
    channels = sum(part.shape[2] for part in parts)
    return weight.new_empty((len(parts[0]) // frames, 2, channels), dtype=torch.float32)


@triton.jit
def _sum_kernel(tokens, sums, count, channels, all_channels, first, each, rows: tl.constexpr, width: tl.constexpr):
    channel = tl.program_id(0) * width + tl.arange(0, width)
    split, window = tl.program_id(1), tl.program_id(2)
    start = window.to(tl.int64) * count + split * each
    place = tokens + (start + tl.arange(0, rows))[:, None] * channels + channel[None, :]
    total = tl.zeros((rows, width), tl.float32)
    squares = tl.zeros((rows, width), tl.float32)
    for _ in range(0, each, rows):
        value = tl.load(place).to(tl.float32)
        total += value
        squares += value * value
        place += rows * channels
    at = sums + (window * tl.num_programs(1) + split) * 2 * all_channels + first + channel
    tl.store(at, tl.sum(total, 0))
    tl.store(at + all_channels, tl.sum(squares, 0))


@triton.jit
def _vector_kernel(
    sums,
    added,
    weight,
    bias,
    vectors,
    splits,
    channels,
    count,
    added_stride,
    eps,
    width: tl.constexpr,
    padded: tl.constexpr,
    padded_splits: tl.constexpr,
    adds: tl.constexpr,
):
    window = tl.program_id(1)
    inside = tl.arange(0, padded) < width
    channel = tl.program_id(0) * width + tl.arange(0, padded)
    split = tl.arange(0, padded_splits)
    place = sums + (window * splits + split)[:, None] * 2 * channels + channel[None, :]
    mask = (split < splits)[:, None] & inside[None, :]
    total = tl.sum(tl.load(place, mask=mask, other=0.0), 0)
    squares = tl.sum(tl.load(place + channels, mask=mask, other=0.0), 0)
    shift = tl.zeros((padded,), tl.float32)
    if adds:
        shift += tl.load(added + window * added_stride + channel, mask=inside, other=0.0).to(tl.float32)
    squares += shift * (2.0 * total + shift * count)
    total += shift * count
    mean = tl.sum(total, 0) / (count * width)
    variance = tl.maximum(tl.sum(squares, 0) / (count * width) - mean * mean, 0.0)
    scale = tl.rsqrt(variance + eps) * tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32) - (mean - shift) * scale
    at = vectors + window * 2 * channels + channel
    tl.store(at, scale, mask=inside)
    tl.store(at + channels, offset, mask=inside)
