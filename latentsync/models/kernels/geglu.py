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

_ROWS, _COLUMNS, _WIDTH, _STAGES = 128, 256, 64, 4
_ROWS_TOGETHER = {10: 32, 20: 4, 40: 64}
"""Tiles below each other that run at the same time, by the number of tiles across: the fastest on an H100."""
# Bytes of the tiles on their way in and out.
_SHARED_MEMORY = 2 * (_STAGES * (_ROWS + _COLUMNS) * _WIDTH + _ROWS * _COLUMNS // 2)


def fits(tokens: Tensor, weight: Tensor) -> bool:
    """Whether the kernel can run on tokens (..., k) and weight (2n, k): sizes that its tiles divide."""
    rows, width = tokens.numel() // tokens.shape[-1], tokens.shape[-1]
    return rows % _ROWS == 0 and width % _WIDTH == 0 and weight.shape[0] % _COLUMNS == 0


def has_room(device: torch.device) -> bool:
    """Whether a device has room for the tiles, as consumer cards have not."""
    properties = torch.cuda.get_device_properties(device)
    room: int = getattr(properties, "shared_memory_per_block_optin", 0)  # unknown to the type checker
    return room >= _SHARED_MEMORY + 2**10


@torch.library.custom_op("latentsync::geglu", mutates_args=())
def geglu(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``values * gelu(gate)`` of ``values, gate = tokens @ weight.T + bias``.

    tokens (..., k), weight (2n, k) and bias (2n,) from `latentsync.models.kernels.dispatch.interleave` -> (..., n)
    """
    output = tokens.new_empty((*tokens.shape[:-1], weight.shape[0] // 2))
    _launch(tokens, weight, bias, output.view(-1, output.shape[-1]))
    return output


@geglu.register_fake
def _(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return tokens.new_empty((*tokens.shape[:-1], weight.shape[0] // 2))


@torch.library.custom_op("latentsync::geglu_into", mutates_args=("wide",))
def geglu_into(wide: Tensor, tokens: Tensor, weight: Tensor, bias: Tensor) -> None:
    """As :func:`geglu`, into the last n channels of wide (..., > n), which is contiguous."""
    _launch(tokens, weight, bias, wide.view(-1, wide.shape[-1])[:, -weight.shape[0] // 2 :])


@geglu_into.register_fake
def _(wide: Tensor, tokens: Tensor, weight: Tensor, bias: Tensor) -> None:
    return None


def _launch(tokens: Tensor, weight: Tensor, bias: Tensor, output: Tensor) -> None:
    flat = tokens.reshape(-1, tokens.shape[-1]).contiguous()
    rows, width = flat.shape
    columns = weight.shape[0]
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
            group=_ROWS_TOGETHER.get(columns // _COLUMNS, 16),
            num_warps=8,
            num_stages=_STAGES,
        )


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
        output.store([row, column // 2], (values * _gelu(gate)).to(output.dtype))


@triton.jit
def _gelu(gate):
    # Half of erf(gate / sqrt(2)) as the odd polynomial of degree 17 that is nearest to it (by 1.4e-5 everywhere, a
    # tenth of half precision's rounding) and reaches 1/2 at 4.2, beyond which it stays there. The library's erf takes
    # twice as long, and no matrix product runs beside it.
    near = tl.minimum(tl.maximum(gate, -4.2), 4.2)
    square = near * near
    half_erf = 6.970806267e-11 * square - 6.374747066e-09
    half_erf = half_erf * square + 2.577329321e-07
    half_erf = half_erf * square - 6.153683337e-06
    half_erf = half_erf * square + 9.836753554e-05
    half_erf = half_erf * square - 1.135169463e-03
    half_erf = half_erf * square + 9.893099503e-03
    half_erf = half_erf * square - 6.644798563e-02
    half_erf = half_erf * square + 3.989457213e-01
    return gate * (0.5 + near * half_erf)
