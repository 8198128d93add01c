"""Weights in the layout of the published files."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def save_published(state_dict: Mapping[str, Tensor], path: Path, step: int) -> Path:
    """Write ``{"state_dict": ..., "global_step": step}``; the file appears under its name only when complete.

    Args:
        state_dict: entry -> tensor, written as they are, from the CPU.
        path: of the file; its folder exists.
        step: updates so far.

    Returns:
        ``path``.
    """
    tensors = {key: value.detach().to("cpu").contiguous() for key, value in state_dict.items()}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        partial = Path(folder) / path.name
        torch.save({"state_dict": tensors, "global_step": step}, partial)
        os.replace(partial, path)
    return path
