"""The face check on aligned crops, with the bundled detector."""

import random

import numpy as np
import pytest
from einops import rearrange

from latentsync.data.clips.face_check import FaceCheck
from latentsync.errors import DependencyError

pytest.importorskip("mediapipe", reason="the bundled face detector is not installed here")


@pytest.fixture(scope="module")
def crops():
    from latentsync.synthetic.clip import sample_state, sample_utterance
    from latentsync.synthetic.head.renderer import HeadRenderer

    generator, renderer, rendered = random.Random(3), HeadRenderer(), []
    for _ in range(3):
        state = sample_state(sample_utterance(generator, sentences=1), generator, 2)
        rendered.append(rearrange((renderer.render_aligned(state, 128) * 255).round().byte(), "t c h w -> t h w c")[1])
    return [np.ascontiguousarray(crop.numpy()) for crop in rendered]


def test_face_crops_pass_and_other_images_fail(crops):
    check = FaceCheck()
    assert [check.all_have_faces([crop]) for crop in crops] == [True] * 3
    rng = np.random.default_rng(0)
    others = [rng.integers(0, 255, (128, 128, 3), dtype=np.uint8), np.full((128, 128, 3), 90, np.uint8)]
    # Also right after a face: detector state from one clip must not affect the next.
    for other in others:
        assert check.all_have_faces([crops[0]])
        assert not check.all_have_faces([other])
        assert not check.all_have_faces([crops[0], other])


def test_missing_detector_is_reported_immediately():
    def absent():
        raise DependencyError("mediapipe is not installed")

    with pytest.raises(DependencyError):
        FaceCheck(absent).check_available()
