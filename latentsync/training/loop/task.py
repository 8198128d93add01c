"""What the training loop needs to know of a network and its data; everything else it does by itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Shard:
    """Which part of a fixed set this process takes: items ``rank``, ``rank + world_size``, ..."""

    rank: int = 0
    world_size: int = 1


class BatchSource(Protocol):
    """Batches of this process, in an order that depends on the seed, the epoch and the place in it only."""

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
        network: is trained; parameters that are to stay as they are have ``requires_grad`` off.
    """

    name: str
    network: nn.Module

    def to(self, device: torch.device) -> None:
        """Move everything but ``network`` to the device."""
        ...

    def losses(self, network: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Loss terms of a batch of the source, scalars on the device; ``total`` is the one that is minimised.

        Args:
            network: ``self.network``, perhaps wrapped for several processes; only this one is to be called.
            batch: as the source gave it (on the CPU).
        """
        ...

    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        """Figures on the shard of a fixed set, each as (sum, count); the same at every call with the same weights."""
        ...

    def save_samples(self, network: nn.Module, folder: Path, step: int) -> None:
        """Write pictures of what the network does; called in the main process only."""
        ...

    def export(self, state_dict: Mapping[str, Tensor], folder: Path, step: int) -> Path:
        """Write the network's weights in the published layout into ``folder``; returns the file."""
        ...
