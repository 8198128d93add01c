"""Convolutions of 3x3 with 4/9 of the products (Winograd 1980; Lavin & Gray 2015, arXiv 1509.09308, F(2x2, 3x3)).

Overlapping tiles of 4x4 pixels are transformed to 16 sums each, and kernels likewise; 16 matrix products replace 36 for
four output pixels. The transformed input takes more memory, so it pays off only with many channels.
"""

import torch
from torch import Tensor

_KERNEL = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def transform_kernel(weight: Tensor) -> Tensor:
    """The Winograd transform of a kernel: (out, in, 3, 3) -> (16, in, out) in the same precision."""
    sums = weight.new_tensor(_KERNEL, dtype=torch.float32)
    return torch.einsum("ia, ocab, jb -> ijco", sums, weight.float(), sums).flatten(0, 1).to(weight.dtype).contiguous()
