"""Which fused CUDA kernels are used: none until `enable` has seen them run on this machine."""

import logging
from types import ModuleType

import torch
from torch import Tensor, nn

_LOGGER = logging.getLogger(__name__)
_HALF_TYPES = (torch.float16, torch.bfloat16)
_enabled: dict[str, ModuleType] = {}
_refused: set[str] = set()
_tried: set[torch.device] = set()


def enable(device: torch.device) -> None:
    """Try each kernel on a CUDA device and use those that run there; one that does not is reported once.

    A kernel is used on all devices or on none: one that a second device cannot run is left out from then on. Triton
    comes with torch for CUDA, but needs a C compiler and Python's headers to start a kernel. Other devices have none.
    """
    if device.type != "cuda" or device in _tried:
        return
    _tried.add(device)
    for name, trial in _TRIALS.items():
        if name in _refused:
            continue
        module = None
        try:
            with torch.inference_mode():
                module = trial(device)
        except Exception as error:  # whatever fails in Triton, its compiler or its driver: the library is the fallback
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            _LOGGER.warning("The fused kernel for %s cannot be used (%s); falling back to slower code", name, reason)
        if module is None:
            _refused.add(name)
            _enabled.pop(name, None)
        else:
            _enabled[name] = module


def _try_temporal(device: torch.device) -> ModuleType | None:
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None  # Triton supports no older ones
    from latentsync.models.kernels import temporal_attention as temporal_kernel

    query = torch.zeros((16, 2, 32), dtype=torch.float16, device=device)
    temporal_kernel.attend_across_frames(query, query, query, 2, 16)
    return temporal_kernel


def _try_norm(device: torch.device) -> ModuleType | None:
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    from latentsync.models.kernels import layer_norm as norm_kernel

    tokens = torch.zeros((1, 4, 32), dtype=torch.float16, device=device)
    norm_kernel.layer_norm(tokens, 1, None, tokens[0, 0], tokens[0, 0], None, 1e-5)
    return norm_kernel


def _try_geglu(device: torch.device) -> ModuleType | None:
    if torch.cuda.get_device_capability(device) < (9, 0):
        return None  # moves tiles as Hopper and later GPUs do
    from latentsync.models.kernels import geglu as geglu_kernel

    if not geglu_kernel.has_room(device):
        return None
    ones = torch.ones((256, 64), dtype=torch.float16, device=device)
    geglu_kernel.geglu(ones[:128], ones, ones[:, 0].contiguous())
    return geglu_kernel


def _try_attention(device: torch.device) -> ModuleType | None:
    if torch.cuda.get_device_capability(device)[0] != 9:
        return None  # not measured to be faster than the library elsewhere
    from latentsync.models.kernels import spatial_attention as attention_kernel

    if not attention_kernel.has_room(device):
        return None
    attention_kernel.attend_within_frames(torch.zeros((1, 1024, 120), dtype=torch.float16, device=device), 1)
    return attention_kernel


def _try_moments(device: torch.device) -> ModuleType | None:
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    from latentsync.models.kernels import group_norm as moments_kernel

    ones = torch.ones((1, 32, 64), dtype=torch.float16, device=device)
    moments_kernel.group_moments([ones], None, ones[0, 0], ones[0, 0], 2, 1, 1e-5)
    return moments_kernel


def _try_winograd(device: torch.device) -> ModuleType | None:
    if torch.cuda.get_device_capability(device) < (8, 0):
        return None
    from latentsync.models.kernels import winograd as winograd_kernel

    ones = torch.ones((2, 64, 64), dtype=torch.float16, device=device)
    winograd_kernel.convolve_normed([ones], ones[:, :2].float(), ones[:1].expand(16, 64, 64), 8, ones)
    return winograd_kernel


_TRIALS = {
    "attention across frames": _try_temporal,
    "layer norm": _try_norm,
    "group norm": _try_moments,
    "convolutions": _try_winograd,
    "GEGLU": _try_geglu,
    "attention within frames": _try_attention,
}


def fuses_geglu() -> bool:
    """Whether the `geglu` kernel is available, so that interleaved weights are worth their memory."""
    return "GEGLU" in _enabled


def convolves() -> bool:
    """Whether the `convolve_normed` kernel is available, so that Winograd matrices are worth their memory."""
    return "convolutions" in _enabled


def attend_across_frames(query: Tensor, key: Tensor, value: Tensor, heads: int, frames: int) -> Tensor | None:
    """As `latentsync.models.layers.temporal_attention.attend_across_frames`; None where the kernel cannot be used."""
    module = _enabled.get("attention across frames")
    if module is None or not _usable(query) or not module.fits(query, heads, frames):
        return None
    output: Tensor = module.attend_across_frames(query, key, value, heads, frames)
    return output


def attend_within_frames(packed: Tensor, heads: int) -> Tensor | None:
    """Attention among the positions of each frame; None where the kernel cannot be used.

    packed (n, s, (3 heads d)) queries, keys and values side by side -> (n, s, (heads d))
    """
    module = _enabled.get("attention within frames")
    if module is None or not _usable(packed) or not module.fits(packed, heads):
        return None
    output: Tensor = module.attend_within_frames(packed, heads)
    return output


def layer_norm(
    tokens: Tensor, last: int, pending_bias: Tensor | None, norm: nn.LayerNorm, pos_embed: Tensor | None
) -> Tensor | None:
    """Layer norm of the first c channels of the last frames; None where the kernel cannot be used.

    tokens (n, s, >= c); pending_bias (c,) is added before, pos_embed (f, c) after, on the frames of every window of f
    -> (last, s, c)
    """
    module = _enabled.get("layer norm")
    if module is None or not _usable(tokens) or not module.fits(tokens, norm.normalized_shape[0]):
        return None
    output: Tensor = module.layer_norm(tokens, last, pending_bias, norm.weight, norm.bias, pos_embed, norm.eps)
    return output


def group_moments(parts: list[Tensor], added: Tensor | None, norm: nn.GroupNorm, frames: int) -> Tensor | None:
    """Group norm as ``x * scale + offset``, for compiled networks; None where the kernel cannot be used.

    parts: tokens (n, s, c) whose channels follow each other; added (1 or n / frames, all c) is added to them before;
    statistics are shared by each run of ``frames`` frames -> (n / frames, 2, all c) float32, scale and offset for
    tokens to which nothing was added
    """
    module = _enabled.get("group norm")
    if module is None or not adds_in_place(parts[0]) or not module.fits(parts, norm.num_groups, frames):
        return None
    vectors: Tensor = module.group_moments(parts, added, norm.weight, norm.bias, norm.num_groups, frames, norm.eps)
    return vectors


def convolve_normed(
    parts: list[Tensor], vectors: Tensor, matrices: Tensor, height: int, residual: Tensor | None
) -> Tensor | None:
    """Normalise by `group_moments`, apply SiLU, convolve with padding 1; None where the kernel cannot be used.

    parts: tokens (n, s, c) of images ``height`` positions high; matrices (16, all c, out) from
    `latentsync.backends.fused.winograd`; residual (n, s, out) is added -> (n, s, out)
    """
    module = _enabled.get("convolutions")
    if module is None or not module.fits(parts, matrices, height):
        return None
    output: Tensor = module.convolve_normed(parts, vectors, matrices, height, residual)
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


def geglu_into(wide: Tensor, tokens: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """As :func:`geglu`, into the last n channels of wide (..., > n); False where the kernel cannot be used."""
    module = _enabled.get("GEGLU")
    if module is None or not _usable(tokens) or not module.fits(tokens, weight) or wide.shape[-1] % 8:
        return False
    module.geglu_into(wide, tokens, weight, bias)
    return True


def adds_in_place(tensor: Tensor) -> bool:
    """Whether to accumulate products in place, which pays only if a compiler fuses the surrounding operations."""
    return torch.compiler.is_compiling() and _usable(tensor)


def interleave(parameter: Tensor) -> Tensor:
    """Interleave values and gates: rows 0..n, n..2n -> rows 0, n, 1, n + 1, ..."""
    return torch.stack(parameter.chunk(2), dim=1).flatten(0, 1).contiguous()


def _usable(tensor: Tensor) -> bool:
    """Kernels are for CUDA in half precision and have no backward pass."""
    return tensor.is_cuda and tensor.dtype in _HALF_TYPES and not torch.is_grad_enabled()
