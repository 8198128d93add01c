"""The training loop, for any `TrainingTask` and `BatchSource`."""

import logging
import statistics
import time
from contextlib import ExitStack
from typing import Literal

import torch
from tqdm import tqdm

from latentsync.runtime.random_state import seed_everything
from latentsync.training.loop.curves import Curves
from latentsync.training.loop.feed import Feed
from latentsync.training.loop.finite import FiniteGuard
from latentsync.training.loop.interrupt import StopRequest
from latentsync.training.loop.options import TrainerOptions, TrainingResult
from latentsync.training.loop.processes import ProcessGroup
from latentsync.training.loop.saver import Saver
from latentsync.training.loop.schedule import lr_factor, progress_fraction
from latentsync.training.loop.task import BatchSource, ScheduledTask, TrainingTask
from latentsync.training.loop.updates import Update, Updater
from latentsync.training.loop.validation import validate

logger = logging.getLogger(__name__)

End = Literal["steps", "epochs", "time", "signal"]

# Steps that are not timed: libraries select algorithms and caches fill.
_WARM_UP = 5


class Trainer:
    """Trains a task's network on a source's batches, in this process alone or together with others.

    Args:
        task: network, losses, validation.
        source: batches of this process; see `latentsync.training.loop.processes.current_shard`.
        options: see there.
    """

    def __init__(self, task: TrainingTask, source: BatchSource, options: TrainerOptions) -> None:
        self.task = task
        self.source = source
        self.options = options

    def run(self) -> TrainingResult:
        """Train until a limit is reached or a signal arrives, resuming from the run folder.

        Raises:
            ConfigError: the run folder holds a run that was made with other settings.
            CheckpointError: its states are damaged or of another network.
            TrainingError: too many non-finite steps in a row, or the disk or GPU memory is full.
        """
        with ExitStack() as stack:
            self.stop = stack.enter_context(StopRequest())
            self._start(stack)
            ended_by = self._train()
            return self._finish(ended_by)

    def _train(self) -> End:
        while (end := self._end()) is None:
            started, epoch = time.monotonic(), self.feed.epoch
            batches = self.feed.next_batches(self.stop)
            if not batches:
                continue
            fraction_done = self._fraction_done()
            if isinstance(self.task, ScheduledTask):
                self.task.set_progress(fraction_done)
            lr_scale = self._lr_scale(fraction_done)
            update = self.updater.step(batches, lr_scale)
            self._record(update, epoch, len(batches), lr_scale, time.monotonic() - started)
            if _due(self.progress.step, self.options.validation_steps):
                self._validate()
            if self._save_due():
                self._save()
        return end

    def _start(self, stack: ExitStack) -> None:
        options, task = self.options, self.task
        processes = ProcessGroup(options.mixed_precision, options.cpu, options.find_unused_parameters)
        self.processes = processes
        stack.callback(processes.close, task.network)
        seed_everything(options.seed + processes.shard.rank)
        self.feed = Feed(self.source, options.update.gradient_accumulation_steps, processes)
        stack.callback(self.feed.close)
        task.to(processes.device)
        task.network.train()
        self.updater = Updater(task, options.update, processes, options.compile)
        self.saver = Saver(options, processes, self.updater, self.feed)
        self.progress = self.saver.resume()
        self._saved_seconds = self.progress.seconds
        self.guard = FiniteGuard(options.update.max_skipped_in_row, self.progress.skipped)
        self.curves = Curves(options.run_folder, task.name, options.log_steps)
        stack.callback(self.curves.close)
        processes.run_on_main(lambda: self.curves.start(self.progress.step, self.progress.pending))
        self.last_step = self._last_step()
        shown = processes.is_main and options.progress
        self.bar = tqdm(total=self.last_step, initial=self.progress.step, unit="step", disable=not shown)
        stack.callback(self.bar.close)
        self._step_seconds: list[float] = []
        if processes.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(processes.device)
        self._start_time = time.monotonic() - self.progress.seconds

    def _last_step(self) -> int | None:
        by_epochs = self.options.max_train_epochs * self.feed.updates_per_epoch
        return min((limit for limit in (self.options.max_train_steps, by_epochs) if limit > 0), default=None)

    def _end(self) -> End | None:
        """Why to end now, the same in all processes."""
        options, now = self.options, time.monotonic() - self._start_time
        stopped, self.progress.seconds = self.processes.all_reduce_max([self.stop.requested, now])
        if stopped:
            logger.warning("%s: saving after step %d.", self.stop.name or "Stop of a process", self.progress.step)
            return "signal"
        if 0 < options.max_train_steps <= self.progress.step:
            return "steps"
        if 0 < options.max_train_epochs <= self.feed.epoch:
            return "epochs"
        if 0 < options.max_train_seconds <= self.progress.seconds:
            return "time"
        return None

    def _fraction_done(self) -> float:
        progress, max_seconds = self.progress, self.options.max_train_seconds
        warmup = self.options.update.lr_warmup_steps
        return progress_fraction(progress.step, self.last_step, progress.seconds, max_seconds, warmup)

    def _lr_scale(self, fraction_done: float) -> float:
        update = self.options.update
        step, warmup_fraction = self.progress.step, update.lr_warmup_fraction
        return lr_factor(update.lr_scheduler, update.lr_warmup_steps, step, fraction_done, warmup_fraction)

    def _record(self, update: Update, epoch: int, batches: int, lr_scale: float, seconds: float) -> None:
        progress = self.progress
        progress.step += 1
        self._step_seconds.append(seconds)
        self.guard.note(progress.step, update, self.saver.checkpoints.newest)
        progress.skipped = self.guard.skipped
        if not self.processes.is_main:
            return
        facts = {
            "lr": self.updater.peak_lr * lr_scale,
            "step_seconds": seconds,
            "samples": batches * self.options.batch_size * self.processes.shard.world_size,
            "seconds": time.monotonic() - self._start_time,
            "skipped": progress.skipped,
        }
        self.curves.add(progress.step, epoch, update, facts)
        self.bar.update()
        self.bar.set_postfix(loss=f"{update.terms['total']:.4g}", lr=f"{facts['lr']:.2g}", refresh=False)

    def _validate(self) -> None:
        folder, step = self.options.run_folder / "samples", self.progress.step
        metrics = validate(self.task, self.updater.ema, self.processes, folder, step)
        if self.processes.is_main:
            self.curves.add_validation(step, self.feed.epoch, metrics)
            self.curves.draw()

    def _save_due(self) -> bool:
        """Whether to save now, the same in all processes."""
        options = self.options.checkpoints
        by_time = 0 < options.save_ckpt_seconds <= self.progress.seconds - self._saved_seconds
        return by_time or _due(self.progress.step, options.save_ckpt_steps)

    def _save(self) -> None:
        self._saved_seconds = self.progress.seconds
        self.progress.pending = self.curves.pending
        self.saver.save(self.progress)
        if self.processes.is_main:
            self.curves.draw()

    def _finish(self, ended_by: End) -> TrainingResult:
        progress, saver = self.progress, self.saver
        if ended_by != "signal":
            self.curves.flush()
            validated = self.processes.run_on_main(lambda: self.curves.validated_step == progress.step)
            if self.options.validation_steps and not validated:
                self._validate()
        if saver.step != progress.step:
            self._save()
        problems = saver.problems()
        self._report(problems)
        cuda = self.processes.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.processes.device) if cuda else 0
        times = self._step_seconds[_WARM_UP:]
        return TrainingResult(
            steps=progress.step,
            ended_by=ended_by,
            seconds=progress.seconds,
            checkpoint=saver.checkpoint,
            weights=saver.weights,
            skipped=progress.skipped,
            problems=problems,
            steps_per_second=1.0 / statistics.median(times) if times else 0.0,
            peak_cuda_bytes=int(self.processes.all_reduce_max([peak])[0]),
        )

    def _report(self, problems: dict[str, str]) -> None:
        if not self.processes.is_main:
            return
        logger.info("%d steps done, %d of them skipped.", self.progress.step, self.progress.skipped)
        logger.info("Weights: %s", self.saver.weights)
        logger.info("Charts: %s", self.curves.draw())
        if problems:
            logger.warning("%d clips could not be used, listed in %s:", len(problems), self.saver.bad_clips)
        for clip, reason in problems.items():
            logger.warning("  %s: %s", clip, reason)


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0
