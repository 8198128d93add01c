"""Which fused CUDA kernels can be used; without Triton or a CUDA device none, and nothing is imported."""

import importlib.util

import torch
from torch import Tensor

_HALF_TYPES = (torch.float16, torch.bfloat16)

if torch.cuda.is_available() and importlib.util.find_spec("triton") is not None:
    from latentsync.models.geglu_kernel import fits as geglu_fits
    from latentsync.models.geglu_kernel import geglu, interleave
    from latentsync.models.geglu_kernel import has_room as geglu_has_room
    from latentsync.models.temporal_kernel import attend_across_frames
    from latentsync.models.temporal_kernel import fits as temporal_fits

    AVAILABLE = True
else:
    AVAILABLE = False

__all__ = ["attend_across_frames", "geglu", "geglu_fits", "geglu_has_room", "interleave", "temporal_fits", "usable"]


def usable(tensor: Tensor) -> bool:
    """Whether fused kernels can take the tensor: on CUDA, in half precision, without gradients."""
    return AVAILABLE and tensor.is_cuda and tensor.dtype in _HALF_TYPES and not torch.is_grad_enabled()
