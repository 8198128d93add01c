"""Options and result of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from latentsync.errors import ConfigError

MixedPrecision = Literal["auto", "no", "bf16", "fp16"]
Schedule = Literal["constant", "cosine", "linear"]
Resume = Literal["auto", "never", "must"]


@dataclass(frozen=True)
class UpdateOptions:
    """How weights are updated.

    Attributes:
        lr: peak learning rate of AdamW.
        betas: AdamW's moment decays.
        eps: AdamW's epsilon.
        weight_decay: AdamW's decoupled decay.
        decay_vectors: whether parameters with one dimension (biases, norms) decay too.
        scale_lr: multiply ``lr`` by the number of processes.
        lr_scheduler: "constant", or decay to 0 at the end of the run, "cosine" or "linear".
        lr_warmup_steps: steps in which the rate rises from near 0.
        lr_warmup_fraction: fraction of the run, in steps or time, in which it rises; for runs that end by time.
        max_grad_norm: gradients are scaled down to this global norm; 0 = never.
        gradient_accumulation_steps: batches per update; the last update of an epoch may have fewer.
        ema_decay: decay of the moving average of the weights per step; 0 = no average.
        ema_on_cpu: keep the average in main memory, which costs a copy per step.
        max_skipped_in_row: the run aborts after this many consecutive non-finite steps.
    """

    lr: float = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay_vectors: bool = True
    scale_lr: bool = False
    lr_scheduler: Schedule = "constant"
    lr_warmup_steps: int = 0
    lr_warmup_fraction: float = 0.0
    max_grad_norm: float = 1.0
    gradient_accumulation_steps: int = 1
    ema_decay: float = 0.0
    ema_on_cpu: bool = False
    max_skipped_in_row: int = 20

    def __post_init__(self) -> None:
        _require("optimizer.lr", self.lr, "above 0", self.lr > 0)
        _require("optimizer.max_grad_norm", self.max_grad_norm, "0 (off) or above", self.max_grad_norm >= 0)
        _require("optimizer.lr_warmup_steps", self.lr_warmup_steps, "0 or above", self.lr_warmup_steps >= 0)
        fraction = self.lr_warmup_fraction
        _require("optimizer.lr_warmup_fraction", fraction, "0 (off) up to below 1", 0 <= fraction < 1)
        _require("run.ema_decay", self.ema_decay, "0 (off) up to below 1", 0 <= self.ema_decay < 1)
        _require("optimizer.weight_decay", self.weight_decay, "0 or above", self.weight_decay >= 0)
        _require("optimizer.max_skipped_in_row", self.max_skipped_in_row, "at least 1", self.max_skipped_in_row >= 1)
        accumulation = self.gradient_accumulation_steps
        _require("run.gradient_accumulation_steps", accumulation, "at least 1", accumulation >= 1)
        schedules = ("constant", "cosine", "linear")
        _require("optimizer.lr_scheduler", self.lr_scheduler, f"one of {schedules}", self.lr_scheduler in schedules)


@dataclass(frozen=True)
class CheckpointOptions:
    """When a run is saved, and which states are kept.

    Attributes:
        save_ckpt_steps: steps between saves; 0 = at the end only.
        save_ckpt_seconds: seconds of training between saves, beside those by steps; 0 = none.
        keep_last: newest states kept; -1 = all.
        keep_every: states at multiples of this step are kept as well; 0 = none.
        resume: "auto" resumes from the run folder if it holds a state, "must" fails if it holds none, "never" fails if
            it holds one.
    """

    save_ckpt_steps: int = 1000
    save_ckpt_seconds: float = 0.0
    keep_last: int = 3
    keep_every: int = 0
    resume: Resume = "auto"

    def __post_init__(self) -> None:
        _require("ckpt.save_ckpt_steps", self.save_ckpt_steps, "0 (off) or above", self.save_ckpt_steps >= 0)
        seconds = self.save_ckpt_seconds
        _require("ckpt.save_ckpt_seconds", seconds, "0 (off) or above", seconds >= 0)
        kept = self.keep_last == -1 or self.keep_last >= 1
        _require("ckpt.keep_ckpts / keep_last", self.keep_last, "-1 (all) or at least 1", kept)
        _require("ckpt.keep_every", self.keep_every, "0 (off) or above", self.keep_every >= 0)
        choices = ("auto", "never", "must")
        _require("ckpt.resume", self.resume, f"one of {choices}", self.resume in choices)


@dataclass(frozen=True)
class TrainerOptions:
    """Options of a run.

    Attributes:
        run_folder: holds everything the run writes.
        update: how weights are updated.
        checkpoints: when the run is saved.
        max_train_steps: updates; -1 = no limit.
        max_train_epochs: passes over the data; -1 = no limit.
        max_train_seconds: seconds of training, resumed parts included, after which the run is saved and ends; 0 = no
            limit. A decaying schedule follows time or steps, whichever is further.
        validation_steps: steps between validations, with one at the end; 0 = never.
        log_steps: steps averaged in one line of the curves.
        batch_size: samples per batch and process, for the samples per second.
        mixed_precision: of the network's forward pass: "auto" is bf16 where the GPU has it, else fp16; "no" on a CPU.
        cpu: ignore a GPU.
        compile: use ``torch.compile``.
        find_unused_parameters: with several processes: allow trained parameters without a gradient.
        seed: of Python's, numpy's and torch's generators; each process adds its rank.
        config: resolved configuration that the run is to be resumed with; plain values only.
        default_config: its defaults, which runs saved before a key existed had.
        mutable_keys: dotted keys of it, or sections, that may differ when the run is resumed.
        progress: show a progress bar.
    """

    run_folder: Path
    update: UpdateOptions = field(default_factory=UpdateOptions)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    max_train_steps: int = -1
    max_train_epochs: int = -1
    max_train_seconds: float = 0.0
    validation_steps: int = 0
    log_steps: int = 10
    batch_size: int = 1
    mixed_precision: MixedPrecision = "auto"
    cpu: bool = False
    compile: bool = False
    find_unused_parameters: bool = False
    seed: int = 1247
    config: Mapping[str, Any] = field(default_factory=dict)
    default_config: Mapping[str, Any] = field(default_factory=dict)
    mutable_keys: tuple[str, ...] = ()
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("max_train_steps", "max_train_epochs"):
            value = getattr(self, name)
            _require(f"run.{name}", value, "-1 (no limit) or at least 1", value == -1 or value >= 1)
        _require("run.max_train_seconds", self.max_train_seconds, "0 (no limit) or above", self.max_train_seconds >= 0)
        _require("run.validation_steps", self.validation_steps, "0 (never) or above", self.validation_steps >= 0)
        # -1 draws a fresh seed in inference; a run that can be resumed needs a fixed one.
        _require("run.seed", self.seed, "0 to 2^32 - 1", 0 <= self.seed < 2**32)
        _require("run.log_steps", self.log_steps, "at least 1", self.log_steps >= 1)
        choices = ("auto", "no", "bf16", "fp16")
        _require("run.mixed_precision", self.mixed_precision, f"one of {choices}", self.mixed_precision in choices)
        if self.max_train_steps == -1 and self.max_train_epochs == -1 and self.max_train_seconds == 0:
            raise ConfigError(
                "Nothing would end this run: set run.max_train_steps, run.max_train_epochs or run.max_train_seconds."
            )


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        steps: updates, resumed parts and skipped steps included.
        ended_by: "steps", "epochs", "time" or "signal".
        seconds: of training, resumed parts included.
        checkpoint: folder of the last state.
        weights: file in the published layout inside it.
        skipped: steps whose loss or gradient was not finite.
        problems: unusable clips of all processes: path -> reason.
        steps_per_second: median since the last start, without the first steps; 0 if there were none.
        peak_cuda_bytes: most memory that tensors took on one GPU; 0 on a CPU.
    """

    steps: int
    ended_by: Literal["steps", "epochs", "time", "signal"]
    seconds: float
    checkpoint: Path
    weights: Path
    skipped: int
    problems: Mapping[str, str]
    steps_per_second: float
    peak_cuda_bytes: int


def _require(name: str, value: object, expected: str, fulfilled: bool) -> None:
    if not fulfilled:
        raise ConfigError(f"{name} is {value!r}; expected {expected}.")
