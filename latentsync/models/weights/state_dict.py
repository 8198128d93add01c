"""Reading weights files and assigning their tensors to networks.

A network is built on the meta device and each stored tensor is converted straight to its destination, so a file of
gigabytes is never held twice.
"""

import copy
import pickle
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from latentsync.errors import CheckpointError

_Network = TypeVar("_Network", bound=nn.Module)


# Layouts of published .pt files: the tensors stand below one of these names, or at the top.
_NESTED_NAMES = ("state_dict", "model_state_dict", "model", "module")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors, .pt, .pth or .bin file, mapped from disk where the format allows.

    The nested layouts of published files are unwrapped. Raises CheckpointError when the file is missing, damaged or
    holds no tensors.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"Weights file {path} {what}; expected a .pt or .safetensors file. See checkpoints/.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _unpickle(path)
    if isinstance(content, Mapping):
        for name in _NESTED_NAMES:
            if isinstance(content.get(name), Mapping):
                content = content[name]
                break
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise CheckpointError(f"{path} holds no weights; expected a dict of tensors or {{'state_dict': ...}}.")


def assign_tensors(
    model: nn.Module, state_dict: Mapping[str, Tensor], path: Path, device: torch.device | str, dtype: torch.dtype
) -> None:
    """Put tensors into a network built on the meta device, and start what they leave empty.

    Floating-point tensors are converted to dtype, 4-D ones to channels-last memory. A layer that gets none of its
    tensors is initialised as at construction. Raises CheckpointError when shapes or names do not fit.
    """
    converted = {key: _place(tensor, device, dtype) for key, tensor in state_dict.items()}
    try:
        model.load_state_dict(converted, strict=False, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the network: {error}") from error
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            module.to_empty(device=device, recurse=False)
            cast(nn.Linear, module).reset_parameters()  # every layer kind with tensors has this method
            module.to(device, dtype)


def copy_network(network: _Network, device: torch.device) -> _Network:
    """Copy a network to another device without a second copy on the first one."""
    moved: dict[int, object] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        copied = tensor.detach().to(device, copy=True)
        moved[id(tensor)] = nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied
    return copy.deepcopy(network, moved)


def _place(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Copy: a tensor that stayed mapped to its file would change, or crash the program, when the file is replaced."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    target = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(device, target, copy=True, memory_format=layout)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}). Fetch it again.") from error


def _unpickle(path: Path) -> object:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            # Files of torch < 1.6 are no zip archives and cannot be mapped.
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's own words advise to load the file with its protection switched off.
        raise CheckpointError(
            f"{path} is damaged, no weights file, or holds more than plain tensors, which is not loaded because it "
            "could run code. Fetch it again, or save only its state_dict."
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is damaged or no weights file ({reason}). Fetch it again.") from error
