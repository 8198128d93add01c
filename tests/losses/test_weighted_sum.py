import pytest
import torch

from latentsync.errors import ConfigError
from latentsync.losses.weighted_sum import weighted_sum


def never():
    raise AssertionError("a term of weight 0 was computed")


def test_total_is_the_weighted_sum_and_carries_the_gradient():
    x = torch.tensor(3.0, requires_grad=True)
    losses = weighted_sum(
        {"square": lambda: x**2, "linear": lambda: 5 * x, "off": never}, {"square": 2, "linear": 0.1, "off": 0}
    )
    assert set(losses) == {"square", "linear", "total"}
    assert losses["square"].item() == 9 and losses["linear"].item() == 15
    assert losses["total"].item() == pytest.approx(19.5)
    losses["total"].backward()
    assert x.grad.item() == pytest.approx(12.5)
    assert not losses["square"].requires_grad


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        (("a",), {"a": 1.0, "b": 1.0}, "same names"),
        (("a", "b"), {"a": 1.0}, "same names"),
        (("a", "total"), {"a": 1.0, "total": 1.0}, "'total'"),
        (("a",), {"a": -1.0}, "0 or more"),
        (("a",), {"a": float("nan")}, "0 or more"),
        (("a",), {"a": 0.0}, "at least one"),
    ],
)
def test_senseless_weights_are_refused_before_anything_is_computed(names, weights, message):
    with pytest.raises(ConfigError, match=message):
        weighted_sum(dict.fromkeys(names, never), weights)
