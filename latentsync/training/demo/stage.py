"""What every training stage is given: where to compute, for how long, where to write."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from latentsync.training.demo.time_budget import Every, TimeBudget


@dataclass
class StageContext:
    """Surroundings of one stage.

    Attributes:
        device: where everything runs.
        seconds: the stage's time budget.
        folder: for logs, figures and sheets.
        checkpoint_folder: for the trained files.
        seed: of all random numbers.
        max_steps: ends the stage after so many steps, 0 = by time only.
        log_seconds, save_seconds: how often figures are logged and files are saved.
    """

    device: torch.device
    seconds: float
    folder: Path
    checkpoint_folder: Path
    seed: int = 0
    max_steps: int = 0
    log_seconds: float = 5.0
    save_seconds: float = 60.0
    generator: torch.Generator = field(init=False)
    log_due: Every = field(init=False)
    save_due: Every = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.device).manual_seed(self.seed)
        self.log_due = Every(self.log_seconds)
        self.save_due = Every(self.save_seconds)

    @property
    def half(self) -> bool:
        """Whether to compute in bfloat16: not on the CPU, where it is slower."""
        return self.device.type != "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """The networks' precision."""
        return torch.bfloat16 if self.half else torch.float32

    def budget(self) -> TimeBudget:
        """Start the stage's clock."""
        return TimeBudget(self.seconds, self.max_steps)
