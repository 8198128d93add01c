import pytest
import torch
from torch import nn

from latentsync.losses.trepa import TrepaLoss
from tests.golden_files import load_golden
from tests.models.builders import golden_video_mae


def test_value_and_features_equal_the_published_system():
    case = load_golden("trepa_tiny")
    trepa = TrepaLoss(golden_video_mae(case.attrs["weights"]))
    with torch.no_grad():
        for name in ("fake", "real"):
            case.check(f"feats_{name}", trepa.describe(case.inputs[name]))
        loss = trepa(case.inputs["fake"], case.inputs["real"])
    assert loss.item() == pytest.approx(case.outputs["loss"].item(), rel=case.tol["loss_rtol"])


def test_gradient_goes_to_the_prediction_only():
    case = load_golden("trepa_tiny")
    trepa = TrepaLoss(golden_video_mae(case.attrs["weights"]))
    trepa.network.enable_gradient_checkpointing()
    fake, real = (case.inputs[name].clone().requires_grad_() for name in ("fake", "real"))
    trepa(fake, real).backward()
    assert fake.grad.isfinite().all() and fake.grad.abs().max() > 0
    assert real.grad is None
    assert all(parameter.grad is None for parameter in trepa.parameters())


class MeanColour(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.dropout = nn.Dropout(0.9)

    def forward(self, video):
        assert video.min() >= 0 and video.max() <= 1
        return self.dropout(self.gain * video.mean(dim=(2, 3, 4)))


def test_network_stays_frozen_whatever_holds_the_loss():
    trepa = TrepaLoss(MeanColour(), size=8)
    holder = nn.ModuleList([trepa]).train()
    video = torch.rand(2, 3, 4, 6, 6) * 4 - 2
    assert trepa.training and not trepa.network.training
    assert not any(parameter.requires_grad for parameter in holder.parameters())
    assert trepa(video, video).item() == 0
    assert trepa(video, -video).item() > 0
