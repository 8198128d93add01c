"""Metrics of a run over its steps: JSON lines, TensorBoard, charts."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentsync.errors import DependencyError
from latentsync.runtime.advice import install_command
from latentsync.training.loop.updates import Update
from latentsync.training.reporting.charts import draw_charts

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class Curves:
    """Writes ``curves.jsonl``, ``tensorboard/`` and ``charts/NAME.png`` in a run's folder.

    A line is either ``{"step", "epoch", "train": {term: mean}, "lr", "grad_norm", ...}``, the mean of the steps since
    the line before, or ``{"step", "epoch", "validation": {metric: mean}}``. Non-finite values are null.

    Args:
        run: the run's folder.
        name: of the chart.
        log_steps: steps that a line is the mean of.

    Attributes:
        validated_step: step of the last validation line; -1 = none.
    """

    def __init__(self, run: Path, name: str, log_steps: int) -> None:
        self.run = run
        self.file = run / "curves.jsonl"
        self.name = name
        self.log_steps = log_steps
        self.validated_step = -1
        self._pending: dict[str, Any] = _nothing()
        self._undrawn = True
        self._board: SummaryWriter | None = None

    def start(self, step: int, pending: Mapping[str, Any] | None) -> None:
        """Resume after a step: drop the lines of later steps.

        Args:
            step: 0 at the start.
            pending: what `pending` was then.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise DependencyError(f"Training needs tensorboard. Install it with: {install_command('train')}") from error
        self.run.mkdir(parents=True, exist_ok=True)
        lines = [line for line in read_curves(self.file) if line["step"] <= step]
        _rewrite(self.file, lines)
        self.validated_step = max((line["step"] for line in lines if "validation" in line), default=-1)
        already_logged = any(line["step"] == step for line in lines if "train" in line)
        if pending is not None and not already_logged:
            self._pending = {**pending, "terms": dict(pending["terms"])}
        self._board = SummaryWriter(str(self.run / "tensorboard"), purge_step=step + 1)

    @property
    def pending(self) -> dict[str, Any]:
        """Sums over the steps not written yet; plain values, for the state of the run."""
        return self._pending

    def add(self, step: int, epoch: int, update: Update, facts: Mapping[str, float]) -> None:
        """Record a step, and write a line every ``log_steps``.

        Args:
            step: number of the step, from 1.
            epoch: it was in.
            update: its result.
            facts: "lr", "step_seconds", "samples", and "seconds" and "skipped" over the whole run.
        """
        sums = self._pending
        sums["steps"] += 1
        sums["step_seconds"] += facts["step_seconds"]
        sums["samples"] += facts["samples"]
        sums["latest"] = {"step": step, "epoch": epoch, **{name: facts[name] for name in ("lr", "seconds", "skipped")}}
        if update.applied:
            sums["applied"] += 1
            sums["grad_norm"] += update.grad_norm
            for name, value in update.terms.items():
                sums["terms"][name] = sums["terms"].get(name, 0.0) + value
        if sums["steps"] >= self.log_steps:
            self.flush()

    def flush(self) -> None:
        """Write the line of the steps since the last one, if there are any."""
        sums, self._pending = self._pending, _nothing()
        if not sums["steps"]:
            return
        latest, applied = sums["latest"], max(sums["applied"], 1)
        line = {
            "step": latest["step"],
            "epoch": latest["epoch"],
            "train": {name: value / applied for name, value in sums["terms"].items()},
            "lr": latest["lr"],
            "grad_norm": sums["grad_norm"] / applied if sums["applied"] else None,
            "samples_per_second": round(sums["samples"] / max(sums["step_seconds"], 1e-9), 3),
            "seconds": round(latest["seconds"], 3),
            "skipped": latest["skipped"],
        }
        self._write(line)
        words = " ".join(f"{name} {value:.5g}" for name, value in line["train"].items())
        logger.info("step %d: %s, lr %.3g, %.3g samples/s", line["step"], words, line["lr"], line["samples_per_second"])

    def add_validation(self, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write a line of validation metrics."""
        self.validated_step = step
        self._write({"step": step, "epoch": epoch, "validation": dict(metrics)})
        logger.info("step %d: validation %s", step, " ".join(f"{name} {value:.5g}" for name, value in metrics.items()))

    def draw(self) -> Path:
        """Draw the charts of all lines, unless they are up to date; returns the image file."""
        path = self.run / "charts" / f"{self.name}.png"
        if not self._undrawn:
            return path
        self._undrawn = False
        try:
            draw_charts(read_curves(self.file), path, self.name)
        except OSError as error:
            logger.warning("Cannot draw the charts: %s", error)
        return path

    def close(self) -> None:
        """Flush and close TensorBoard's files."""
        board, self._board = self._board, None
        try:
            if board is not None:
                board.close()
        except OSError as error:
            logger.warning("Cannot write for TensorBoard: %s", error)

    def _write(self, line: Mapping[str, Any]) -> None:
        clean = _finite(line)
        self._undrawn = True
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(clean, allow_nan=False) + "\n")
        except OSError as error:
            # A full disk ends the run when a state is saved; metrics alone do not justify it.
            logger.warning("Cannot write the metrics of step %d: %s", line["step"], error)
        try:
            self._show_on_board(clean)
        except OSError:
            self.close()  # its writer has stopped for good

    def _show_on_board(self, line: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        for name, value in line.items():
            metrics = (
                {f"{name}/{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
            )
            for tag, metric in metrics.items():
                if tag not in ("step", "epoch") and metric is not None:
                    self._board.add_scalar(tag, metric, line["step"])


def read_curves(file: Path) -> list[dict[str, Any]]:
    """Lines of a ``curves.jsonl``; a truncated one, left by a killed process, is skipped.

    Returns:
        As `Curves` describes them; empty if there is no file.
    """
    lines: list[dict[str, Any]] = []
    for text in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            logger.warning("%s: skipping a truncated line: %.40s", file, text)
    return lines


def _nothing() -> dict[str, Any]:
    zero = {"steps": 0, "applied": 0, "grad_norm": 0.0, "step_seconds": 0.0, "samples": 0}
    return {**zero, "terms": {}, "latest": {}}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rewrite(file: Path, lines: list[dict[str, Any]]) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    os.replace(partial, file)
