"""Reading weights files and putting them into networks, strictly and with every permitted difference reported.

A network is built without memory ("meta" device) and each stored tensor is converted straight to its place, so a
file of gigabytes is never held twice.
"""

import copy
import logging
import pickle
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from latentsync.errors import CheckpointError
from latentsync.models.unet.spec import UNetSpec
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.weights.identify import describe_state_dict

_LOGGER = logging.getLogger(__name__)
_Network = TypeVar("_Network", bound=nn.Module)
# Layouts of published .pt files: the tensors stand below one of these names, or at the top.
_NESTED_NAMES = ("state_dict", "model_state_dict", "model", "module")
_MOTION = "motion_modules."
_AUDIO_PROJECTIONS = (".attn2.to_k.weight", ".attn2.to_v.weight")
_EDGE_LAYERS = ("conv_in.", "conv_out.")


def load_unet(
    spec: UNetSpec, path: Path, device: torch.device | str, dtype: torch.dtype, *, allow_reinit: bool = False
) -> UNet3DConditionModel:
    """Build the U-Net and load its weights.

    path: a .pt file ({"state_dict": ...} or bare) or .safetensors -> model in eval mode on device in dtype.
    Motion modules that only the file or only the network has are tolerated and reported: those missing in the file
    keep their start, at which they change nothing. allow_reinit (start of a training) also starts conv_in,
    conv_out and the audio projections afresh when their shapes differ. Anything else that does not fit raises
    CheckpointError.
    """
    state_dict = read_state_dict(Path(path))
    with torch.device("meta"):
        model = UNet3DConditionModel(spec)
    expected = model.state_dict()
    fresh = _reinitialised(expected, state_dict) if allow_reinit else set()
    missing = {key for key in expected if key not in state_dict} - fresh
    surplus = {key for key in state_dict if key not in expected}
    permitted = _whole_motion_modules(expected, missing)
    if missing - permitted or any(_MOTION not in key for key in surplus) or _misshapen(expected, state_dict, fresh):
        raise CheckpointError(_explain_misfit(path, expected, state_dict, fresh))
    _report(path, "is not used by this network", surplus)
    _report(path, "is not in the file and starts as identity", missing)
    _report(path, "has another shape in the file and starts afresh", fresh)
    usable = {key: state_dict[key] for key in expected if key not in fresh | missing}
    assign_tensors(model, usable, path, device, dtype)
    return model.eval()


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
    """The same network once more, on another device; nothing is held twice on the first one meanwhile."""
    moved: dict[int, object] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        place = tensor.detach().to(device, copy=True)
        moved[id(tensor)] = nn.Parameter(place, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else place
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


def _reinitialised(expected: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> set[str]:
    """Entries that may start afresh because the file has them in another shape."""
    fresh = set()
    for key in _misshapen(expected, state_dict, set()):
        if key.startswith(_EDGE_LAYERS):
            layer = key.rpartition(".")[0]
            fresh |= {f"{layer}.weight", f"{layer}.bias"}
        elif key.endswith(_AUDIO_PROJECTIONS):
            fresh.add(key)
    return fresh


def _whole_motion_modules(expected: Mapping[str, Tensor], missing: set[str]) -> set[str]:
    """Missing entries of motion modules that are missing as a whole; part of one would not start as identity."""
    partial = {_module_name(key) for key in expected if _MOTION in key and key not in missing}
    return {key for key in missing if _MOTION in key and _module_name(key) not in partial}


def _misshapen(expected: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], fresh: set[str]) -> list[str]:
    common = [key for key in expected if key in state_dict and key not in fresh]
    return [key for key in common if expected[key].shape != state_dict[key].shape]


def _explain_misfit(
    path: Path, expected: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], fresh: set[str]
) -> str:
    absent = {key for key in expected if key not in state_dict}
    missing = sorted(absent - _whole_motion_modules(expected, absent) - fresh)
    surplus = [key for key in state_dict if key not in expected and _MOTION not in key]
    misshapen = _misshapen(expected, state_dict, fresh)
    details = [
        f"{len(keys)} entries {what}, e.g. {keys[0]}"
        for keys, what in ((missing, "missing"), (surplus, "unknown"))
        if keys
    ]
    if misshapen:
        key = misshapen[0]
        found, wanted = tuple(state_dict[key].shape), tuple(expected[key].shape)
        details.append(f"{len(misshapen)} of another shape, e.g. {key}: {found} in the file, {wanted} expected")
    return (
        f"{path} does not fit the configured U-Net ({describe_state_dict(expected)}): {'; '.join(details)}. "
        f"The file looks like {describe_state_dict(state_dict)}. Choose the configuration made for this file, or "
        f"give another file."
    )


def _report(path: Path, what: str, keys: Iterable[str]) -> None:
    modules = sorted({_module_name(key) for key in keys})
    if modules:
        _LOGGER.warning("%s: %d parts; each %s: %s", path, len(modules), what, ", ".join(modules))


def _module_name(key: str) -> str:
    """The motion module an entry belongs to, or the entry itself: a whole module is reported once."""
    head, found, tail = key.partition(_MOTION)
    return head + found + tail.partition(".")[0] if found else key
