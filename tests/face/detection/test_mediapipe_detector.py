from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from latentsync.face.detection.mediapipe_detector import MediapipeDetector

pytest.importorskip("mediapipe")
skimage_data = pytest.importorskip("skimage.data")

BROWS_AND_NOSE = [[200, 88], [251, 91], [223, 124]]  # annotated by hand, in pixels of the portrait


@pytest.fixture(scope="module")
def portrait():
    return skimage_data.astronaut()


@pytest.fixture
def detector():
    built = MediapipeDetector()
    yield built
    built.close()


def scene(width, height, *parts):
    """A gray frame with (portrait, left, top, scale) pasted in."""
    image = np.full((height, width, 3), 90, np.uint8)
    for portrait, left, top, scale in parts:
        small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return image


def test_control_points_lie_on_brows_and_nose(detector, portrait):
    (face,) = detector.detect(portrait)
    np.testing.assert_allclose(face.control_points, BROWS_AND_NOSE, atol=4)
    assert face.score > 0.7
    assert face.yaw is not None
    assert face.yaw < 0.3
    x0, y0, x1, y1 = face.box
    assert x0 < 195
    assert x1 > 255
    assert y0 < 85
    assert y1 > 160


@pytest.mark.parametrize(("width", "height", "scale"), [(1280, 720, 0.4), (1920, 1080, 0.25)])
def test_small_faces_in_large_frames_are_detected(detector, portrait, width, height, scale):
    frame = scene(width, height, (portrait, 900, 400, scale))
    for _ in range(2):
        (face,) = detector.detect(frame)
        np.testing.assert_allclose((face.control_points - (900, 400)) / scale, BROWS_AND_NOSE, atol=6)


def test_several_faces_are_detected(detector, portrait):
    flipped = np.ascontiguousarray(portrait[:, ::-1])
    faces = detector.detect(scene(1280, 600, (portrait, 20, 20, 1.0), (flipped, 700, 60, 0.8)))
    assert len(faces) == 2
    left, right = sorted(faces, key=lambda face: face.center[0])
    np.testing.assert_allclose(left.control_points - (20, 20), BROWS_AND_NOSE, atol=5)
    assert right.center[0] > 700


def test_frames_searched_ahead_have_the_same_faces(detector, portrait):
    # Including a distant face and an empty frame, for which detection falls back to the tiled search.
    frames = [scene(1280, 600, (portrait, 20 + 4 * step, 20, 1.0)) for step in range(5)]
    frames += [scene(1920, 1080, (portrait, 900, 400, 0.25)), np.full((600, 1280, 3), 90, np.uint8)]
    expected = [detector.detect(frame) for frame in frames]
    other = MediapipeDetector()
    with ThreadPoolExecutor(1) as ahead:
        searched = [ahead.submit(other.search, frame) for frame in frames]
        found = [other.detect(frame, search.result()) for frame, search in zip(frames, searched, strict=True)]
    other.close()
    assert [len(faces) for faces in found] == [1, 1, 1, 1, 1, 1, 0]
    for faces, same in zip(found, expected, strict=True):
        for face, before in zip(faces, same, strict=True):
            np.testing.assert_array_equal(face.control_points, before.control_points)


def test_no_stale_faces_after_a_cut(detector, portrait):
    first = scene(1280, 600, (portrait, 20, 20, 1.0))
    second = scene(1280, 600, (portrait, 700, 60, 0.8))
    for _ in range(3):
        assert len(detector.detect(first)) == 1
    (face,) = detector.detect(second)
    np.testing.assert_allclose((face.control_points - (700, 60)) / 0.8, BROWS_AND_NOSE, atol=5)
    assert detector.detect(np.full((600, 1280, 3), 90, np.uint8)) == []


@pytest.mark.parametrize("angle", [-40, 40])
def test_tilted_heads_are_detected(detector, portrait, angle):
    rotation = cv2.getRotationMatrix2D((223, 130), angle, 1.0)
    (face,) = detector.detect(cv2.warpAffine(portrait, rotation, (512, 512)))
    expected = np.array(BROWS_AND_NOSE) @ rotation[:, :2].T + rotation[:, 2]
    np.testing.assert_allclose(face.control_points, expected, atol=6)


def test_images_without_faces_give_no_detections(detector):
    noise = np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8)
    assert detector.detect(noise) == []
    assert detector.detect(np.zeros((20, 2000, 3), np.uint8)) == []
    assert detector.detect(np.zeros((1, 1, 3), np.uint8)) == []


@pytest.mark.parametrize("name", ["woman_1080p25_hevc.mp4", "man_1080p25_hevc.mp4", "drawn_man_704x1216p25_h264.mp4"])
def test_real_clips_have_one_face_in_every_frame(detector, samples_dir, name):
    av = pytest.importorskip("av")
    with av.open(str(samples_dir / name)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 25 == 0:
                assert len(detector.detect(frame.to_ndarray(format="rgb24"))) == 1, f"frame {index}"
