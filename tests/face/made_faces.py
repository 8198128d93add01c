"""Synthetic detections for tests of the stages after the detector."""

import numpy as np

from latentsync.face.detection.detector import FaceDetection
from latentsync.face.geometry.affine import face_template

_TEMPLATE = face_template(256) / 114.8  # brows one unit apart


def made_face(x, y, size, roll=0.0, yaw=0.0, noise=None):
    """A square face of `size` pixels around (x, y), rolled by `roll` radians, control points shifted by `noise`."""
    shape = (_TEMPLATE - _TEMPLATE.mean(axis=0)) * size / 2
    rotation = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    points = shape @ rotation.T + (x, y)
    if noise is not None:
        points = points + noise
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)
    return FaceDetection(box, 0.9, points.astype(np.float32), yaw)
