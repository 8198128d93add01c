"""The interface between the training loop and what it trains: tasks and batch sources."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Shard:
    """Which part of a fixed set this process takes: items ``rank``, ``rank + world_size``, ..."""

    rank: int = 0
    world_size: int = 1


class BatchSource(Protocol):
    """Batches of this process, in an order that depends only on the seed, the epoch and the position in it."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; at least 1."""
        ...

    def batches(self, epoch: int, first: int) -> Iterator[Any]:
        """The epoch's batches from number ``first`` on."""
        ...

    def problems(self) -> Mapping[str, str]:
        """Clips of this process that could not be used so far: path -> reason."""
        ...


class TrainingTask(Protocol):
    """A network, its losses and its validation.

    Attributes:
        name: of files and charts: "unet", "syncnet".
        network: is trained, except for parameters with ``requires_grad`` off.
    """

    name: str
    network: nn.Module

    def to(self, device: torch.device) -> None:
        """Move everything but ``network`` to the device."""
        ...

    def losses(self, network: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Loss terms of a batch of the source, scalars on the device; ``total`` is the one that is minimised.

        Args:
            network: ``self.network``, perhaps wrapped for several processes; call this one only.
            batch: as the source gave it.
        """
        ...

    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """Metrics on the shard of a fixed set, each as (sum, count); deterministic for the same weights."""
        ...

    def save_samples(self, network: nn.Module, folder: Path, step: int) -> None:
        """Write sample images of the network; called in the main process only."""
        ...

    def export(self, state_dict: Mapping[str, Tensor], folder: Path, step: int) -> Path:
        """Write the network's weights in the published layout into ``folder``; returns the file."""
        ...


@runtime_checkable
class ScheduledTask(Protocol):
    """A task whose losses change over the run."""

    def set_progress(self, fraction_done: float) -> None:
        """Called before every step with the fraction of the run that is over, 0 to 1, by steps or by time."""
        ...
