"""Image similarity and flicker."""

import math

import pytest
import torch
from skimage.metrics import structural_similarity

from latentsync.errors import ConfigError
from latentsync.metrics.visual_quality import flicker, mouth_region, psnr, ssim, still_frames


def images(frames: int = 4, side: int = 32) -> torch.Tensor:
    return torch.randint(0, 200, (frames, 3, side, side), dtype=torch.uint8)


def test_mouth_region_is_in_the_lower_middle():
    crops = torch.zeros(1, 3, 100, 100)
    crops[..., 50:80, 25:75] = 1
    assert mouth_region(crops).shape == (1, 3, 30, 50)
    assert mouth_region(crops).min() == 1


def test_psnr_of_a_known_error():
    true = images()
    assert psnr(true + 16, true) == pytest.approx(20 * math.log10(255 / 16), abs=1e-4)
    assert psnr(true, true) == 100


def test_psnr_ignores_pixels_of_zero_weight():
    true = images()
    pred = true.clone()
    pred[..., :16] += 50
    weight = torch.zeros(32, 32)
    weight[:, 16:] = 1
    assert psnr(pred, true, weight) == 100
    assert psnr(pred, true, 1 - weight) == pytest.approx(20 * math.log10(255 / 50), abs=1e-4)
    with pytest.raises(ConfigError, match="every weight is 0"):
        psnr(pred, true, weight * 0)


def test_ssim_agrees_with_an_independent_implementation():
    true = torch.nn.functional.interpolate(images(2, 8).float(), (40, 40), mode="bilinear").byte()
    pred = (true.float() + 12 * torch.randn(true.shape)).clamp(0, 255).byte()
    grey = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    expected = []
    for one, other in zip((pred.float() * grey).sum(1).numpy(), (true.float() * grey).sum(1).numpy()):
        _, full = structural_similarity(
            one, other, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        expected.append(full[5:-5, 5:-5].mean())
    assert ssim(pred, true) == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert ssim(true, true) == pytest.approx(1.0)


def test_different_shapes_are_rejected():
    for measure in (psnr, ssim):
        with pytest.raises(ConfigError, match="expected equal"):
            measure(images(4), images(3))


def test_flicker_ignores_uniform_change_and_measures_alternation():
    ramp = (torch.arange(10)[:, None, None, None] * 10).expand(-1, 3, 16, 32).byte()
    assert flicker(ramp).overall == 0
    alternating = (torch.arange(10) % 2 * 10)[:, None, None, None].expand(-1, 3, 16, 32).byte()
    assert flicker(alternating).overall == pytest.approx(20)


def test_flicker_is_less_sensitive_to_grain_than_to_brightness():
    grain = (128 + 10 * torch.randn(20, 3, 77, 128)).byte()
    assert flicker(grain).overall < 10
    whole = (128 + 10 * torch.randn(20, 1, 1, 1)).byte().expand(-1, 3, 77, 128)
    assert flicker(whole).overall > 15


def test_flicker_is_also_measured_over_still_frames():
    mouth = torch.zeros(12, 2)
    mouth[:6, 1] = torch.arange(6) / 6
    still = still_frames(mouth)
    assert still.tolist() == [False] * 7 + [True] * 5
    frames = torch.zeros(12, 3, 16, 32, dtype=torch.uint8)
    frames[:5:2] = 100
    metrics = flicker(frames, still)
    assert metrics.overall > 50
    assert metrics.still == 0
    assert math.isnan(flicker(frames, torch.zeros(12, dtype=torch.bool)).still)


def test_flicker_of_two_frames_is_rejected():
    with pytest.raises(ConfigError, match="at least three frames"):
        flicker(images(2))
