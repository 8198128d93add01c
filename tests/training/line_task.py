"""A task that trains in no time: a tiny network fits a smooth function of numbered samples."""

import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentsync.training.loop.options import CheckpointOptions, TrainerOptions, UpdateOptions
from latentsync.training.loop.task import Shard

Batch = dict[str, Tensor]
ALONE = Shard()


def sample(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(4, generator=generator)
    return x, torch.sin(x.sum())[None]


class LineSource:
    """Numbered samples in an order drawn from (seed, epoch); ``taken`` is told the ids of every batch handed over."""

    def __init__(self, samples: int = 24, batch: int = 4, shard: Shard = ALONE, taken: Any = None) -> None:
        self.samples, self.batch, self.shard, self.taken = samples, batch, shard, taken
        self.before_batch: Callable[[int], None] = lambda number: None
        self.reasons: dict[str, str] = {}
        self.short_by = 0

    @property
    def steps_per_epoch(self) -> int:
        return self.samples // (self.batch * self.shard.world_size)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(1000 + epoch)).tolist()
        for number in range(first, self.steps_per_epoch - self.short_by):
            self.before_batch(epoch * self.steps_per_epoch + number)
            start = (number * self.shard.world_size + self.shard.rank) * self.batch
            ids = order[start : start + self.batch]
            if self.taken is not None:
                self.taken(epoch, ids)
            pairs = [sample(i) for i in ids]
            yield {
                "x": torch.stack([x for x, _ in pairs]),
                "y": torch.stack([y for _, y in pairs]),
                "number": torch.tensor(epoch * self.steps_per_epoch + number),
            }

    def problems(self) -> Mapping[str, str]:
        return self.reasons


class LineTask:
    """Fits `sample`; steps listed in ``poison`` have a loss that is no number, in the ranks listed."""

    name = "line"

    def __init__(self, seed: int = 0, dropout: float = 0.0, poison: Any = (), rank: int = 0) -> None:
        torch.manual_seed(seed)
        self.network: nn.Module = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 1))
        self.poison, self.rank = poison, rank
        self.seen_weights: list[Tensor] = []
        self.noise: list[float] = []

    def to(self, device: torch.device) -> None:
        self.device = device

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert network.training
        guess = network(batch["x"].to(self.device))
        squares = nn.functional.mse_loss(guess, batch["y"].to(self.device))
        size = guess.abs().mean()
        self.noise.append(torch.rand(()).item())
        total = squares + 0.01 * size
        if (int(batch["number"]), self.rank) in self.poison:
            total = total * float("nan")
        return {"total": total, "squares": squares, "size": size}

    def validate(self, network: nn.Module, shard: Shard) -> dict[str, tuple[float, int]]:
        torch.manual_seed(99)  # a validation may do what it likes to the generators
        assert not network.training
        numbers = list(range(500, 511))[shard.rank :: shard.world_size]
        errors = [float((network(sample(i)[0].to(self.device)) - sample(i)[1].to(self.device)) ** 2) for i in numbers]
        self.seen_weights.append(self.network[0].weight.detach().clone())
        return {"squares": (sum(errors), len(errors)), "nothing": (0.0, 0)}

    def save_samples(self, network: nn.Module, folder: Path, step: int) -> None:
        (folder / f"line_{step:08d}.txt").write_text(f"{float(network(torch.zeros(4, device=self.device))):.5f}")

    def export(self, state_dict: Mapping[str, Tensor], folder: Path, step: int) -> Path:
        file = folder / "line.pt"
        torch.save({"state_dict": dict(state_dict), "global_step": step}, file)
        return file


def options(run: Path, **changes: Any) -> TrainerOptions:
    """Quick options; those of updates and checkpoints are given by their own names."""
    update = {"lr": 1e-2, **_pick(UpdateOptions, changes)}
    checkpoints = {"save_ckpt_steps": 0, **_pick(CheckpointOptions, changes)}
    defaults: dict[str, Any] = {"log_steps": 1, "batch_size": 4, "cpu": True, "progress": False}
    return TrainerOptions(run, UpdateOptions(**update), CheckpointOptions(**checkpoints), **{**defaults, **changes})


def _pick(kind: Any, changes: dict[str, Any]) -> dict[str, Any]:
    return {name: changes.pop(name) for name in list(changes) if name in kind.__dataclass_fields__}


def kill_at(step: int | None, number: int = signal.SIGTERM) -> Callable[[int], None]:
    """Of ``before_batch``: send this process a signal before a batch is made."""

    def act(batch: int) -> None:
        if batch == step:
            signal.raise_signal(number)

    return act
