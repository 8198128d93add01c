"""Validation on a fixed set, without side effects on the training."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from latentsync.runtime.random_state import preserve_random_state
from latentsync.training.loop.ema import Ema
from latentsync.training.loop.processes import ProcessGroup
from latentsync.training.loop.task import TrainingTask


def validate(task: TrainingTask, ema: Ema | None, processes: ProcessGroup, folder: Path, step: int) -> dict[str, float]:
    """Validate in all processes, with averaged weights if there are any, and save samples in the main one.

    Args:
        task: to be validated.
        ema: average of its weights.
        processes: each takes its shard.
        folder: of the sample images.
        step: of the run.

    Returns:
        Means over the whole set, the same in every process; metrics without samples are left out.
    """
    averaged = nullcontext() if ema is None else ema.applied()
    # A compiled network would be compiled once more for these few batches without a gradient.
    eager = torch.compiler.set_stance("force_eager")
    with preserve_random_state(processes.device), _evaluating(task.network), averaged, eager, torch.no_grad():
        parts = processes.gather(task.validate(task.network, processes.shard))
        if processes.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            task.save_samples(task.network, folder, step)
    return means(parts)


def means(parts: Sequence[dict[str, tuple[float, int]]]) -> dict[str, float]:
    """Means of metrics that come in parts.

    Args:
        parts: of each shard, name -> (sum, count); a shard may lack a metric.

    Returns:
        Name -> mean over all shards; without those whose count is 0.
    """
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        sums, counts = zip(*(part[name] for part in parts if name in part))
        if sum(counts) > 0:
            metrics[name] = sum(sums) / sum(counts)
    return metrics


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    # Each module by itself: a network may keep frozen parts of it in evaluation mode during training.
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
