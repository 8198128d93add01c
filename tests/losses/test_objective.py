"""The weighted sum of loss objects."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentsync.errors import ConfigError
from latentsync.losses.objective import Objective


class Mean(nn.Module):
    """Of the inputs, through a layer that must stay frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Dropout(0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs[:, None]).mean()


def never(inputs: Any) -> Tensor:
    raise AssertionError("a loss without weight was computed")


def test_modules_are_frozen_and_losses_without_weight_are_dropped() -> None:
    objective = Objective(
        {"mean": Mean(), "square": lambda x: x.square().sum(), "off": never}, {"mean": 2.0, "square": 0.5, "off": 0.0}
    )
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    found = objective(x)
    assert set(found) == {"mean", "square", "total"}
    assert found["total"].item() == pytest.approx(2 * found["mean"].item() + 0.5 * found["square"].item())
    found["total"].backward()
    mean = objective.losses["mean"]
    assert isinstance(mean, Mean) and not mean.layer.training
    assert all(parameter.grad is None for parameter in mean.parameters()) and x.grad.abs().min() > 0


@pytest.mark.parametrize(("value", "found"), [(torch.zeros(2), r"a tensor \(2,\)"), (0.5, "float"), (None, "NoneType")])
def test_a_result_that_is_no_scalar_tensor_is_explained(value: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=f"losses.odd: .*returned {found}, expected a scalar"):
        Objective({"odd": lambda inputs: value}, {"odd": 1.0})(None)
