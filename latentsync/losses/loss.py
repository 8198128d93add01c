"""What a training loss is, and how a configuration names one."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

from torch import Tensor

from latentsync.errors import ConfigError

Inputs = TypeVar("Inputs", contravariant=True)

NEEDS: Mapping[str, tuple[str, ...]] = {
    "mel": (),
    "syncnet": ("syncnet", "syncnet_resolution"),
    "lpips": ("lpips",),
    "videomae": ("videomae",),
}
"""What a loss may ask for beyond its inputs -> keyword arguments its constructor gets for it."""


class Loss(Protocol[Inputs]):
    """A loss: an object that maps the inputs of a step to a scalar.

    A class may state ``needs``, a set of names in `NEEDS`: "mel" makes the data loader read mel spectrograms;
    "syncnet", "lpips" and "videomae" have the frozen critic of that name loaded and passed to the constructor. A loss
    that is an ``nn.Module`` is moved to the device, frozen and put into evaluation mode.
    """

    def __call__(self, inputs: Inputs) -> Tensor:
        """() the loss, with a gradient."""
        ...


LossClass = Callable[..., Loss[Any]]


def find_loss(name: str, target: str, registered: Mapping[str, LossClass]) -> LossClass:
    """The class behind a configuration entry.

    Args:
        name: of the entry, for messages.
        target: a short name in ``registered``, or the dotted path of an importable class. Importing it runs its module.
        registered: short names.

    Raises:
        ConfigError: the target cannot be found or imported, or is not a class.
    """
    if target in registered:
        return registered[target]
    module_name, _, attribute = target.rpartition(".")
    if not module_name:
        raise ConfigError(
            f"losses.{name}.target: {target!r} is neither one of {', '.join(sorted(registered))} nor a dotted path "
            "such as my_package.losses.MyLoss"
        )
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"losses.{name}.target: cannot import {target!r} ({error}); its module must be importable from where "
            "training runs, for example through PYTHONPATH"
        ) from error
    if not inspect.isclass(found):
        raise ConfigError(f"losses.{name}.target: {target!r} is {type(found).__name__}, expected a class")
    return cast(LossClass, found)


def loss_needs(name: str, loss_class: LossClass) -> frozenset[str]:
    """What a loss class asks for.

    Raises:
        ConfigError: something that is not in `NEEDS`.
    """
    needs = frozenset(getattr(loss_class, "needs", ()))
    unknown = sorted(needs - NEEDS.keys())
    if unknown:
        raise ConfigError(f"losses.{name}: its class needs {unknown}, but a loss can only need {sorted(NEEDS)}")
    return needs


def make_loss(name: str, loss_class: LossClass, kwargs: Mapping[str, Any], critics: Mapping[str, Any]) -> Loss[Any]:
    """Construct a loss.

    Args:
        name: of the entry, for messages.
        loss_class: see `find_loss`.
        kwargs: of the configuration.
        critics: the frozen networks it needs, by keyword.

    Raises:
        ConfigError: the constructor does not take these arguments, or the object cannot be called.
    """
    given = {**kwargs, **critics}
    signature = inspect.signature(loss_class)
    try:
        signature.bind(**given)
    except TypeError as error:
        raise ConfigError(
            f"losses.{name}.kwargs: got {dict(kwargs)}, but the constructor is "
            f"{getattr(loss_class, '__name__', loss_class)}{signature} ({error})"
        ) from error
    loss = loss_class(**given)
    if not callable(loss):
        raise ConfigError(f"losses.{name}: {type(loss).__name__} has no __call__(inputs), which computes the loss")
    return loss
