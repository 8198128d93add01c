"""The detector with precomputed control points."""

import numpy as np
import pytest

from latentsync.errors import ConfigError
from latentsync.face.detection.known_points import KnownPointsDetector
from latentsync.face.geometry.affine import crop_size, face_template

FRAME = np.zeros((300, 300, 3), np.uint8)


def test_points_are_returned_in_frame_order():
    points = face_template(256) + np.arange(3)[:, None, None] * 10
    detector = KnownPointsDetector(points)
    for index in range(3):
        (face,) = detector.detect(FRAME)
        assert face.control_points == pytest.approx(points[index])
        width, height = crop_size(256)
        shift = index * 10
        assert face.box == pytest.approx(np.array([shift, shift, width + shift, height + shift]), abs=0.01)


def test_more_frames_than_points_is_an_error():
    detector = KnownPointsDetector(face_template(256)[None])
    detector.detect(FRAME)
    with pytest.raises(ConfigError, match="the video has more"):
        detector.detect(FRAME)


def test_points_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"\(3, 2\); expected"):
        KnownPointsDetector(np.zeros((3, 2)))
