"""The moving average of weights."""

import pytest
import torch
from torch import nn

from latentsync.errors import CheckpointError
from latentsync.training.loop.ema import Ema


def test_the_average_follows_its_formula_and_forgets_the_start_fast():
    network = nn.Linear(1, 1)
    ema = Ema(network, 0.2)
    expected = network.weight.item()
    for update, decay in enumerate([0.1, 2 / 11, 0.2, 0.2]):
        nn.init.constant_(network.weight, float(update))
        ema.update()
        expected = decay * expected + (1 - decay) * update
        assert ema.averages["weight"].item() == pytest.approx(expected, rel=1e-6)


def test_applied_averages_leave_the_weights_as_they_were():
    network = nn.Linear(3, 3)
    ema = Ema(network, 0.9)
    with torch.no_grad():
        network.weight.mul_(2)
    weight, average = network.weight.clone(), ema.averages["weight"].clone()
    with pytest.raises(ValueError, match="inside"), ema.applied():
        assert torch.equal(network.weight, average) and not torch.equal(average, weight)
        raise ValueError("inside")
    assert torch.equal(network.weight, weight) and torch.equal(ema.averages["weight"], average)


def test_its_state_dict_has_what_is_not_averaged_too():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network[0].requires_grad_(False)
    ema = Ema(network, 0.9)
    with torch.no_grad():
        network[0].bias.fill_(7), network[1].bias.fill_(7), network[1].running_mean.fill_(7)
    state = ema.averaged_state()
    assert state.keys() == network.state_dict().keys()
    assert state["0.bias"].tolist() == state["1.running_mean"].tolist() == [7, 7]
    assert state["1.bias"].tolist() == [0, 0]


def test_averages_of_other_parameters_are_refused():
    with pytest.raises(CheckpointError, match="other parameters"):
        Ema(nn.Linear(2, 2), 0.9).load_state_dict(Ema(nn.Linear(2, 2, bias=False), 0.9).state_dict())
