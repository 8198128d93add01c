"""A Triton kernel for GEGLU: the matrix product and the gate in one pass, for CUDA in half precision.

A library writes the product to memory, twice the size of the result, and reads it again for the gate. Here values and
gates are neighbouring columns, so that one thread holds both.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

_ROWS, _COLUMNS, _WIDTH, _STAGES = 128, 256, 64, 3
_SHARED_MEMORY = 2 * _STAGES * (_ROWS + _COLUMNS) * _WIDTH  # bytes that the tiles on their way take


def fits(tokens: Tensor, weight: Tensor) -> bool:
    """Whether the kernel can run on tokens (..., k) and weight (2n, k): sizes that its tiles divide."""
    rows, width = tokens.numel() // tokens.shape[-1], tokens.shape[-1]
    return rows % _ROWS == 0 and width % _WIDTH == 0 and weight.shape[0] % _COLUMNS == 0


def has_room(device: torch.device) -> bool:
    """Whether a device has room for the tiles, as consumer cards have not."""
    properties = torch.cuda.get_device_properties(device)
    room: int = getattr(properties, "shared_memory_per_block_optin", 0)  # unknown to the type checker
    return room > _SHARED_MEMORY + 2**14


@torch.library.custom_op("latentsync::geglu", mutates_args=())
def geglu(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``values * gelu(gate)`` of ``values, gate = tokens @ weight.T + bias``.

    tokens (..., k), weight (2n, k) and bias (2n,) from `latentsync.models.kernels.interleave` -> (..., n)
    """
    flat = tokens.reshape(-1, tokens.shape[-1]).contiguous()
    rows, width = flat.shape
    columns = weight.shape[0]
    output = torch.empty((rows, columns // 2), dtype=tokens.dtype, device=tokens.device)
    tiles = (rows // _ROWS) * (columns // _COLUMNS)
    with torch.cuda.device(tokens.device):
        _geglu_kernel[(min(tiles, _processors(tokens.device)),)](
            TensorDescriptor.from_tensor(flat, [_ROWS, _WIDTH]),
            TensorDescriptor.from_tensor(weight, [_COLUMNS, _WIDTH]),
            bias,
            TensorDescriptor.from_tensor(output, [_ROWS, _COLUMNS // 2]),
            rows // _ROWS,
            columns // _COLUMNS,
            width=width,
            block_rows=_ROWS,
            block_columns=_COLUMNS,
            block_width=_WIDTH,
            group=8,
            num_warps=8,
            num_stages=_STAGES,
        )
    return output.unflatten(0, tokens.shape[:-1])


@geglu.register_fake
def _(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return tokens.new_empty((*tokens.shape[:-1], weight.shape[0] // 2))


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@triton.jit
def _geglu_kernel(
    tokens,
    weight,
    bias,
    output,
    tiles_down,
    tiles_across,
    width: tl.constexpr,
    block_rows: tl.constexpr,
    block_columns: tl.constexpr,
    block_width: tl.constexpr,
    group: tl.constexpr,
):
    # One program per processor takes tile after tile, so that a tile is loaded while the last one is still stored.
    for tile in tl.range(tl.program_id(0), tiles_down * tiles_across, tl.num_programs(0), flatten=True):
        # Programs that run at the same time share rows and columns, so that these stay in the cache.
        first = (tile // (group * tiles_across)) * group
        height = min(tiles_down - first, group)
        row = (first + (tile % (group * tiles_across)) % height) * block_rows
        column = ((tile % (group * tiles_across)) // height) * block_columns
        product = tl.zeros((block_rows, block_columns), tl.float32)
        for inner in range(0, width, block_width):
            part = tokens.load([row, inner])
            product = tl.dot(part, weight.load([column, inner]).T, product)
        product += tl.load(bias + column + tl.arange(0, block_columns))[None, :].to(tl.float32)
        values, gate = product.reshape(block_rows, block_columns // 2, 2).split()
        result = values * gate * 0.5 * (1 + tl.erf(gate * 0.7071067811865476))
        output.store([row, column // 2], result.to(output.dtype))
