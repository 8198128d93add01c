"""One training step's bookkeeping: float32 master weights, gradient clipping, AdamW, moving average.

The network itself may live in bfloat16, so that every operation (group norms too, which autocast would widen) moves
half the bytes; rounding never accumulates because the update is applied to the float32 masters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentsync.errors import ConfigError


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights are updated.

    Attributes:
        lr: peak learning rate.
        weight_decay: AdamW's decoupled decay.
        max_grad_norm: gradients are scaled down to this norm.
        ema_decay: decay of the moving average per step; early on it is shorter.
        betas: AdamW's moment decays.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.max_grad_norm <= 0 or not 0 <= self.ema_decay < 1:
            raise ConfigError(f"Optimizer: lr and max_grad_norm above 0 and ema_decay in [0, 1) are needed, got {self}")


class MasterOptimizer:
    """AdamW on float32 copies of a module's parameters, with a moving average of them.

    Args:
        module: converted to ``dtype`` in place.
        options: see there.
        dtype: precision in which the module computes.
    """

    def __init__(self, module: nn.Module, options: OptimizerOptions, dtype: torch.dtype) -> None:
        self.module = module
        self.options = options
        self.names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.masters = [parameter.detach().float().clone() for parameter in self.parameters]
        self.averages = [master.clone() for master in self.masters]
        self._exact_buffers = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
        module.to(dtype)
        decayed = [master for master in self.masters if master.ndim > 1]
        plain = [master for master in self.masters if master.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=options.lr,
            betas=options.betas,
            fused=self.masters[0].is_cuda,
        )
        self.steps = 0
        self.skipped = 0

    def step(self, loss: Tensor, lr_factor: float) -> bool:
        """Back-propagate ``loss`` (a scalar) and update at ``lr_factor`` times the peak rate.

        Returns False, leaving all weights as they are, when the gradient is not finite.
        """
        loss.backward()
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            master.grad = torch.zeros_like(master) if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = nn.utils.clip_grad_norm_(self.masters, self.options.max_grad_norm)
        if not torch.isfinite(norm):
            self.skipped += 1
            return False
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.lr * lr_factor
        self.optimizer.step()
        self.steps += 1
        decay = min(self.options.ema_decay, self.steps / (self.steps + 9.0))
        with torch.no_grad():
            torch._foreach_copy_([parameter.data for parameter in self.parameters], self.masters)
            torch._foreach_lerp_(self.averages, self.masters, 1.0 - decay)
        return True

    def averaged_state(self) -> dict[str, Tensor]:
        """The module's state dict with the moving averages in place of the parameters, float32, not shared."""
        state = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        state.update({name: buffer.clone() for name, buffer in self._exact_buffers.items() if name in state})
        state.update({name: average.clone() for name, average in zip(self.names, self.averages, strict=True)})
        return state
