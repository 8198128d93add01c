import json

import cv2
import numpy as np
import pytest
import torch
from einops import rearrange

from latentsync.errors import ConfigError
from latentsync.face.compositing.masks import (
    MASK_NAMES,
    draw_mask,
    latent_mask,
    load_mask,
    prepare_masked_pixels,
    prepare_pixels,
    resize_mask,
)
from tests.golden_files import GOLDEN_FOLDERS, find_file


@pytest.mark.parametrize(("resolution", "step"), [(64, 1), (256, 4), (512, 4)])
def test_resize_and_latent_grid_match_the_published_ones(golden, resolution, step):
    case = golden("fixed_mask_resize")
    mask = resize_mask(case.inputs["mask256"].numpy(), resolution)
    assert mask.shape == (3, resolution, resolution)
    case.check(f"mask_{resolution}", mask[0, ::step, ::step])
    case.check(f"latent_mask_{resolution}", latent_mask(mask)[0])


@pytest.mark.parametrize("name", MASK_NAMES)
def test_drawn_masks_match_the_published_ones(name):
    check = json.loads(find_file("fixed_masks.json", GOLDEN_FOLDERS).read_text())["check"][name]
    image = draw_mask(name)
    assert set(np.unique(image)) == {0, 255}
    assert abs(int((image == 0).sum()) - check["zero_pixels"]) <= check["different_pixels"]
    cells = int((latent_mask(load_mask(name, 256))[0] == 0).sum())
    assert abs(cells - check["latent_256"]["zero_cells"]) <= check["latent_256"]["different_cells"]


def test_prepared_pixels_match_the_published_ones(golden):
    case = golden("prepare_masked_pixels")
    frames = rearrange(case.inputs["frames"], "f h w c -> f c h w")
    pixels, masked, masks = prepare_masked_pixels(frames, case.inputs["mask"])
    case.check("pixels", pixels)
    case.check("masked", masked)
    case.check("masks", masks)


def test_masking_sets_the_repainted_region_to_mid_gray_only():
    frames = torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8)
    mask = load_mask("mask", 256)
    pixels, masked, masks = prepare_masked_pixels(frames, mask)
    assert masks.shape == (2, 1, 256, 256)
    kept = (mask == 1).expand_as(pixels)
    assert torch.equal(masked[kept], pixels[kept])
    assert torch.all(masked[~kept] == 0)
    torch.testing.assert_close(pixels, frames.float() / 127.5 - 1, atol=1e-6, rtol=0)


def test_pixels_are_normalized_to_minus_one_to_one():
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    pixels = prepare_pixels(frames, 8)
    assert pixels[0].unique().tolist() == [-1.0]
    assert pixels[1].unique().tolist() == [1.0]


def test_custom_mask_is_read_from_a_non_ascii_path(tmp_path):
    path = tmp_path / "gesicht maske ü.png"
    image = np.full((64, 64), 255, np.uint8)
    image[32:] = 0
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    mask = load_mask(path, 64)
    assert torch.all(mask[:, :32] == 1)
    assert torch.all(mask[:, 32:] == 0)


def test_published_mask_path_loads_the_drawn_mask():
    assert torch.equal(load_mask("latentsync/utils/mask2.png", 256), load_mask("mask2", 256))


@pytest.mark.parametrize("name", ["mask9", "nowhere/other.png"])
def test_unknown_masks_are_refused(name):
    with pytest.raises(ConfigError, match="mask"):
        load_mask(name, 256)


def test_file_that_is_not_an_image_is_refused(tmp_path):
    path = tmp_path / "mask_of_text.png"
    path.write_text("no picture")
    with pytest.raises(ConfigError, match="Cannot read"):
        load_mask(path, 256)


def test_latent_mask_requires_sides_divisible_by_eight():
    with pytest.raises(ConfigError, match="divisible by 8"):
        latent_mask(torch.ones(3, 30, 30))
