"""Loading a published network that has exactly one layout: all of its entries, and no unknown ones."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from latentsync.errors import CheckpointError
from latentsync.models.weights.identify import describe_state_dict
from latentsync.models.weights.state_dict import assign_tensors

_LOGGER = logging.getLogger(__name__)
Network = TypeVar("Network", bound=nn.Module)


def load_strictly(
    model: Network,
    state_dict: Mapping[str, Tensor],
    path: Path,
    place: tuple[torch.device | str, torch.dtype],
    ignorable: tuple[str, ...] = (),
) -> Network:
    """Fill a network that was built on the meta device, and freeze it.

    Args:
        model: built under ``torch.device("meta")``; buffers that are not stored come from ``reset_parameters``.
        state_dict: what the file holds.
        path: the file, for messages.
        place: device and dtype of the result.
        ignorable: starts of names that the file may have beyond the network's; they are reported and left out.

    Returns:
        The model in eval mode, its parameters without gradient.

    Raises:
        CheckpointError: entries are missing, unknown or of another shape.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - state_dict.keys())
    surplus = sorted(state_dict.keys() - expected.keys())
    unknown = [key for key in surplus if not key.startswith(ignorable)]
    misshapen = [
        key for key in sorted(expected.keys() & state_dict.keys()) if expected[key].shape != state_dict[key].shape
    ]
    if missing or unknown or misshapen:
        problems = (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        details = "; ".join(f"{len(keys)} entries {what}, e.g. {keys[0]}" for what, keys in problems if keys)
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__}: {details}. The file looks like "
            f"{describe_state_dict(state_dict)}. Give the published file, or sizes that fit this one."
        )
    if surplus:
        _LOGGER.info("%s: %d entries are not used: %s", path, len(surplus), ", ".join(surplus))
    assign_tensors(model, {key: state_dict[key] for key in expected}, path, *place)
    return model.eval().requires_grad_(False)
