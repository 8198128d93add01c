"""What a training stage leaves: a log with one JSON object a line, figures, and weights in half precision."""

import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

import torch
from safetensors.torch import save_file
from torch import Tensor

logger = logging.getLogger(__name__)


class RunLog:
    """Appends figures to ``<folder>/<stage>.jsonl`` and repeats them to the module's logger.

    Args:
        folder: made if missing.
        stage: name in front of every line.
    """

    def __init__(self, folder: Path, stage: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{stage}.jsonl"
        self.stage = stage
        self._start = monotonic()

    def write(self, **metrics: float | int | str) -> None:
        """Log one line; floats are rounded to five significant digits."""
        line: dict[str, float | int | str] = {"seconds": round(monotonic() - self._start, 1)}
        line.update({name: _rounded(value) for name, value in metrics.items()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        logger.info("%s %s", self.stage, " ".join(f"{name}={value}" for name, value in line.items()))


def _rounded(value: float | int | str) -> float | int | str:
    return float(f"{value:.5g}") if isinstance(value, float) and math.isfinite(value) else value


def write_json(path: Path, metrics: Mapping[str, object]) -> None:
    """Write figures to ``path``, adding to those an earlier stage left there; atomic."""
    earlier = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        partial = Path(folder) / path.name
        partial.write_text(json.dumps({**earlier, **metrics}, indent=1), "utf-8")
        os.replace(partial, path)


def save_half(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict as fp16 safetensors; the file appears under its name only when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in state.items()}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        partial = Path(folder) / path.name
        save_file(half, partial, metadata=dict(metadata) if metadata else None)
        os.replace(partial, path)
