import pytest
import torch
from torch import nn

from latentsync.errors import ConfigError
from latentsync.losses.perceptual import LaplacianLoss, PerceptualLoss


class Distance(nn.Module):
    """Distance through one convolution; notes what it was shown."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen = []

    def forward(self, predicted, target):
        self.seen.append(predicted.detach())
        return (self.conv(predicted) - self.conv(target)).square().mean(dim=(1, 2, 3))


def videos():
    return torch.rand(2, 3, 5, 9, 8) * 2 - 1, torch.rand(2, 3, 5, 9, 8) * 2 - 1


@pytest.mark.parametrize("make", [lambda: PerceptualLoss(Distance(), 4), LaplacianLoss], ids=["network", "laplacian"])
def test_only_the_lower_half_of_the_prediction_gets_a_gradient(make):
    loss = make()
    predicted, target = (video.requires_grad_() for video in videos())
    value = loss(predicted, target)
    value.backward()
    assert value.ndim == 0 and value > 0
    assert not predicted.grad[..., :4, :].any()
    assert predicted.grad[..., 4:, :].abs().amax(dim=(1, 3, 4)).min() > 0  # every frame of every window
    assert target.grad is None
    assert loss(predicted, predicted).item() == 0


def test_chunks_change_neither_value_nor_gradient():
    network = Distance()
    predicted, target = videos()
    predicted.requires_grad_()
    results = []
    for chunk_size in (100, 3):
        value = PerceptualLoss(network, chunk_size)(predicted, target)
        results.append((value, torch.autograd.grad(value, predicted)[0]))
    torch.testing.assert_close(results[0], results[1])
    expected = (network.conv(predicted[:, :, 0, 4:]) - network.conv(target[:, :, 0, 4:])).square().mean()
    alone = PerceptualLoss(network)(predicted[:, :, :1], target[:, :, :1])
    torch.testing.assert_close(alone, expected)


def test_frames_reach_the_network_as_pictures_in_order():
    network = Distance()
    predicted, target = videos()
    with torch.no_grad():
        PerceptualLoss(network, 4)(predicted, target)
    assert [len(part) for part in network.seen] == [4, 4, 2]
    assert torch.equal(torch.cat(network.seen)[6], predicted[1, :, 1, 4:])


def test_laplacian_counts_a_wrong_pattern_more_than_a_wrong_brightness():
    loss = LaplacianLoss()
    target = torch.zeros(1, 3, 2, 64, 64)
    brighter = target + 0.1
    blocks = target + 0.1 * torch.tensor([1.0, -1.0]).repeat_interleave(8).repeat(4)
    assert (brighter - target).abs().mean() == (blocks - target).abs().mean()
    assert loss(brighter, target).item() == pytest.approx(0.1, abs=1e-5)
    assert loss(blocks, target) > 1.5 * loss(brighter, target)


def test_laplacian_is_the_sum_over_its_bands():
    predicted, target = torch.rand(1, 3, 1, 64, 32), torch.rand(1, 3, 1, 64, 32)
    kernel = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    kernel = torch.outer(kernel, kernel)[None, None]

    def pyramid(picture):
        bands = []
        for _ in range(2):
            padded = nn.functional.pad(picture, (2, 2, 2, 2), mode="reflect")
            smooth = torch.cat([nn.functional.conv2d(padded[:, c : c + 1], kernel) for c in range(3)], dim=1)
            bands.append(picture - smooth)
            picture = smooth[:, :, ::2, ::2]
        return bands, picture

    (ours, our_rest), (theirs, their_rest) = pyramid(predicted[:, :, 0, 32:]), pyramid(target[:, :, 0, 32:])
    expected = sum(2**j * (a - b).abs().mean() for j, (a, b) in enumerate(zip(ours, theirs, strict=True)))
    expected = expected + (our_rest - their_rest).abs().mean()
    torch.testing.assert_close(LaplacianLoss(levels=2)(predicted, target), expected)


def test_small_pictures_have_fewer_bands():
    assert LaplacianLoss(levels=9)(*videos()).isfinite()


@pytest.mark.parametrize("make", [lambda: PerceptualLoss(Distance(), 0), lambda: LaplacianLoss(0)])
def test_senseless_options_are_refused(make):
    with pytest.raises(ConfigError, match="expected 1 or more"):
        make()
