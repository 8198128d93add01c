"""Augmentation of frame windows."""

import numpy as np
import pytest
import torch

from latentsync.data.augmentation import FrameAugmentation, augment_window
from latentsync.errors import ConfigError

NO_AUGMENTATION = {"brightness": 0.0, "contrast": 0.0, "translation": 0.0, "noise": 0.0, "jpeg": 0, "prob": 1.0}


def window():
    ramp = torch.arange(32, dtype=torch.float32)
    image = (ramp[:, None] * 3 + ramp[None] * 2 + 40).to(torch.uint8)
    return image.expand(4, 3, 32, 32).clone()


def augmented_windows(**strengths):
    augmentation = FrameAugmentation(**{**NO_AUGMENTATION, **strengths})
    return [augment_window(window(), augmentation, np.random.default_rng(seed)) for seed in range(20)]


def test_zero_strength_or_probability_changes_nothing():
    assert all(torch.equal(frames, window()) for frames in augmented_windows())
    assert all(torch.equal(frames, window()) for frames in augmented_windows(brightness=0.5, prob=0.0))


def test_brightness_and_contrast_are_equal_for_all_frames():
    for frames in (*augmented_windows(brightness=0.1), *augmented_windows(contrast=0.3)):
        assert all(torch.equal(frame, frames[0]) for frame in frames)
    means = [
        float(frames.float().mean()) - float(window().float().mean()) for frames in augmented_windows(brightness=0.1)
    ]
    assert min(means) < -5
    assert max(means) > 5
    assert max(map(abs, means)) <= 26
    spreads = [float(frames.float().std() / window().float().std()) for frames in augmented_windows(contrast=0.3)]
    assert 0.65 < min(spreads) < 0.95 < 1.05 < max(spreads) < 1.35


def test_translation_shifts_all_frames_by_whole_pixels():
    moves = set()
    for frames in augmented_windows(translation=0.1):
        assert all(torch.equal(frame, frames[0]) for frame in frames)
        middle = int(frames[0, 0, 16, 16]) - int(window()[0, 0, 16, 16])
        moves.add(middle)
        assert abs(middle) <= 3 * 5
    assert len(moves) > 5


def test_noise_and_compression_stay_small():
    for frames in augmented_windows(noise=0.02):
        assert 0 <= (frames.float() - window().float()).abs().mean() < 8
    assert any(not torch.equal(frames[0], frames[1]) for frames in augmented_windows(noise=0.02))
    for frames in augmented_windows(jpeg=60):
        assert frames.shape == window().shape
        assert (frames.float() - window().float()).abs().mean() < 6


def test_strengths_out_of_range_are_refused():
    with pytest.raises(ConfigError):
        FrameAugmentation(noise=2)
    with pytest.raises(ConfigError):
        FrameAugmentation(jpeg=100)
