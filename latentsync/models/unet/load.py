"""Loading weights into the U-Net, strictly and with every permitted difference reported."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from latentsync.errors import CheckpointError
from latentsync.models.unet.spec import UNetSpec
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.weights.identify import describe_state_dict
from latentsync.models.weights.state_dict import assign_tensors, read_state_dict

_LOGGER = logging.getLogger(__name__)
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
