"""Steps that need each other, run as processes as soon as they can, and gone on with after an end before the end."""

import logging
import os
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from latentsync.errors import ConfigError, TrainingError

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_LAST_LINES = 15


@dataclass(frozen=True)
class Step:
    """One process.

    Attributes:
        name: of the step, of its log and of the mark that it is done.
        command: gives the argument list; called when the step starts, so that it may look for files of earlier steps.
        needs: names of the steps before it.
        environment: what differs from this process's.
    """

    name: str
    command: Callable[[], Sequence[str]]
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class StepGraph:
    """Runs steps, each once all that it needs is done; those that do not need each other run side by side.

    A step that is done leaves a mark in ``folder/done`` and is not run again; its output goes to ``folder/logs``.

    Args:
        steps: in any order.
        folder: of the run; made if missing.

    Raises:
        ConfigError: two steps have one name, or a step needs one that is not there or that needs it in turn.
    """

    def __init__(self, steps: Sequence[Step], folder: Path) -> None:
        self.steps = {step.name: step for step in steps}
        self.folder = folder
        if len(self.steps) != len(steps):
            raise ConfigError(f"Two steps have one name: {sorted(step.name for step in steps)}")
        self._check_order()

    def run(self) -> None:
        """Run what is not done.

        Raises:
            TrainingError: a step failed; the others are ended, and another run goes on with what is not done.
        """
        for name in ("logs", "done"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        done = {name for name in self.steps if self._mark(name).exists()}
        if done:
            logger.info("done before: %s", ", ".join(sorted(done)))
        running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            while len(done) < len(self.steps):
                ready = [step for step in self.steps.values() if done.issuperset(step.needs)]
                waiting = [step for step in ready if step.name not in done | running.keys()]
                for step in waiting:
                    running[step.name] = self._start(step)
                for name in [name for name, process in running.items() if process.poll() is not None]:
                    self._finish(name, running.pop(name).returncode)
                    done.add(name)
                time.sleep(_POLL_SECONDS)
        finally:
            _end(running.values())

    def _start(self, step: Step) -> subprocess.Popen[bytes]:
        command = list(step.command())
        logger.info("%s: %s", step.name, " ".join(command))
        with self._log(step.name).open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **step.environment}
            )

    def _finish(self, name: str, code: int) -> None:
        if code != 0:
            lines = self._log(name).read_text("utf-8", "replace").splitlines()[-_LAST_LINES:]
            raise TrainingError(
                f"Step {name} failed with exit code {code}. The end of {self._log(name)}:\n" + "\n".join(lines)
            )
        self._mark(name).touch()
        logger.info("%s: done", name)

    def _mark(self, name: str) -> Path:
        return self.folder / "done" / name

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def _check_order(self) -> None:
        placed: set[str] = set()
        while len(placed) < len(self.steps):
            free = {name for name, step in self.steps.items() if placed.issuperset(step.needs)} - placed
            if not free:
                stuck = {name: step.needs for name, step in self.steps.items() if name not in placed}
                raise ConfigError(
                    f"These steps can never start, since what they need is missing or needs them: {stuck}"
                )
            placed |= free


def _end(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """Ask all to end, and wait until they have."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
