import logging

import pytest
import torch
import torch.nn.functional as F

from latentsync.errors import CheckpointError
from latentsync.models.vgg_lpips import VggLpips, load_vgg_lpips
from tests.golden_files import formula_unit, formula_weight

# Numbers of the convolutions in torchvision's VGG-16, by stage.
CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
WIDTHS = (64, 128, 256, 512, 512)
# Measured with the lpips package 0.1.4 on weights and pictures of the formula.
PUBLISHED = (0.023935292, 0.025156355)


def vgg_weights():
    weights, width = {}, 3
    for stage, channels in zip(CONVOLUTIONS, WIDTHS, strict=True):
        for number in stage:
            for kind, shape in (("weight", (channels, width, 3, 3)), ("bias", (channels,))):
                key = f"features.{number}.{kind}"
                weights[key] = formula_weight(key, shape, 2**0.5)
            width = channels
    return weights


def linear_weights():
    keys = {f"lin{stage}.model.1.weight": (1, width, 1, 1) for stage, width in enumerate(WIDTHS)}
    return {key: formula_weight(key, shape).abs() for key, shape in keys.items()}


def pictures():
    first, second = (torch.from_numpy(formula_unit(f"lpips.{name}", (2, 3, 32, 48))).float() for name in "ab")
    return first, 0.7 * first + 0.3 * second


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    head = {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    torch.save(vgg_weights() | head, folder / "vgg16.pth")
    torch.save(linear_weights(), folder / "vgg.pth")
    return folder / "vgg16.pth", folder / "vgg.pth"


def load(files, dtype=torch.float32):
    vgg, linear = files
    return load_vgg_lpips(vgg, linear, "cpu", dtype)


def straightforward(first, second):
    """The distance written out from the two files, without the network."""
    vgg, linear = vgg_weights(), linear_weights()
    shift = torch.tensor([-0.030, -0.088, -0.188]).reshape(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).reshape(3, 1, 1)
    hidden, total = (torch.cat([first, second]) - shift) / scale, torch.zeros(len(first))
    for index, stage in enumerate(CONVOLUTIONS):
        hidden = F.max_pool2d(hidden, 2) if index else hidden
        for number in stage:
            hidden = F.relu(
                F.conv2d(hidden, vgg[f"features.{number}.weight"], vgg[f"features.{number}.bias"], padding=1)
            )
        unit = hidden / (hidden.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
        ours, theirs = unit.chunk(2)
        total += F.conv2d((ours - theirs) ** 2, linear[f"lin{index}.model.1.weight"]).mean(dim=(1, 2, 3))
    return total


@torch.no_grad()
def test_distance_equals_the_published_packages(files, caplog):
    with caplog.at_level(logging.INFO):
        model = load(files)
    assert "2 entries are not used: classifier.0.bias, classifier.0.weight" in caplog.text
    first, second = pictures()
    torch.testing.assert_close(model(first, second), torch.tensor(PUBLISHED), rtol=1e-4, atol=0)
    torch.testing.assert_close(model(first, second), straightforward(first, second), rtol=1e-4, atol=0)
    torch.testing.assert_close(model(second, first), model(first, second))
    assert not model(first, first).any()


def test_equal_and_flat_pictures_have_a_finite_gradient(files):
    model = load(files)
    model.features[0].bias.data.fill_(-1e3)  # nothing passes the first layer
    flat = torch.zeros(1, 3, 32, 32, requires_grad=True)
    model(flat, flat.detach()).sum().backward()
    assert flat.grad.isfinite().all()


def test_half_precision_keeps_the_distance(files):
    first, second = pictures()
    with torch.no_grad():
        halved = load(files, torch.bfloat16)(first.bfloat16(), second.bfloat16())
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, torch.tensor(PUBLISHED), rtol=0.05, atol=0)


def test_a_missing_or_wrong_file_is_refused(files, tmp_path):
    with pytest.raises(CheckpointError, match="26 entries missing, e.g. features"):
        load_vgg_lpips(files[1], files[1], "cpu", torch.float32)
    torch.save({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, tmp_path / "alex.pth")
    with pytest.raises(CheckpointError, match="4 entries missing, e.g. lin1"):
        load_vgg_lpips(files[0], tmp_path / "alex.pth", "cpu", torch.float32)


def test_entries_are_those_of_the_two_files():
    with torch.device("meta"):
        model = VggLpips()
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert shapes == {key: tuple(tensor.shape) for key, tensor in (vgg_weights() | linear_weights()).items()}
