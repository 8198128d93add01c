"""Effective weights: merging adapters and refusing layers whose forward a backend would bypass.

A backend that packs or fuses weights reads them once and no longer calls the layer that held them. Whatever such a
layer adds to its weight (LoRA adapters, hooks, parametrizations, subclasses of unknown kind) would silently be lost.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from latentsync.errors import ConfigError
from latentsync.models.unet.motion_module import ZeroLinear
from latentsync.models.unet.unet import ZeroConv

_PLAIN_KINDS = (nn.Linear, nn.Conv2d, ZeroLinear, ZeroConv)


def merge_adapters(network: nn.Module) -> int:
    """Merge adapter layers (as peft attaches them) into their base layers, and put those back in their place.

    Disabled adapters are dropped without merging. Returns how many layers were replaced. Raises ConfigError for a
    wrapper that cannot be merged.
    """
    wrappers = [(name, module) for name, module in network.named_modules() if hasattr(module, "base_layer")]
    for name, wrapper in wrappers:
        _replace(network, name, _merged(name, wrapper))
    return len(wrappers)


def _merged(name: str, wrapper: Any) -> nn.Module:
    if getattr(wrapper, "disable_adapters", False):
        if getattr(wrapper, "merged", False):
            wrapper.unmerge()
    elif not hasattr(wrapper, "merge"):
        raise ConfigError(
            f"{name} is wrapped by {type(wrapper).__name__}, which has no merge(): its effect would be lost when the "
            "network is prepared for its device. Merge or remove the wrapper before."
        )
    elif not getattr(wrapper, "merged", False):
        wrapper.merge(safe_merge=True)
    base: nn.Module = wrapper.get_base_layer() if hasattr(wrapper, "get_base_layer") else wrapper.base_layer
    return base


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, module)


def require_plain(network: nn.Module) -> None:
    """See that every projection is a plain layer whose weight says all that it computes.

    Raises ConfigError naming the first linear or convolution layer that is of another class, parametrized, or has
    hooks.
    """
    for name, module in network.named_modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        if type(module) not in _PLAIN_KINDS:
            found = f"is a {type(module).__name__}"
        elif module._forward_hooks or module._forward_pre_hooks:
            found = "has forward hooks"
        else:
            continue
        raise ConfigError(
            f"{name} {found}, but preparing the network for its device replaces the layer and would lose that. "
            "Expected plain Linear and Conv2d layers without hooks: remove it before, or run the plain network."
        )
