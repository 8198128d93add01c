"""A graph of steps that run as parallel processes as soon as their dependencies are done, and can be resumed.

Task runners such as doit do not serve here: when a step fails they wait for those in progress, which may be hours of
training, where this one ends them at once (trainings then save), and they write no log per step.
"""

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
        name: of the step, its log and its mark in ``done``.
        command: gives the argument list; called when the step starts, so that it can look up files of earlier steps.
        needs: names of the steps it depends on.
        environment: variables that override those of this process.
    """

    name: str
    command: Callable[[], Sequence[str]]
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class StepGraph:
    """Runs steps, each as soon as its dependencies are done, in parallel where possible.

    A finished step leaves a mark in ``folder/done`` and is not run again; its output goes to ``folder/logs``.

    Args:
        steps: in any order.
        folder: of the run; made if missing.

    Raises:
        ConfigError: two steps share a name, or a dependency is missing or circular.
    """

    def __init__(self, steps: Sequence[Step], folder: Path) -> None:
        self.steps = {step.name: step for step in steps}
        self.folder = folder
        if len(self.steps) != len(steps):
            raise ConfigError(f"Two steps have one name: {sorted(step.name for step in steps)}")
        self._check_order()

    def run(self) -> None:
        """Run the unfinished steps.

        Raises:
            TrainingError: a step failed; the others are terminated, and another call resumes with the unfinished steps.
        """
        for name in ("logs", "done"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        done = {name for name in self.steps if self._mark(name).exists()}
        if done:
            logger.info("already done: %s", ", ".join(sorted(done)))
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
    """Terminate all and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
