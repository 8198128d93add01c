"""Saving and resuming the complete state of a run."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from latentsync.errors import ConfigError, TrainingError
from latentsync.runtime.random_state import random_state, set_random_state
from latentsync.training.loop.checkpointing import FORMAT, STATE_FILE, RunCheckpoints, read_state
from latentsync.training.loop.config_check import Tolerance, check_same, flatten
from latentsync.training.loop.feed import Feed
from latentsync.training.loop.options import TrainerOptions
from latentsync.training.loop.processes import ProcessGroup
from latentsync.training.loop.updates import Updater

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: updates done, skipped ones included.
        skipped: of these, without a change.
        seconds: of training.
        pending: metrics of steps that the curves do not show yet.
    """

    step: int = 0
    skipped: int = 0
    seconds: float = 0.0
    pending: dict[str, Any] | None = None


class Saver:
    """Saves and resumes a run.

    Args:
        options: of the run.
        processes: that train together; the main one writes.
        updater: network, average, optimiser.
        feed: position in the data.

    Attributes:
        step: that was saved last; -1 = none.
        weights: file of the published layout of then.
    """

    def __init__(self, options: TrainerOptions, processes: ProcessGroup, updater: Updater, feed: Feed) -> None:
        self.options = options
        self.processes = processes
        self.updater = updater
        self.feed = feed
        self.checkpoints = RunCheckpoints(options.run_folder / "checkpoints", options.checkpoints)
        self.step = -1
        self.weights = Path()

    def resume(self) -> Progress:
        """Restore the newest state of the run folder, if any, and write the current configuration.

        Raises:
            ConfigError: it must not hold one, or must and does not, or was made with other settings.
            CheckpointError: its states are damaged or of another network.
            TrainingError: there is no room for one more state, or the folder cannot be written.
        """
        path = self.processes.run_on_main(self._state_to_resume)
        progress = Progress() if path is None else self._go_on(path)
        self.processes.run_on_main(self._write_config)
        return progress

    def _go_on(self, path: Path) -> Progress:
        state = read_state(path)
        settings = state["settings"]
        tolerance = Tolerance(self.options.mutable_keys, flatten(self.options.default_config))
        check_same(settings, self._settings(), tolerance, str(self.options.run_folder))
        self.updater.load_state_dict(state)
        if settings["batches_per_epoch"] == self.feed.batches_per_epoch:
            self.feed.seek(state["epoch"], state["batch"])
        else:
            logger.warning("The number of batches per epoch has changed: continuing with the next epoch.")
            self.feed.seek(state["epoch"] + 1, 0)
        if self.processes.shard.rank < len(state["random"]):
            set_random_state(state["random"][self.processes.shard.rank], self.processes.device)
        self.step, self.weights = state["step"], path / state["weights"]
        logger.info("Resuming after step %d, from %s", self.step, path)
        return Progress(self.step, state["skipped"], state["seconds"], state["pending"])

    def save(self, progress: Progress) -> None:
        """Save the run's state and weights, and list the clips that could not be used; all processes take part.

        Raises:
            TrainingError: the disk is full or fails; the earlier states are as they were.
        """
        problems = self.problems()
        randoms = self.processes.gather(random_state(self.processes.device))

        def write(folder: Path) -> Path:
            weights = self.updater.task.export(self.updater.weights(), folder, progress.step)
            state = {
                **self.updater.state_dict(),
                **vars(progress),
                "format": FORMAT,
                "epoch": self.feed.epoch,
                "batch": self.feed.batch,
                "random": randoms,
                "settings": self._settings(),
                "weights": str(weights.relative_to(folder)),
            }
            torch.save(state, folder / STATE_FILE)
            return weights

        def work() -> Path:
            weights = self.checkpoints.save(progress.step, self._bytes(), write)
            _write(self.bad_clips, json.dumps(problems, indent=1, ensure_ascii=False) + "\n")
            return weights

        self.weights = self.processes.run_on_main(work)
        self.step = progress.step
        logger.info("Saved step %d: %s", self.step, self.checkpoint)

    @property
    def checkpoint(self) -> Path:
        """Folder of the state saved last."""
        return self.checkpoints.path(self.step)

    @property
    def bad_clips(self) -> Path:
        """List of the clips that could not be used, JSON: path -> reason."""
        return self.options.run_folder / "bad_clips.json"

    def problems(self) -> dict[str, str]:
        """Clips that could not be used, in any process and any part of the run: path -> reason."""
        earlier = json.loads(self.bad_clips.read_text("utf-8")) if self.bad_clips.is_file() else {}
        found = self.processes.gather(dict(self.feed.source.problems()))
        merged = {clip: reason for part in [earlier, *found] for clip, reason in part.items()}
        return dict(sorted(merged.items()))

    def _state_to_resume(self) -> Path | None:
        wanted, folder = self.options.checkpoints.resume, str(self.options.run_folder)
        if wanted == "never" and self.checkpoints.newest() is not None:
            raise ConfigError(f"{folder!r} already holds a run. Give another run folder, or set resume to 'auto'.")
        self.checkpoints.clean()
        path = self.checkpoints.newest_readable()
        if wanted == "must" and path is None:
            raise ConfigError(f"There is no run to resume in {folder!r}. Check the folder, or set resume to 'auto'.")
        self.checkpoints.check_space(self._bytes())
        return path

    def _write_config(self) -> None:
        folder = self.options.run_folder
        plain = json.loads(json.dumps(dict(self.options.config), default=str))
        text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        try:
            _write(folder / "config.yaml", text)
        except OSError as error:
            raise TrainingError(
                f"Cannot write into the run folder {str(folder)!r} ({error.strerror}). Give another one, or make room."
            ) from error

    def _settings(self) -> dict[str, Any]:
        return {**flatten(self.options.config), "batches_per_epoch": self.feed.batches_per_epoch}

    def _bytes(self) -> int:
        network = sum(value.nbytes for value in self.updater.task.network.state_dict().values())
        trained = sum(value.nbytes for value in self.updater.trained.values())
        # State: network, AdamW's two moments, the average. Beside it the weights as published.
        return 2 * network + 2 * trained + (trained if self.updater.ema is not None else 0)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    # A file's name may hold bytes that are no UTF-8; they become what JSON reads as the same name.
    partial.write_text(text, "utf-8", errors="backslashreplace")
    os.replace(partial, path)
