"""Triton kernels around the matrix products of `latentsync.backends.fused.winograd`, for CUDA in half precision.

Group norm and SiLU are done on the way into the sums, so that the normalized image is never written.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILES, _CHANNELS = 4, 64


def fits(parts: list[Tensor], matrices: Tensor, height: int) -> bool:
    """Whether the kernels can run on tokens (n, s, c) of each part and matrices (16, all c, out)."""
    frames, positions = parts[0].shape[:2]
    return (
        height % 2 == 0
        and positions % (2 * height) == 0
        and frames * positions % (4 * _TILES) == 0
        and all(part.shape[2] % _CHANNELS == 0 and part.is_contiguous() for part in parts)
        and matrices.shape[2] % _CHANNELS == 0
    )


@torch.library.custom_op("latentsync::convolve_normed", mutates_args=())
def convolve_normed(
    parts: list[Tensor], vectors: Tensor, matrices: Tensor, height: int, residual: Tensor | None
) -> Tensor:
    """Normalise, apply SiLU, convolve with padding 1, add the residual.

    parts: tokens (n, s, c) contiguous, of images ``height`` positions high, whose channels follow each other;
    vectors (b, 2, all c) from `latentsync.models.kernels.group_norm`, n / b frames each; matrices (16, all c, out) from
    `latentsync.backends.fused.winograd`; residual (n, s, out) contiguous -> (n, s, out)
    """
    # Compilers have been seen to lay parts of a list out in another way than they say.
    parts = [part.contiguous() for part in parts]
    residual = None if residual is None else residual.contiguous()
    frames, positions = parts[0].shape[:2]
    width, tiles, out = positions // height, frames * positions // 4, matrices.shape[2]
    sums = parts[0].new_empty((16, tiles, matrices.shape[1]))
    output = parts[0].new_empty((frames, positions, out))
    with torch.cuda.device(output.device):
        first = 0
        for part in parts:
            channels = part.shape[2]
            _spread_kernel[(tiles // _TILES, channels // _CHANNELS)](
                part,
                vectors,
                sums,
                first,
                channels,
                sums.shape[2],
                tiles,
                frames // len(vectors),
                height,
                width,
                block_tiles=_TILES,
                block_channels=_CHANNELS,
            )
            first += channels
        products = torch.bmm(sums, matrices)
        _gather_kernel[(tiles // _TILES, out // _CHANNELS)](
            products,
            residual,
            output,
            out,
            tiles,
            height,
            width,
            added=residual is not None,
            block_tiles=_TILES,
            block_channels=_CHANNELS,
        )
    return output


@convolve_normed.register_fake
def _(parts: list[Tensor], vectors: Tensor, matrices: Tensor, height: int, residual: Tensor | None) -> Tensor:
    return parts[0].new_empty((*parts[0].shape[:2], matrices.shape[2]))


@triton.jit
def _spread_kernel(
    tokens,
    vectors,
    sums,
    first,
    channels,
    all_channels,
    tiles,
    frames,
    height,
    width,
    block_tiles: tl.constexpr,
    block_channels: tl.constexpr,
):
    tile = tl.program_id(0) * block_tiles + tl.arange(0, block_tiles)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    across, down = width // 2, height // 2
    frame = tile // (across * down)
    top = tile // across % down * 2 - 1
    left = tile % across * 2 - 1
    at = frame // frames * 2 * all_channels
    vector = vectors + at[:, None] + first + channel[None, :]
    scale = tl.load(vector)
    offset = tl.load(vector + all_channels)
    picture = tokens + frame.to(tl.int64)[:, None] * height * width * channels + channel[None, :]
    a0, a1, a2, a3 = _row(picture, scale, offset, top, left, height, width, channels)
    b0, b1, b2, b3 = _row(picture, scale, offset, top + 1, left, height, width, channels)
    c0, c1, c2, c3 = _row(picture, scale, offset, top + 2, left, height, width, channels)
    d0, d1, d2, d3 = _row(picture, scale, offset, top + 3, left, height, width, channels)
    place = sums + tile.to(tl.int64)[:, None] * all_channels + first + channel[None, :]
    step = tiles.to(tl.int64) * all_channels
    _store_row(place, step, a0 - c0, a1 - c1, a2 - c2, a3 - c3)
    _store_row(place + 4 * step, step, b0 + c0, b1 + c1, b2 + c2, b3 + c3)
    _store_row(place + 8 * step, step, c0 - b0, c1 - b1, c2 - b2, c3 - b3)
    _store_row(place + 12 * step, step, b0 - d0, b1 - d1, b2 - d2, b3 - d3)


@triton.jit
def _row(picture, scale, offset, y, left, height, width, channels):
    # Four neighbours of a row, normalised, zeros outside the picture, and their sums along the row.
    p0 = _pixel(picture, scale, offset, y, left, height, width, channels)
    p1 = _pixel(picture, scale, offset, y, left + 1, height, width, channels)
    p2 = _pixel(picture, scale, offset, y, left + 2, height, width, channels)
    p3 = _pixel(picture, scale, offset, y, left + 3, height, width, channels)
    return p0 - p2, p1 + p2, p2 - p1, p1 - p3


@triton.jit
def _pixel(picture, scale, offset, y, x, height, width, channels):
    inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width))[:, None]
    value = tl.load(picture + ((y * width + x) * channels)[:, None], mask=inside, other=0.0).to(tl.float32)
    value = value * scale + offset
    return tl.where(inside, value / (1.0 + tl.exp(-value)), 0.0)


@triton.jit
def _store_row(place, step, v0, v1, v2, v3):
    tl.store(place, v0.to(place.dtype.element_ty))
    tl.store(place + step, v1.to(place.dtype.element_ty))
    tl.store(place + 2 * step, v2.to(place.dtype.element_ty))
    tl.store(place + 3 * step, v3.to(place.dtype.element_ty))


@triton.jit
def _gather_kernel(
    products,
    residual,
    output,
    channels,
    tiles,
    height,
    width,
    added: tl.constexpr,
    block_tiles: tl.constexpr,
    block_channels: tl.constexpr,
):
    tile = tl.program_id(0) * block_tiles + tl.arange(0, block_tiles)
    channel = tl.program_id(1) * block_channels + tl.arange(0, block_channels)
    across, down = width // 2, height // 2
    place = products + tile.to(tl.int64)[:, None] * channels + channel[None, :]
    step = tiles.to(tl.int64) * channels
    a0, a1 = _row_sums(place, step)
    b0, b1 = _row_sums(place + 4 * step, step)
    c0, c1 = _row_sums(place + 8 * step, step)
    d0, d1 = _row_sums(place + 12 * step, step)
    row = tile // (across * down) * height + tile // across % down * 2
    at = ((row * width + tile % across * 2).to(tl.int64) * channels)[:, None] + channel[None, :]
    below = width * channels
    _store_pixel(residual, output, at, a0 + b0 + c0, added)
    _store_pixel(residual, output, at + channels, a1 + b1 + c1, added)
    _store_pixel(residual, output, at + below, b0 - c0 - d0, added)
    _store_pixel(residual, output, at + below + channels, b1 - c1 - d1, added)


@triton.jit
def _row_sums(place, step):
    v0 = tl.load(place).to(tl.float32)
    v1 = tl.load(place + step).to(tl.float32)
    v2 = tl.load(place + 2 * step).to(tl.float32)
    v3 = tl.load(place + 3 * step).to(tl.float32)
    return v0 + v1 + v2, v1 - v2 - v3


@triton.jit
def _store_pixel(residual, output, at, value, added: tl.constexpr):
    if added:
        value += tl.load(residual + at).to(tl.float32)
    tl.store(output + at, value.to(output.dtype.element_ty))
