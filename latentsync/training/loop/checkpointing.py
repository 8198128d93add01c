"""Checkpoints of a run on disk: written atomically, pruned, and skipped if damaged."""

import logging
import os
import pickle
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from latentsync.errors import CheckpointError, TrainingError
from latentsync.training.loop.options import CheckpointOptions

logger = logging.getLogger(__name__)

STATE_FILE = "state.pt"
FORMAT = 1
_NAME = re.compile(r"step_(\d{8,})")
_UNFINISHED = ".unfinished-"
_MARGIN = 1 << 20


class RunCheckpoints:
    """The folder ``checkpoints`` of a run, with one folder per state: ``step_00000500``.

    Args:
        folder: made at the first save.
        options: what is kept.
    """

    def __init__(self, folder: Path, options: CheckpointOptions) -> None:
        self.folder = folder
        self.options = options

    def path(self, step: int) -> Path:
        """Folder of the state of a step."""
        return self.folder / f"step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a saved state, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [_NAME.fullmatch(entry.name) for entry in self.folder.iterdir() if (entry / STATE_FILE).is_file()]
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> Path | None:
        """The newest state, unread."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def newest_readable(self) -> Path | None:
        """The newest readable state; damaged newer ones are set aside as ``damaged_step_...`` with a warning.

        Raises:
            CheckpointError: there are states, and all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            path = self.path(step)
            try:
                read_state(path)
                return path
            except CheckpointError as error:
                aside = path.with_name(f"damaged_{path.name}_{secrets.token_hex(3)}")
                os.rename(path, aside)
                logger.warning("%s It is set aside as %s; falling back to the one before.", error, aside.name)
        if steps:
            raise CheckpointError(
                f"None of the {len(steps)} states in {str(self.folder)!r} can be read. Start anew in another folder."
            )
        return None

    def check_space(self, needed: int) -> None:
        """Check the free disk space before writing.

        Args:
            needed: bytes.

        Raises:
            TrainingError: the disk has less.
        """
        existing = next(path for path in (self.folder, *self.folder.parents) if path.is_dir())
        free = shutil.disk_usage(existing).free
        if free < needed + _MARGIN:
            raise TrainingError(self._no_space(needed, free, "not enough space"))

    def save(self, step: int, needed: int, write: Callable[[Path], Path]) -> Path:
        """Write a state atomically: into a temporary folder, flushed, then renamed; and remove old states.

        Args:
            step: whose state it is.
            needed: bytes it will take.
            write: writes everything into the folder it is given, and returns one of the files.

        Returns:
            The path of that file after the rename.

        Raises:
            TrainingError: the disk is full or fails; nothing of the state is left, the earlier ones are intact.
        """
        self.check_space(needed)
        final = self.path(step)
        unfinished = self.folder / f"{_UNFINISHED}{final.name}-{secrets.token_hex(4)}"
        try:
            unfinished.mkdir(parents=True)
            file = write(unfinished).relative_to(unfinished)
            for path in [*unfinished.rglob("*"), unfinished]:
                _flush(path)
            os.rename(unfinished, final)
            _flush(self.folder)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            shutil.rmtree(unfinished, ignore_errors=True)
            free = shutil.disk_usage(self.folder if self.folder.is_dir() else "/").free
            raise TrainingError(
                self._no_space(needed, free, f"writing failed, as on a full disk ({_first_line(error)})")
            ) from error
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self._remove_old()
        return final / file

    def clean(self) -> None:
        """Remove the leftovers of interrupted saves."""
        for left in self.folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _remove_old(self) -> None:
        if self.options.keep_last == -1:
            return
        for step in self.steps()[: -self.options.keep_last]:
            if self.options.keep_every and step % self.options.keep_every == 0:
                continue
            # Renamed first: a folder half removed must not look like a state.
            going = self.folder / f"{_UNFINISHED}{secrets.token_hex(4)}"
            os.rename(self.path(step), going)
            shutil.rmtree(going, ignore_errors=True)

    def _no_space(self, needed: int, free: int, reason: str) -> str:
        good = self.newest()
        kept = f"The last good state is {str(good)!r}." if good else "There is no earlier state."
        return (
            f"Cannot save the run into {str(self.folder)!r}: {reason}. A state needs about {_megabytes(needed)}, "
            f"{_megabytes(free)} are free. {kept} Free some space or keep fewer states (ckpt.keep_ckpts), and start "
            "the same command again."
        )


def read_state(folder: Path) -> dict[str, Any]:
    """Read the state in a checkpoint's folder; tensors stay on disk until they are used.

    Raises:
        CheckpointError: it is damaged or of another version.
    """
    file = folder / STATE_FILE
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"The state {str(file)!r} is damaged ({_first_line(error)}).") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{str(file)!r} is not a training state that this version can resume from.")
    return state


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
