"""Film strips: corresponding frames of several videos of one scene, one row per video."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from latentsync.errors import ConfigError, MediaError
from latentsync.media.video_reader import VideoReader

ImageArray = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]

_LABEL_WIDTH = 84
_LABEL_SIZE = 14


@dataclass(frozen=True)
class StripLayout:
    """Layout of a film strip.

    Attributes:
        crop: left, top, width and height in pixels of the videos; None shows whole frames.
        columns: number of frames, spaced evenly over the shortest video.
        width: width of a cell in pixels.
        labels: text to write beside each row; empty for none.
    """

    crop: Box | None = None
    columns: int = 8
    width: int = 160
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.columns < 1 or self.width < 1:
            raise ConfigError(
                f"Cannot lay out a strip of {self.columns} columns of {self.width} pixels; expected at least 1 each"
            )


def evenly_spaced(count: int, columns: int) -> list[int]:
    """Indices of ``columns`` frames spaced evenly over ``count`` frames, excluding the ends."""
    return [count * (2 * column + 1) // (2 * columns) for column in range(columns)]


def frame_count(path: Path, fps: Fraction) -> int:
    """Number of frames of a video when read at ``fps``, counted by decoding it."""
    return sum(1 for _ in VideoReader(path, fps))


def cell(pixels: ImageArray, crop: Box | None, width: int) -> ImageArray:
    """Crop a frame (h, w, 3) and scale it to ``width``, keeping its aspect ratio.

    Raises:
        ConfigError: the crop does not fit into the frame.
    """
    frame_height, frame_width = pixels.shape[:2]
    left, top, crop_width, crop_height = crop or (0, 0, frame_width, frame_height)
    right, bottom = left + crop_width, top + crop_height
    if min(left, top) < 0 or min(crop_width, crop_height) < 1 or right > frame_width or bottom > frame_height:
        raise ConfigError(
            f"--crop {left} {top} {crop_width} {crop_height} does not fit into a frame of {frame_width} x "
            f"{frame_height}; expected LEFT TOP WIDTH HEIGHT within it"
        )
    image = Image.fromarray(pixels[top:bottom, left:right])
    return np.asarray(image.resize((width, max(1, round(width * crop_height / crop_width))), Image.Resampling.LANCZOS))


def make_strip(videos: Sequence[Path], layout: StripLayout) -> ImageArray:
    """Corresponding frames of several videos, one row per video: (rows * h, columns * w, 3) uint8 RGB.

    Args:
        videos: at least one, all of the same frame size; all are read at the frame rate of the last one.
        layout: layout of the strip; with ``labels``, a margin on the left names the rows.

    Raises:
        ConfigError: the crop does not fit into a frame, or the numbers of labels and videos differ.
        MediaError: a video cannot be read.
    """
    if layout.labels and len(layout.labels) != len(videos):
        raise ConfigError(f"Got {len(layout.labels)} labels for {len(videos)} videos; give one for each or none")
    fps = VideoReader(videos[-1]).fps
    indices = evenly_spaced(min(frame_count(video, fps) for video in videos), layout.columns)
    rows = [np.concatenate(_read_cells(video, fps, indices, layout), axis=1) for video in videos]
    if layout.labels:
        rows = [np.concatenate([_label(text, len(row)), row], axis=1) for text, row in zip(layout.labels, rows)]
    return np.concatenate(rows)


def save_image(image: ImageArray, path: Path, quality: int = 88) -> None:
    """Write (h, w, 3) uint8 RGB atomically, replacing an existing file; ``quality`` applies to JPEG."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        Image.fromarray(image).save(partial, quality=quality)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_cells(path: Path, fps: Fraction, indices: Sequence[int], layout: StripLayout) -> list[ImageArray]:
    """Cells (h, width, 3) of the frames with the given ascending indices at rate ``fps``."""
    cells: dict[int, ImageArray] = {}
    for frame in VideoReader(path, fps):
        if frame.index in indices:
            cells[frame.index] = cell(frame.pixels, layout.crop, layout.width)
        if frame.index >= indices[-1]:
            return [cells[index] for index in indices]
    raise MediaError(f"{path} ends before frame {indices[-1]}; give a result that was generated from this source")


def _label(text: str, height: int) -> ImageArray:
    """(height, _LABEL_WIDTH, 3) dark text on white."""
    canvas = Image.new("RGB", (_LABEL_WIDTH, height), "white")
    font = ImageFont.load_default(_LABEL_SIZE)
    ImageDraw.Draw(canvas).text((6, height // 2), text, fill=(40, 40, 40), font=font, anchor="lm")
    return np.asarray(canvas)
