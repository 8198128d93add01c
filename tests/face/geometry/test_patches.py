import numpy as np
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st

from latentsync.face.geometry.patches import Boxes, Patches, bounding_boxes

CPU = torch.device("cpu")
SIZE = (40, 30)
coordinates = st.floats(-100, 140, width=32)


@given(points=st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=5), min_side=st.integers(1, 50))
def test_bounding_boxes_lie_in_the_frame_and_contain_the_outline(points, min_side):
    outline = np.array([points], np.float32)
    boxes = bounding_boxes(outline, SIZE, 2, min_side)
    low, high = boxes.corners[0], boxes.corners[0] + boxes.sizes[0]
    assert (low >= 0).all() and (high <= SIZE).all()
    assert (boxes.sizes[0] >= np.minimum(min_side, SIZE)).all()
    expected_low, expected_high = (
        np.clip(outline.min(axis=1)[0] - 2, 0, SIZE),
        np.clip(outline.max(axis=1)[0] + 2, 0, SIZE),
    )
    if (expected_low < expected_high).all():
        assert (low <= expected_low).all() and (high >= expected_high).all()


def test_union_contains_both_boxes():
    first = Boxes(np.array([[3, 4], [10, 0]]), np.array([[5, 6], [2, 2]]), SIZE)
    second = Boxes(np.array([[1, 6], [11, 1]]), np.array([[4, 20], [1, 1]]), SIZE)
    both = first.union(second)
    assert both.corners.tolist() == [[1, 4], [10, 0]]
    assert both.sizes.tolist() == [[7, 22], [2, 2]]


def test_patches_hold_the_pixels_of_their_boxes():
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE[1], SIZE[0], 3), dtype=np.uint8)
    outlines = np.array([[[5, 5], [20, 12]], [[-9, 20], [4, 60]], [[30, 1], [39, 29]]], np.float32)
    boxes = bounding_boxes(outlines, SIZE, 1)
    patches = Patches.upload(list(images), boxes, CPU)
    assert patches.pixels.shape == (boxes.sizes.prod(axis=1).sum(), 3)
    inner = Boxes(boxes.corners + 1, boxes.sizes - 2, SIZE)
    for index, image in enumerate(images):
        assert np.array_equal(patches.image(index), image[boxes.slices(index)])
        assert np.array_equal(patches[index:].image(0), image[boxes.slices(index)])
        assert np.array_equal(patches.crop(index, inner, index), image[inner.slices(index)])
    assert np.array_equal(patches[1:][1:].image(0), images[2][boxes.slices(2)])


def test_full_frames_as_patches_need_no_copy_if_channels_last():
    frames = torch.randint(0, 256, (2, 3, 6, 9), dtype=torch.uint8)
    patches = Patches.from_frames(frames)
    assert torch.equal(rearrange(patches.image(1), "h w c -> c h w"), frames[1])
    beside = rearrange(rearrange(frames, "f c h w -> f h w c").contiguous(), "f h w c -> f c h w")
    assert Patches.from_frames(beside).pixels.data_ptr() == beside.data_ptr()
