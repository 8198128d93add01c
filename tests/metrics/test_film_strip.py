"""Film strips: frame selection, cropping, labels and one row per video."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentsync.errors import ConfigError
from latentsync.media.video_writer import VideoWriter
from latentsync.metrics.film_strip import StripLayout, cell, evenly_spaced, make_strip, save_image


def write_greys(path: Path, greys: list[int], left_dark: bool = False) -> Path:
    with VideoWriter(path, 64, 48, Fraction(25), None) as writer:
        for grey in greys:
            pixels = np.full((48, 64, 3), grey, np.uint8)
            if left_dark:
                pixels[:, :32] = 0
            writer.write(pixels)
    return path


def test_frames_are_spaced_evenly_over_the_video():
    assert evenly_spaced(80, 4) == [10, 30, 50, 70]
    assert evenly_spaced(1, 2) == [0, 0]


def test_rows_show_corresponding_frames_of_both_videos(tmp_path: Path):
    source = write_greys(tmp_path / "source.mp4", [40 + 10 * index for index in range(8)])
    result = write_greys(tmp_path / "result.mp4", [60 + 20 * index for index in range(6)])
    strip = make_strip([source, result], StripLayout(columns=3, width=32))
    assert strip.shape == (2 * 24, 3 * 32, 3)
    cells = strip.reshape(2, 24, 3, 32, 3).mean(axis=(1, 3, 4))
    assert cells == pytest.approx(np.array([[50, 70, 90], [80, 120, 160]]), abs=3)


def test_only_the_crop_is_shown(tmp_path: Path):
    video = write_greys(tmp_path / "video.mp4", [200] * 4, left_dark=True)
    strip = make_strip([video, video], StripLayout((40, 8, 20, 30), columns=2, width=10))
    assert strip.shape == (2 * 15, 20, 3)
    assert strip.min() > 190


@pytest.mark.parametrize("crop", [(-1, 0, 4, 4), (0, 0, 65, 4), (10, 40, 4, 9), (0, 0, 0, 4)])
def test_crop_outside_the_frame_is_rejected(crop: tuple[int, int, int, int]):
    with pytest.raises(ConfigError, match="does not fit into a frame of 64 x 48"):
        cell(np.zeros((48, 64, 3), np.uint8), crop, 16)


def test_labels_are_drawn_in_a_left_margin(tmp_path: Path):
    video = write_greys(tmp_path / "video.mp4", [120] * 4)
    plain = make_strip([video] * 3, StripLayout(columns=2, width=64))
    labelled = make_strip([video] * 3, StripLayout(columns=2, width=64, labels=("source", "truth", "generated")))
    margin = labelled.shape[1] - plain.shape[1]
    assert margin > 0
    assert np.array_equal(labelled[:, margin:], plain)
    assert all(part.min() < 128 and part.max() == 255 for part in np.split(labelled[:, :margin], 3))
    with pytest.raises(ConfigError, match="1 labels for 3 videos"):
        make_strip([video] * 3, StripLayout(labels=("source",)))


def test_strip_without_columns_is_rejected():
    with pytest.raises(ConfigError, match="at least 1 each"):
        StripLayout(columns=0)


def test_image_is_saved_without_leftovers(tmp_path: Path):
    image = np.full((20, 30, 3), 99, np.uint8)
    save_image(image, tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as saved:
        assert np.array_equal(np.asarray(saved), image)
    assert len(list(tmp_path.iterdir())) == 1
