"""The region that pixel losses compare."""

import torch

from latentsync.losses.region import lower_half, mouth_images


def test_the_lower_half_begins_at_the_middle_row_and_includes_an_odd_one() -> None:
    video = torch.arange(2 * 3 * 2 * 5 * 4).reshape(2, 3, 2, 5, 4)
    assert torch.equal(lower_half(video), video[..., 2:, :])
    images = mouth_images(video)
    assert images.shape == (4, 3, 3, 4) and torch.equal(images[1], video[0, :, 1, 2:])
