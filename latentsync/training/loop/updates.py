"""One update of the weights: accumulated, clipped gradients, applied by AdamW if they are finite."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentsync.errors import CheckpointError, ConfigError, TrainingError
from latentsync.training.loop.ema import Ema
from latentsync.training.loop.options import UpdateOptions
from latentsync.training.loop.processes import ProcessGroup
from latentsync.training.loop.task import TrainingTask


@dataclass(frozen=True)
class Update:
    """Result of a step.

    Attributes:
        terms: mean of each loss term over batches and processes.
        grad_norm: global norm of the gradient before clipping.
        applied: whether the weights were changed; not if the loss or the gradient is not finite.
    """

    terms: dict[str, float]
    grad_norm: float
    applied: bool


class Updater:
    """The network in training, its optimizer and its average.

    Args:
        task: its network is moved to the processes' device.
        options: how to update.
        processes: that train together.
        compile_network: run the network through ``torch.compile``.

    Raises:
        ConfigError: the network has nothing to train, or weights that are not float32.
    """

    def __init__(
        self, task: TrainingTask, options: UpdateOptions, processes: ProcessGroup, compile_network: bool = False
    ) -> None:
        self.task = task
        self.options = options
        self.processes = processes
        self.trained = {name: value for name, value in task.network.named_parameters() if value.requires_grad}
        self._check_trained()
        self.network = processes.wrap(task.network)
        if compile_network:
            # In place, so that the names in the state dict stay what they are.
            task.network.compile()
        self.ema = self._make_ema() if options.ema_decay > 0 else None
        self.optimizer = self._make_optimizer()
        self.scaler: torch.amp.GradScaler | None = processes.accelerator.scaler

    def step(self, batches: Sequence[Any], lr_factor: float) -> Update:
        """Update once from the mean gradient of the batches, at ``lr_factor`` times the peak learning rate.

        The same in all processes: either all change their weights or none.

        Raises:
            TrainingError: the GPU's memory is full, or parameters got no gradient where several processes need one.
        """
        try:
            sums = self._gradients(batches)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"The GPU's memory is full in a training step ({error}). Lower data.batch_size and raise "
                "gradient_accumulation_steps by as much, or turn on gradient checkpointing."
            ) from error
        except RuntimeError as error:
            if "find_unused_parameters" not in str(error):
                raise
            raise TrainingError(
                "Some trained parameters got no gradient in the last step, which several processes cannot deal with by "
                "themselves. Set find_unused_parameters, or freeze the parameters that the losses do not reach."
            ) from error
        norm = self._clip()
        # The one moment at which the processor waits for the GPU.
        *means, grad_norm = self.processes.mean(torch.stack([*sums.values(), norm.to(sums["total"])])).tolist()
        terms = {name: value / len(batches) for name, value in zip(sums, means)}
        applied = math.isfinite(grad_norm) and math.isfinite(terms["total"])
        self._apply(applied, lr_factor)
        return Update(terms, grad_norm, applied)

    def _gradients(self, batches: Sequence[Any]) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, start=1):
            last = number == len(batches)
            with nullcontext() if last else self.processes.accelerator.no_sync(self.network):
                terms = self.task.losses(self.network, batch)
                self.processes.accelerator.backward(terms["total"] / len(batches))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float()
        return sums

    def _clip(self) -> Tensor:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        gradients = [value.grad for value in self.trained.values() if value.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.options.max_grad_norm > 0:
            nn.utils.clip_grads_with_norm_(self.trained.values(), self.options.max_grad_norm, norm)
        return norm

    def _apply(self, applied: bool, lr_factor: float) -> None:
        if applied:
            for group in self.optimizer.param_groups:
                group["lr"] = self.peak_lr * lr_factor
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
            if self.ema is not None:
                self.ema.update()
        if self.scaler is not None:
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def peak_lr(self) -> float:
        """Learning rate at factor 1."""
        return self.options.lr * (self.processes.shard.world_size if self.options.scale_lr else 1)

    def weights(self) -> dict[str, Tensor]:
        """The weights to export: the state dict, averaged if the run has an average; memory is shared."""
        return dict(self.task.network.state_dict()) if self.ema is None else self.ema.averaged_state()

    def state_dict(self) -> dict[str, Any]:
        """Network, average, optimizer (by parameter names) and loss scale."""
        by_number = self.optimizer.state_dict()["state"]
        return {
            "network": self.task.network.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": {name: by_number[number] for number, name in enumerate(self._order) if number in by_number},
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; learning rate, decay and the like come from the current options.

        Raises:
            CheckpointError: it is of another network.
        """
        try:
            self.task.network.load_state_dict(state["network"])
        except RuntimeError as error:
            raise CheckpointError(f"The run was saved with another network than the present one: {error}") from error
        saved = state["optimizer"]
        strangers = sorted(saved.keys() - set(self._order))
        if strangers:
            raise CheckpointError(f"The run was saved while other parameters were trained, as {strangers[:3]}.")
        numbered = {number: saved[name] for number, name in enumerate(self._order) if name in saved}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": numbered})
        if self.ema is not None:
            if state["ema"] is None:
                self.ema = self._make_ema()
            else:
                self.ema.load_state_dict(state["ema"])
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _check_trained(self) -> None:
        if not self.trained:
            raise ConfigError("The network has no parameter with requires_grad: nothing would be trained.")
        odd = [name for name, value in self.trained.items() if value.dtype != torch.float32]
        if odd:
            raise ConfigError(
                f"Trained parameters must be float32 (mixed precision is for the forward pass only), but {odd[0]!r} is "
                f"{self.trained[odd[0]].dtype}."
            )

    def _make_ema(self) -> Ema:
        on = torch.device("cpu") if self.options.ema_on_cpu else None
        return Ema(self.task.network, self.options.ema_decay, on)

    def _make_optimizer(self) -> torch.optim.AdamW:
        decayed = [name for name, value in self.trained.items() if value.ndim > 1 or self.options.decay_vectors]
        plain = [name for name in self.trained if name not in set(decayed)]
        self._order = decayed + plain
        groups = [(decayed, self.options.weight_decay), (plain, 0.0)]
        return torch.optim.AdamW(
            [
                {"params": [self.trained[name] for name in names], "weight_decay": decay}
                for names, decay in groups
                if names
            ],
            lr=self.peak_lr,
            betas=self.options.betas,
            eps=self.options.eps,
            fused=self.processes.device.type == "cuda",
        )
