"""Colour matching: undoes a colour shift it can see in the surround, and leaves right colours alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from latentsync.face.compositing.color_match import ColorMatcher
from latentsync.face.compositing.masks import load_mask

SIZE = 128
MASK = load_mask("mask", SIZE)


def smooth_faces(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=generator) * 1.2 - 0.6
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic", align_corners=True)


def shifted(faces: Tensor) -> Tensor:
    """Less colour, brighter and a little green, as a weak autoencoder does."""
    grey = faces.mean(dim=1, keepdim=True)
    return 0.5 * faces + 0.4 * grey + torch.tensor([0.0, 0.1, 0.05])[:, None, None]


def test_a_colour_shift_is_undone_inside_the_repainted_region() -> None:
    source = smooth_faces(4)
    decoded = shifted(source)
    matched = ColorMatcher(MASK)(decoded, source)
    repainted = (MASK == 0).expand_as(source)
    before = (decoded - source)[repainted].abs().mean()
    after = (matched - source)[repainted].abs().mean()
    assert after < 0.15 * before


def test_right_colours_stay() -> None:
    source = smooth_faces(3)
    torch.testing.assert_close(ColorMatcher(MASK)(source, source), source, atol=1e-3, rtol=0)


def test_without_any_surround_colours_stay() -> None:
    source = smooth_faces(2)
    decoded = shifted(source)
    torch.testing.assert_close(ColorMatcher(torch.zeros_like(MASK))(decoded, source), decoded)


def test_what_the_repainted_region_shows_does_not_matter() -> None:
    source, other = smooth_faces(2), smooth_faces(2, seed=5)
    mouth = torch.where(MASK == 0, other, source)
    kept = (MASK == 1).expand_as(source)
    torch.testing.assert_close(
        ColorMatcher(MASK)(shifted(mouth), source)[kept], ColorMatcher(MASK)(shifted(source), source)[kept]
    )


def test_one_odd_frame_does_not_flicker() -> None:
    source = smooth_faces(1).expand(12, -1, -1, -1).clone()
    decoded = shifted(source)
    decoded[10] += 0.2
    matched = ColorMatcher(MASK)(decoded, source)
    jump = (matched[11] - matched[9]).abs().mean()
    assert jump < 0.25 * 0.2


def test_batches_do_not_change_the_result() -> None:
    source = smooth_faces(6)
    decoded = shifted(source)
    whole, parts = ColorMatcher(MASK), ColorMatcher(MASK)
    once = whole(decoded, source)
    again = torch.cat([parts(decoded[:2], source[:2]), parts(decoded[2:], source[2:])])
    torch.testing.assert_close(once, again)


def test_sums_are_those_of_the_recurrence() -> None:
    """Frame by frame: ``sums = 0.9 * sums + 0.1 * fresh``, the first counting whole."""
    match = ColorMatcher(MASK)
    fresh = torch.rand(7, 4, 7)
    fresh[4, 2, 3] = torch.inf
    is_scene_start = torch.tensor([index == 0 for index in range(7)])
    made = torch.cat([match._accumulate(fresh[part], is_scene_start[part]) for part in (slice(0, 2), slice(2, 7))])
    expected = [fresh[0]]
    for index in range(1, 7):
        expected.append(expected[-1] if index == 4 else torch.lerp(fresh[index], expected[-1], 0.9))
    torch.testing.assert_close(made, torch.stack(expected))


def test_another_scene_starts_anew() -> None:
    before, after = smooth_faces(5), smooth_faces(3, seed=4) * 0.3 + 0.6
    source = torch.cat([before - 0.3, after])
    decoded = torch.cat([shifted(before - 0.3), after - 0.1])
    matched = ColorMatcher(MASK)(decoded, source)
    torch.testing.assert_close(matched[5:], ColorMatcher(MASK)(decoded[5:], source[5:]))


def test_a_frame_that_overflowed_does_not_spoil_the_next() -> None:
    source = smooth_faces(3)
    decoded = shifted(source)
    decoded[:2] = torch.nan
    matched = ColorMatcher(MASK)(decoded, source)
    assert torch.isfinite(matched[2]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_half_precision_out(dtype: torch.dtype) -> None:
    source = smooth_faces(1).to(dtype)
    assert ColorMatcher(MASK.to(dtype))(shifted(source).to(dtype), source).dtype == dtype
