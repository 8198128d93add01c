import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentsync.errors import ConfigError, DependencyError
from latentsync.face.detection.detector import box_overlap, check_frame
from latentsync.face.detection.insightface_detector import InsightfaceDetector, as_detection
from latentsync.face.detection.landmarks106 import RawFace

boxes = st.tuples(st.floats(0, 100), st.floats(0, 100), st.floats(1, 100), st.floats(1, 100)).map(
    lambda values: (values[0], values[1], values[0] + values[2], values[1] + values[3])
)


@given(boxes, boxes)
def test_overlap_is_symmetric_and_between_zero_and_one(first, second):
    overlap = box_overlap(first, second)
    assert 0 <= overlap <= 1 + 1e-9
    assert overlap == pytest.approx(box_overlap(second, first))
    assert box_overlap(first, first) == pytest.approx(1)


def test_overlap_of_half_shifted_squares():
    assert box_overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_overlap((0, 0, 0, 0), (0, 0, 0, 0)) == 0


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_arrays_that_are_not_rgb_images_are_refused(frame):
    with pytest.raises(ConfigError, match="RGB image"):
        check_frame(frame)


def test_missing_insightface_files_are_named(tmp_path):
    with pytest.raises(DependencyError, match=r"det_10g\.onnx.*non-commercial"):
        InsightfaceDetector(root=tmp_path)


def test_insightface_control_points_are_not_rounded(golden):
    landmarks = golden("landmarks106_to_3").inputs["landmarks106"][0].numpy().astype(np.float32)
    face = as_detection(RawFace(np.array([1, 2, 30, 40], np.float32), 0.8, landmarks))
    assert face.control_points.shape == (3, 2)
    assert np.any(face.control_points != np.rint(face.control_points))
    np.testing.assert_allclose(face.center, [15.5, 21])
