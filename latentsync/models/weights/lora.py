"""Merging LoRA files (Hu et al. 2021, arXiv 2106.09685) into a network's weights."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from latentsync.errors import CheckpointError
from latentsync.models.weights.identify import describe_state_dict
from latentsync.models.weights.state_dict import read_state_dict

_LOGGER = logging.getLogger(__name__)
_WEIGHT_NAMES = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin")
_CONFIG_NAME = "adapter_config.json"
_PREFIXES = ("base_model.model.", "unet.")
_DOWN = ("lora_A", "lora.down", "lora_down")
# peft's save_pretrained leaves the adapter's name out, a plain state dict of the network has it: lora_A.default.weight.
_KEY = re.compile(r"(.+)\.(lora_A|lora_B|lora\.down|lora\.up|lora_down|lora_up)(?:\.[^.]+)?\.weight$")


@dataclass
class _LoraLayer:
    """The low-rank update of one layer: ``up @ down``, times alpha / rank where the file gives an alpha."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class _PeftConfig:
    """The part of peft's adapter_config.json that scales the update."""

    alpha: float | None = None
    use_rslora: bool = False
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    def scaling(self, name: str, layer: _LoraLayer, rank: int) -> float:
        alpha = layer.alpha
        if alpha is None:
            patterns = [value for key, value in self.alpha_pattern.items() if re.match(rf"(.*\.)?({key})$", name)]
            alpha = patterns[0] if patterns else self.alpha
        if alpha is None:
            return 1.0
        return alpha / (rank**0.5 if self.use_rslora else rank)


def merge_lora(network: nn.Module, path: Path, scale: float = 1.0) -> int:
    """Add a LoRA to the weights of a plain network, in place and before it is prepared for its device.

    Args:
        network: linear layers and convolutions under the names that the file uses.
        path: a .safetensors/.pt file, or the folder that peft's or diffusers' ``save_pretrained`` wrote. Layers are
            named as by peft (``base_model.model.<layer>.lora_A.weight``) or by diffusers
            (``unet.<layer>.lora.down.weight`` or ``unet.<layer>.lora_A.weight``, with an optional
            ``unet.<layer>.alpha``). Without an alpha, neither there nor in an adapter_config.json beside the file, it
            equals the rank.
        scale: strength of the update; 1 as trained, negative values subtract it.

    Returns:
        The number of layers that were changed.

    Raises:
        CheckpointError: the file is damaged or no LoRA, names a layer that the network does not have, or has matrices
            that do not fit; the network is then unchanged.
    """
    path = _find_weights(Path(path))
    layers = _read_layers(path)
    config = _read_config(path.with_name(_CONFIG_NAME))
    updates = [(_target(network, name, path), *_product(name, layer, config, path)) for name, layer in layers.items()]
    for name, (target, update, _) in zip(layers, updates, strict=True):
        if target.weight.numel() != update.numel() or len(target.weight) != len(update):
            raise CheckpointError(
                f"{path}: the update of {name} has shape {tuple(update.shape)}, but the layer's weight is "
                f"{tuple(target.weight.shape)}. The LoRA was trained on a network of another size."
            )
    with torch.no_grad():
        for target, update, scaling in updates:
            weight = target.weight
            added = update.to(weight.device).view(weight.shape) * (scale * scaling)
            weight.copy_((weight.float() + added).to(weight.dtype))
    _LOGGER.info("%s: merged into %d layers at scale %g", path, len(updates), scale)
    return len(updates)


def _find_weights(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _WEIGHT_NAMES:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"LoRA folder {path} has no weights; expected one of {', '.join(_WEIGHT_NAMES)}.")


def _read_layers(path: Path) -> dict[str, _LoraLayer]:
    """Low-rank matrices by the name of their layer."""
    state_dict = read_state_dict(path)
    layers: dict[str, _LoraLayer] = {}
    unknown = []
    for key, tensor in state_dict.items():
        match = _KEY.match(key)
        if match:
            layer = layers.setdefault(_without_prefix(match[1]), _LoraLayer())
            setattr(layer, "down" if match[2] in _DOWN else "up", tensor)
        elif key.endswith(".alpha") and tensor.numel() == 1:
            layers.setdefault(_without_prefix(key.removesuffix(".alpha")), _LoraLayer()).alpha = float(tensor)
        else:
            unknown.append(key)
    if not layers:
        raise CheckpointError(
            f"{path} is no LoRA file: it has no entries such as <layer>.lora_A.weight or <layer>.lora.down.weight. "
            f"It looks like {describe_state_dict(state_dict)}."
        )
    if unknown:
        raise CheckpointError(
            f"{path}: {len(unknown)} entries are no low-rank matrices, e.g. {unknown[0]}. Only plain LoRA can be "
            "merged; expected pairs of lora_A/lora_B or lora.down/lora.up."
        )
    return layers


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _read_config(path: Path) -> _PeftConfig:
    if not path.is_file():
        return _PeftConfig()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("use_dora"):
            raise CheckpointError(f"{path} describes a DoRA adapter, which cannot be merged here; expected plain LoRA.")
        return _PeftConfig(
            content.get("lora_alpha"),
            bool(content.get("use_rslora")),
            content.get("alpha_pattern") or {},
        )
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); expected peft's adapter configuration.") from error


def _target(network: nn.Module, name: str, path: Path) -> nn.Linear | nn.Conv2d:
    try:
        module: nn.Module | None = network.get_submodule(name)
    except AttributeError:
        module = None
    module = getattr(module, "base_layer", module)  # below an adapter that is attached already
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        return module
    found = "the network has no such layer" if module is None else f"there the network has a {type(module).__name__}"
    raise CheckpointError(
        f"{path} changes {name}, but {found}; expected a linear layer or convolution of the plain U-Net. Give a LoRA "
        "trained on this model, and merge it before the network is prepared for its device."
    )


def _product(name: str, layer: _LoraLayer, config: _PeftConfig, path: Path) -> tuple[Tensor, float]:
    """The update as a matrix (out, in * kernel positions) in float32, and its scaling."""
    if layer.down is None or layer.up is None:
        missing = "down (lora_A)" if layer.down is None else "up (lora_B)"
        raise CheckpointError(f"{path}: {name} has no {missing} matrix; expected both. The file is incomplete.")
    down, up = layer.down.float().flatten(1), layer.up.float().flatten(1)
    if up.shape[1] != len(down):
        raise CheckpointError(
            f"{path}: the matrices of {name} do not fit: down has rank {len(down)}, up has rank {up.shape[1]}."
        )
    return up @ down, config.scaling(name, layer, len(down))
