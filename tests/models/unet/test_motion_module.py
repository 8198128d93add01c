import math

import torch

from latentsync.models.unet.motion_module import MotionModule, PositionTable


def trained_module(channels: int = 32, max_len: int = 6) -> MotionModule:
    module = MotionModule(channels, heads=8, max_len=max_len)
    torch.nn.init.normal_(module.temporal_transformer.proj_out.weight, std=0.1)
    return module


def test_table_holds_sines_on_even_and_cosines_on_odd_channels():
    table = PositionTable(8, 5).pe[0]
    for frame in range(5):
        for pair in range(4):
            angle = frame / 10000 ** (2 * pair / 8)
            assert math.isclose(table[frame, 2 * pair].item(), math.sin(angle), abs_tol=1e-6)
            assert math.isclose(table[frame, 2 * pair + 1].item(), math.cos(angle), abs_tol=1e-6)


@torch.no_grad()
def test_starts_as_identity():
    hidden = torch.randn(6, 32, 3, 4)
    torch.testing.assert_close(MotionModule(32, heads=8, max_len=6)(hidden, 3), hidden)


@torch.no_grad()
def test_mixes_the_frames_of_a_pixel_but_neither_pixels_nor_videos():
    module = trained_module()
    hidden = torch.randn(6, 32, 3, 4)
    # A group norm mixes the pixels of a frame.
    module.temporal_transformer.register_module("norm", torch.nn.Identity())
    changed = hidden.clone()
    changed[1, :, 2, 3] += 1.0
    touched = (module(changed, 3) - module(hidden, 3)).abs().amax(dim=1) > 1e-6
    expected = torch.zeros(6, 3, 4, dtype=torch.bool)
    expected[:3, 2, 3] = True
    assert torch.equal(touched, expected)


@torch.no_grad()
def test_a_batch_equals_its_videos_one_by_one():
    module = trained_module()
    hidden = torch.randn(6, 32, 3, 4)
    apart = torch.cat([module(video, 3) for video in hidden.chunk(2)])
    torch.testing.assert_close(module(hidden, 3), apart, atol=1e-5, rtol=1e-4)
