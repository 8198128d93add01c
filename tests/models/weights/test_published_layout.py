"""Weights in the layout of the published files: readable without running code, complete or not there."""

from pathlib import Path

import pytest
import torch

from latentsync.models.weights.published_layout import save_published
from latentsync.models.weights.state_dict import read_state_dict


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    weights = {"a.weight": torch.randn(3, 4, requires_grad=True), "a.bias": torch.arange(3), "b": torch.randn(4, 3).T}
    path = save_published(weights, tmp_path / "net-7.pt", 7)
    content = torch.load(path, weights_only=True)
    assert content["global_step"] == 7 and set(content) == {"state_dict", "global_step"}
    found = read_state_dict(path)
    assert list(found) == list(weights)
    assert all(torch.equal(found[name], value) and not found[name].requires_grad for name, value in weights.items())
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_published({"a": torch.ones(2)}, tmp_path / "net.pt", 1)

    def full(content: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_published({"a": torch.zeros(2)}, path, 2)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.load(path, weights_only=True)["global_step"] == 1
