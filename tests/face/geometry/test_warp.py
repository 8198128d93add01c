import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.face.geometry.affine import crop_size, face_template, fit_affine, published_smoothing
from latentsync.face.geometry.patches import Patches
from latentsync.face.geometry.warp import FILL, crop_boxes, invert_matrices, warp_crops, warp_faces, warp_patches


def assert_nearly_equal(actual: Tensor, expected: Tensor, min_equal_fraction: float) -> None:
    difference = (actual.int() - expected.int()).abs()
    assert int(difference.max()) <= 1
    assert float((difference == 0).float().mean()) >= min_equal_fraction


@pytest.mark.parametrize("resolution", [256, 512])
def test_matches_the_published_crop(golden, resolution):
    case = golden("face_warp")
    frames = rearrange(case.inputs["image"], "h w c -> 1 c h w")
    matrices = case.outputs[f"M_{resolution}"]
    crop = rearrange(warp_crops(frames, matrices, resolution)[0], "c h w -> h w c")
    face = warp_faces(frames, matrices, resolution)[0]
    min_equal_fraction = case.tol["frac_within_0"]
    if resolution == 256:
        assert_nearly_equal(crop, case.outputs["crop_256"], min_equal_fraction)
        assert_nearly_equal(face, case.outputs["face_256"], min_equal_fraction)
        return
    assert_nearly_equal(crop[::4, ::4], case.outputs["crop_512_every4"], min_equal_fraction)
    assert_nearly_equal(face[:, ::4, ::4], case.outputs["face_512_every4"], min_equal_fraction)
    # Truncation turns rounding errors of the sampling grid into whole levels, and this small patch has a few more.
    assert_nearly_equal(face[:, 224:288, 224:288], case.outputs["face_512_patch64"], 0.99)


def test_matrices_of_the_golden_crop_come_from_its_points(golden):
    case = golden("face_warp")
    matrices, _ = published_smoothing(case.inputs["landmarks3"].numpy()[None], face_template(256))
    torch.testing.assert_close(torch.from_numpy(matrices), case.outputs["M_256"], atol=2e-3, rtol=0)


def test_frames_of_a_window_are_independent():
    frames = torch.randint(0, 256, (3, 3, 90, 120), dtype=torch.uint8)
    points = torch.tensor([[[40.0, 30.0], [70.0, 32.0], [56.0, 50.0]]]).repeat(3, 1, 1)
    points += torch.arange(3)[:, None, None] * 3
    matrices = torch.from_numpy(fit_affine(points.numpy(), face_template(256) / 4))
    together = warp_faces(frames, matrices, 64)
    alone = [warp_faces(frames[index : index + 1], matrices[index : index + 1], 64) for index in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_outside_the_frame_is_gray():
    frames = torch.zeros(1, 3, 50, 50, dtype=torch.uint8)
    faraway = torch.tensor([[[1.0, 0, 5000], [0, 1, 5000]]])
    assert torch.all(warp_faces(frames, faraway, 64) == FILL)


def test_identity_copies_pixels():
    width, height = crop_size(64)
    frames = torch.randint(0, 256, (1, 3, height + 9, width + 5), dtype=torch.uint8)
    identity = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    assert torch.equal(warp_crops(frames, identity, 64), frames[:, :, :height, :width])


def test_inverting_twice_gives_the_matrices():
    matrices = torch.randn(5, 2, 3) + torch.tensor([[3.0, 0, 0], [0, 3, 0]])
    twice = invert_matrices(invert_matrices(matrices))
    torch.testing.assert_close(twice, matrices, atol=1e-3, rtol=1e-3)


def test_wrong_dtype_or_matrix_count_is_refused():
    with pytest.raises(ConfigError, match="uint8"):
        warp_faces(torch.zeros(1, 3, 50, 50), torch.zeros(1, 2, 3), 64)
    with pytest.raises(ConfigError, match="one"):
        warp_faces(torch.zeros(2, 3, 50, 50, dtype=torch.uint8), torch.zeros(1, 2, 3), 64)


@settings(max_examples=40)
@given(
    x=st.floats(-150, 300),
    y=st.floats(-150, 270),
    size=st.floats(-5, 8),
    roll=st.floats(-3.2, 3.2),
    step=st.floats(0, 9),
)
def test_patches_give_the_same_faces_as_full_frames(x, y, size, roll, step):
    """Across the border, rotated, as small as a pixel, larger than the frame, and outside."""
    frames = torch.randint(0, 256, (3, 120, 160, 3), dtype=torch.uint8)
    linear = 2.0**-size * np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    middles = np.array([[x, y], [x + step, y - step], [160 - x, 120 - y]])
    shift = np.array(crop_size(64))[None] / 2 - middles @ linear.T
    matrices = np.concatenate([np.tile(linear, (3, 1, 1)), shift[..., None]], axis=2).astype(np.float32)
    boxes = crop_boxes(matrices, 64, (160, 120))
    patches = Patches.upload([frame.numpy() for frame in frames], boxes, torch.device("cpu"))
    whole = warp_faces(rearrange(frames, "f h w c -> f c h w"), torch.from_numpy(matrices), 64)
    assert torch.equal(warp_patches(patches, matrices, 64), whole)


def test_crop_boxes_are_barely_larger_than_the_face():
    matrices = fit_affine(np.array([[[2040.0, 1000], [2120, 1000], [2080, 1040]]]), face_template(256))
    boxes = crop_boxes(matrices, 256, (3840, 2160))
    crop_pixels = np.prod(crop_size(256)) / abs(np.linalg.det(matrices[0, :, :2]))
    assert boxes.sizes.prod() < 1.15 * crop_pixels < 0.01 * 3840 * 2160


@pytest.mark.gpu
def test_the_gpu_gives_the_same_faces(golden):
    case = golden("face_warp")
    frames = rearrange(case.inputs["image"], "h w c -> 1 c h w")
    matrices = case.outputs["M_256"]
    there = warp_faces(frames.to("cuda"), matrices.to("cuda"), 256).cpu()
    assert_nearly_equal(there, warp_faces(frames, matrices, 256), 0.99)
