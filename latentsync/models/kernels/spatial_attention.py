"""A Triton kernel for attention among the many positions of a frame with narrow heads, for CUDA in half precision.

Exponentials, not products, are what such attention costs, so around them nothing is done that can be left out. Usual
kernels (Dao 2023, arXiv 2307.08691) follow the highest score of every row and scale down what they have whenever it
grows. Here it is estimated first, from the scores of a program's own positions, with room above: a weight may exceed
what the estimate makes of it by a factor of four million before half precision cannot hold it any more. A program that
finds so at its end begins anew with the true highest scores.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

_QUERIES, _KEYS, _WIDTH, _STAGES = 128, 64, 64, 4
_SHARED_MEMORY = 2 * (2 * _STAGES * _KEYS * _WIDTH + _QUERIES * _WIDTH)
_FEWEST_POSITIONS = 1024  # with fewer the estimate costs more than it saves


def fits(packed: Tensor, heads: int) -> bool:
    """Whether the kernel can run on packed projections (n, s, (3 heads d)): sizes that its tiles divide."""
    positions, width = packed.shape[1], packed.shape[2] // (3 * heads)
    return (
        positions >= _FEWEST_POSITIONS
        and positions % _QUERIES == 0
        and 32 < width <= _WIDTH
        and packed.shape[2] % 8 == 0
        and packed.is_contiguous()
    )


def has_room(device: torch.device) -> bool:
    """Whether a device has room for the tiles."""
    properties = torch.cuda.get_device_properties(device)
    room: int = getattr(properties, "shared_memory_per_block_optin", 0)  # unknown to the type checker
    return room >= _SHARED_MEMORY + 2**11


@torch.library.custom_op("latentsync::attend_within_frames", mutates_args=())
def attend_within_frames(packed: Tensor, heads: int) -> Tensor:
    """Multi-head attention among the positions of each frame.

    packed (n, s, (3 heads d)) queries, keys and values side by side, contiguous -> (n, s, (heads d))
    """
    frames, positions, channels = packed.shape
    width = channels // (3 * heads)
    flat = packed.view(-1, channels)
    output = torch.empty((frames, positions, channels // 3), dtype=packed.dtype, device=packed.device)
    with torch.cuda.device(packed.device):
        _attention_kernel[(positions // _QUERIES, heads, frames)](
            flat,
            TensorDescriptor.from_tensor(flat, [_KEYS, _WIDTH]),
            output,
            positions,
            width**-0.5 * 1.4426950408889634,
            heads=heads,
            width=width,
            padded_width=_WIDTH,
            queries=_QUERIES,
            keys=_KEYS,
            num_warps=4,
            num_stages=_STAGES,
        )
    return output


@attend_within_frames.register_fake
def _(packed: Tensor, heads: int) -> Tensor:
    return packed.new_empty((*packed.shape[:2], packed.shape[2] // 3))


@triton.jit
def _attention_kernel(
    packed,
    tiles,
    output,
    positions,
    scale,
    heads: tl.constexpr,
    width: tl.constexpr,
    padded_width: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
):
    channels: tl.constexpr = heads * width
    column = tl.program_id(1) * width
    first = tl.program_id(2) * positions
    own = first + tl.program_id(0) * queries
    row = (own + tl.arange(0, queries)).to(tl.int64)[:, None]
    channel = tl.arange(0, padded_width)[None, :]
    # Tiles of keys and values reach into the next head's columns: zeros here leave them out of the scores, and of the
    # result they are not stored.
    query = tl.load(packed + row * 3 * channels + column + channel, mask=channel < width, other=0.0)
    highest = _highest_scores(query, tiles, own, queries, channels + column, queries, keys)
    mixed, total = _weighted_sum(query, tiles, first, positions, channels, column, scale, highest, queries, keys)
    if not (tl.max(total, 0) < 65504.0):
        highest = _highest_scores(query, tiles, first, positions, channels + column, queries, keys)
        mixed, total = _weighted_sum(query, tiles, first, positions, channels, column, scale, highest, queries, keys)
    mixed = (mixed / total[:, None]).to(output.dtype.element_ty)
    tl.store(output + row * channels + column + channel, mixed, mask=channel < width)


@triton.jit
def _highest_scores(query, tiles, first, count, column, queries: tl.constexpr, keys: tl.constexpr):
    highest = tl.full((queries,), float("-inf"), tl.float32)
    for start in tl.range(0, count, keys):
        highest = tl.maximum(highest, tl.max(tl.dot(query, tiles.load([first + start, column]).T), 1))
    return highest


@triton.jit
def _weighted_sum(
    query, tiles, first, positions, channels, column, scale, highest, queries: tl.constexpr, keys: tl.constexpr
):
    # The row with this score gets the weight 2^-6: small ones lose nothing that counts, and there is room above.
    ceiling = (highest * scale + 6.0)[:, None]
    mixed = tl.zeros(query.shape, tl.float32)
    # Eight sums for each row, so that a thread adds up its own scores alone.
    total = tl.zeros((queries, 8), tl.float32)
    for start in tl.range(0, positions, keys):
        scores = tl.dot(query, tiles.load([first + start, channels + column]).T)
        weights = tl.exp2(scores * scale - ceiling)
        total += tl.sum(weights.reshape(queries, keys // 8, 8), 1)
        mixed = tl.dot(weights.to(query.dtype), tiles.load([first + start, 2 * channels + column]), mixed)
    return mixed, tl.sum(total, 1)
