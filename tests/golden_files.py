"""Golden files: inputs and expected outputs measured on the published system, plus the weights made from a formula.

A golden file is a ``.safetensors`` whose tensors are named ``in.<name>`` and ``out.<name>`` and whose metadata holds
``attrs`` (how the case is set up) and ``tol`` (greatest accepted difference) as JSON. Weight files hold a bare
state_dict. The cases that are too large to keep in the repository are looked for beside it and skipped when absent.
"""

import functools
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN_FOLDERS = (REPOSITORY / "tests" / "golden", REPOSITORY.parent / "shared" / "compat" / "golden")
MANIFEST_FOLDERS = (
    REPOSITORY / "tests" / "golden" / "manifests",
    REPOSITORY.parent / "shared" / "compat" / "manifests",
)
SAMPLE_FOLDER = REPOSITORY.parent / "shared" / "samples"


@dataclass(frozen=True)
class Golden:
    """One golden case: tensors by name without their prefix, set-up (`attrs`) and tolerances (`tol`)."""

    name: str
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    tol: dict[str, Any] = field(default_factory=dict)

    def check(self, output: str, actual: Tensor, atol: float | None = None) -> None:
        """Assert that `actual` has the golden output's shape and values within `atol` (default: the file's own)."""
        expected = self.outputs[output]
        limit = float(self.tol["atol"]) if atol is None else atol
        assert tuple(actual.shape) == tuple(expected.shape), f"{self.name}/{output}: shape {tuple(actual.shape)}"
        difference = (actual.detach().cpu().double() - expected.double()).abs()
        worst = float(difference.max()) if difference.numel() else 0.0
        assert worst <= limit, f"{self.name}/{output}: differs by {worst:.3g}, {limit:.3g} is allowed"


def find_file(name: str, folders: Iterable[Path]) -> Path:
    """Return the first `folder/name` that exists; skip the test when none does."""
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"{name} is neither in tests/golden nor beside the repository", allow_module_level=True)


@functools.lru_cache(maxsize=16)
def load_golden(name: str) -> Golden:
    """Load the golden case `name` (without suffix). Callers must not write into its tensors."""
    path = find_file(f"{name}.safetensors", GOLDEN_FOLDERS)
    case = Golden(name)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        case.attrs.update(json.loads(metadata.get("attrs", "{}")))
        case.tol.update(json.loads(metadata.get("tol", "{}")))
        for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
            prefix, _, rest = key.partition(".")
            if metadata.get("kind") == "weights":
                case.weights[key] = file.get_tensor(key)
            else:
                (case.inputs if prefix == "in" else case.outputs)[rest] = file.get_tensor(key)
    return case


def load_manifest(name: str) -> dict[str, Any]:
    """Load the JSON manifest `name` (with suffix): state_dict keys and shapes of a published configuration."""
    return json.loads(find_file(name, MANIFEST_FOLDERS).read_text(encoding="utf-8"))


def formula_u32(key: str, count: int) -> np.ndarray:
    """Return `count` uint32 that depend only on `key` and the flat index (CRC-32 seed, 32-bit mixing)."""
    mask = np.uint64(0xFFFFFFFF)
    seed = np.uint64(zlib.crc32(key.encode()))
    mixed = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + seed) & mask
    mixed ^= mixed >> np.uint64(16)
    mixed = (mixed * np.uint64(0x85EBCA6B)) & mask
    mixed ^= mixed >> np.uint64(13)
    mixed = (mixed * np.uint64(0xC2B2AE35)) & mask
    mixed ^= mixed >> np.uint64(16)
    return mixed.astype(np.uint32)


def formula_unit(key: str, shape: Iterable[int]) -> np.ndarray:
    """Return float64 values in [-1, 1) of the given shape, made from `key`."""
    sizes = tuple(shape)
    values = formula_u32(key, int(np.prod(sizes)) if sizes else 1).astype(np.float64)
    return (2.0 * (values / 4294967296.0) - 1.0).reshape(sizes)


def formula_weight(key: str, shape: Iterable[int], gain: float = 1.0) -> Tensor:
    """Return the formula's value of one state_dict entry: float32, int64 for `num_batches_tracked`."""
    sizes = tuple(shape)
    if key.endswith("num_batches_tracked"):
        return torch.zeros(sizes, dtype=torch.int64)
    unit = formula_unit(key, sizes)
    if key.endswith("running_var"):
        values = 1.0 + 0.25 * unit
    elif key.endswith("running_mean"):
        values = 0.1 * unit
    elif len(sizes) >= 2:
        values = gain * np.sqrt(3.0 / np.prod(sizes[1:])) * unit
    elif key.endswith("weight"):
        values = 1.0 + 0.1 * unit
    else:
        values = 0.1 * unit
    return torch.from_numpy(values.astype(np.float32))
