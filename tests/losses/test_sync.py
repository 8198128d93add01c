import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from latentsync.losses.sync import SyncLoss, syncnet_bce
from latentsync.models.stable_syncnet import cosine
from tests.golden_files import load_golden
from tests.models.builders import formula_syncnet, golden_syncnet


class Recorder(nn.Module):
    """Stands for a SyncNet: notes the picture and answers with vectors made from it."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(3, 4)
        self.image = torch.empty(0)

    def forward(self, image, mel):
        self.image = image
        seen = self.project(image.mean(dim=(2, 3))[:, :3]).exp()
        return F.normalize(seen, dim=1), F.normalize(mel.flatten(1)[:, :4].exp(), dim=1)


def test_loss_equals_the_published_one():
    case = load_golden("stable_syncnet_tiny")
    with torch.no_grad():
        embeds = golden_syncnet(case.attrs["weights"])(case.inputs["images_u8"].float() / 127.5 - 1, case.inputs["mel"])
        case.check("loss_mean", syncnet_bce(cosine(*embeds), case.inputs["y"].flatten())[None])


def test_loss_of_a_window_is_that_of_the_networks_cosine():
    case = load_golden("stable_syncnet_formula_mid")
    network, image, mel = formula_syncnet(case)
    video = torch.cat([torch.rand_like(image), image], dim=2).unflatten(1, (16, 3)).transpose(1, 2)
    video.requires_grad_()
    loss = SyncLoss(network, resolution=64)(video, mel)
    assert loss.item() == pytest.approx(-case.outputs["cosine"].log().mean().item(), abs=1e-4)
    loss.backward()
    assert not video.grad[..., :32, :].any()
    assert video.grad[..., 32:, :].isfinite().all() and video.grad[..., 32:, :].abs().max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_pictures_of_another_size_are_resized_whole_and_then_halved():
    network, video = Recorder(), torch.rand(2, 3, 4, 12, 12) * 2 - 1
    SyncLoss(network, resolution=8)(video, torch.rand(2, 1, 2, 2))
    assert network.image.shape == (2, 12, 4, 8)
    frame = F.interpolate(video[:, :, 3], (8, 8), mode="bicubic", align_corners=False)
    torch.testing.assert_close(network.image[:, 9:], frame[:, :, 4:])


def test_latents_are_neither_resized_nor_halved():
    network, latents = Recorder(), torch.randn(2, 4, 3, 6, 6)
    SyncLoss(network, resolution=None)(latents, torch.rand(2, 1, 2, 2))
    assert torch.equal(network.image, latents.transpose(1, 2).flatten(1, 2))


def test_half_precision_network_gives_a_float32_loss():
    loss = SyncLoss(Recorder().bfloat16(), resolution=8)(torch.rand(1, 3, 4, 12, 12), torch.rand(1, 1, 2, 2))
    assert loss.dtype == torch.float32 and loss.isfinite()


@given(st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), min_size=1, max_size=6))
def test_equals_torchs_cross_entropy_inside_the_bounds(pairs):
    cosines, labels = torch.tensor([pair[0] for pair in pairs]), torch.tensor([float(pair[1]) for pair in pairs])
    torch.testing.assert_close(syncnet_bce(cosines, labels), F.binary_cross_entropy(cosines, labels))


@pytest.mark.parametrize("value", [0.0, 1.0, -1e-7, 1.0000001])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_ends_have_a_finite_value_and_a_gradient_towards_the_label(value, label):
    agreement = torch.tensor([value], requires_grad=True)
    loss = syncnet_bce(agreement, torch.tensor([label]))
    (gradient,) = torch.autograd.grad(loss, agreement)
    assert 0 <= loss.item() < 12
    assert gradient.isfinite().all()
    assert gradient.sign().item() == (-1.0 if label else 1.0)
