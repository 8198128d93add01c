"""One step's bookkeeping: masters, average, and steps that must not be made."""

import pytest
import torch
from torch import nn

from latentsync.errors import ConfigError
from latentsync.training.demo.optimizer import MasterOptimizer, OptimizerOptions


def fit(dtype: torch.dtype, steps: int = 300) -> tuple[nn.Linear, MasterOptimizer]:
    """A linear map that learns to double its input."""
    module = nn.Linear(4, 4, bias=False)
    optimizer = MasterOptimizer(module, OptimizerOptions(lr=0.02, weight_decay=0.0, ema_decay=0.9), dtype)
    for _ in range(steps):
        inputs = torch.randn(64, 4, dtype=dtype)
        loss = (module(inputs).float() - 2 * inputs.float()).square().mean()
        assert optimizer.step(loss, 1.0)
    return module, optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_learns_in_either_precision(dtype: torch.dtype) -> None:
    module, optimizer = fit(dtype)
    assert module.weight.dtype == dtype
    state = optimizer.averaged_state()
    assert state["weight"].dtype == torch.float32
    torch.testing.assert_close(state["weight"], 2 * torch.eye(4), atol=0.05, rtol=0)


def test_small_updates_are_not_lost_in_bfloat16() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    options = OptimizerOptions(lr=1e-4, weight_decay=0.0, ema_decay=0.0)
    optimizer = MasterOptimizer(module, options, torch.bfloat16)
    for _ in range(200):
        optimizer.step(-module.weight.sum(), 1.0)
    assert module.weight.item() == pytest.approx(1.02, abs=0.005)


def test_infinite_gradient_changes_nothing() -> None:
    module, optimizer = fit(torch.float32, steps=3)
    before = optimizer.averaged_state()["weight"]
    assert not optimizer.step((module.weight * float("inf")).sum(), 1.0)
    assert optimizer.skipped == 1 and optimizer.steps == 3
    assert torch.equal(optimizer.averaged_state()["weight"], before)
    assert torch.isfinite(module.weight).all()


def test_average_lags_behind_and_buffers_keep_their_precision() -> None:
    module = nn.BatchNorm1d(2)
    module.running_mean.fill_(1.001)
    optimizer = MasterOptimizer(module, OptimizerOptions(ema_decay=0.99), torch.bfloat16)
    assert optimizer.averaged_state()["running_mean"].tolist() == pytest.approx([1.001, 1.001], abs=1e-6)


def test_nonsense_options_are_refused() -> None:
    with pytest.raises(ConfigError):
        OptimizerOptions(lr=0.0)
