"""Which fused CUDA kernels are used: none until `enable` has seen them run on this machine."""

import logging
from types import ModuleType

import torch
from torch import Tensor

_LOGGER = logging.getLogger(__name__)
_HALF_TYPES = (torch.float16, torch.bfloat16)
_enabled: dict[str, ModuleType] = {}
_failed: set[str] = set()


def enable(device: torch.device) -> None:
    """Try each kernel on a CUDA device and use those that run there; one that does not is told once.

    Triton comes with torch for CUDA, but needs a C compiler and Python's headers to start a kernel.
    """
    for name, trial in (("attention across frames", _try_temporal), ("GEGLU", _try_geglu)):
        if name in _enabled or name in _failed:
            continue
        try:
            with torch.inference_mode():
                module = trial(device)
        except Exception as error:  # whatever fails in Triton, its compiler or its driver: the library can do it, too
            _failed.add(name)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            _LOGGER.warning("The fused kernel for %s cannot be used (%s); going on slower", name, reason)
        else:
            if module is not None:
                _enabled[name] = module


def _try_temporal(device: torch.device) -> ModuleType | None:
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None  # Triton supports no older ones
    from latentsync.models import temporal_kernel

    query = torch.zeros((16, 2, 32), dtype=torch.float16, device=device)
    temporal_kernel.attend_across_frames(query, query, query, 2, 16)
    return temporal_kernel


def _try_geglu(device: torch.device) -> ModuleType | None:
    if torch.cuda.get_device_capability(device) < (9, 0):
        return None  # moves tiles as Hopper and later GPUs do
    from latentsync.models import geglu_kernel

    if not geglu_kernel.has_room(device):
        return None
    ones = torch.ones((256, 64), dtype=torch.float16, device=device)
    geglu_kernel.geglu(ones[:128], ones, ones[:, 0].contiguous())
    return geglu_kernel


def fuses_geglu() -> bool:
    """Whether `geglu` may have an answer, so that packed weights are worth their memory."""
    return "GEGLU" in _enabled


def attend_across_frames(query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int) -> Tensor | None:
    """As `latentsync.models.temporal_attention.attend_across_frames`; None where the kernel cannot be used."""
    module = _enabled.get("attention across frames")
    if module is None or not _usable(query) or not module.fits(query, heads, frames):
        return None
    output: Tensor = module.attend_across_frames(query, key, value, heads, frames)
    return output


def geglu(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor | None:
    """``values * gelu(gate)`` from parameters laid out by `interleave`; None where the kernel cannot be used.

    tokens (..., k), weight (2n, k), bias (2n,) -> (..., n)
    """
    module = _enabled.get("GEGLU")
    if module is None or not _usable(tokens) or not module.fits(tokens, weight):
        return None
    output: Tensor = module.geglu(tokens, weight, bias)
    return output


def adds_in_place(tensor: Tensor) -> bool:
    """Whether products are to be added to tokens where they lie: it needs a compiler that fuses what is around it."""
    return torch.compiler.is_compiling() and _usable(tensor)


def interleave(parameter: Tensor) -> Tensor:
    """Values and gates in turn: rows 0..n, n..2n -> rows 0, n, 1, n + 1, ..."""
    return torch.stack(parameter.chunk(2), dim=1).flatten(0, 1).contiguous()


def _usable(tensor: Tensor) -> bool:
    """Kernels are for CUDA in half precision and know no gradients."""
    return tensor.is_cuda and tensor.dtype in _HALF_TYPES and not torch.is_grad_enabled()
