"""Film strips: the same moments of several videos of one scene, a row for each video."""

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
    """What a strip shows.

    Attributes:
        crop: left, top, width and height in pixels of the videos; None takes the whole picture.
        columns: moments, spread evenly over the shortest video.
        width: of a cell in pixels.
        labels: what to write beside each row, empty for nothing.
    """

    crop: Box | None = None
    columns: int = 8
    width: int = 160
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.columns < 1 or self.width < 1:
            raise ConfigError(f"A strip of {self.columns} columns, {self.width} pixels each: expected at least 1 each")


def spread(count: int, columns: int) -> list[int]:
    """Frame numbers of ``columns`` moments spread evenly over ``count`` frames, none at the very ends."""
    return [count * (2 * column + 1) // (2 * columns) for column in range(columns)]


def frame_count(path: Path, fps: Fraction) -> int:
    """Number of frames of a video at that rate, found by reading it."""
    return sum(1 for _ in VideoReader(path, fps))


def cell(pixels: ImageArray, crop: Box | None, width: int) -> ImageArray:
    """Cut a box out of an (h, w, 3) picture and scale it to a width; raises ConfigError when the box does not fit."""
    left, top, across, down = crop or (0, 0, pixels.shape[1], pixels.shape[0])
    if min(left, top) < 0 or min(across, down) < 1 or left + across > pixels.shape[1] or top + down > pixels.shape[0]:
        raise ConfigError(
            f"--crop {left} {top} {across} {down} does not fit into a picture of {pixels.shape[1]} x {pixels.shape[0]}"
        )
    piece = Image.fromarray(pixels[top : top + down, left : left + across])
    return np.asarray(piece.resize((width, max(1, round(width * down / across))), Image.Resampling.LANCZOS))


def make_strip(videos: Sequence[Path], layout: StripLayout) -> ImageArray:
    """Frames of the same moments, a row for each video: (rows * h, columns * w, 3) uint8 RGB.

    Args:
        videos: at least one, of one picture size; the last one's frame rate counts the moments.
        layout: what to show; with ``labels`` a margin on the left names the rows.

    Raises:
        ConfigError: the crop reaches out of a picture, or there are not as many labels as videos.
        MediaError: a video cannot be read.
    """
    if layout.labels and len(layout.labels) != len(videos):
        raise ConfigError(f"Got {len(layout.labels)} labels for {len(videos)} videos; give one for each or none")
    fps = VideoReader(videos[-1]).fps
    wanted = spread(min(frame_count(video, fps) for video in videos), layout.columns)
    rows = [np.concatenate(_read_cells(video, fps, wanted, layout), axis=1) for video in videos]
    if layout.labels:
        rows = [np.concatenate([_label(text, len(row)), row], axis=1) for text, row in zip(layout.labels, rows)]
    return np.concatenate(rows)


def save_image(image: ImageArray, path: Path, quality: int = 88) -> None:
    """Write (h, w, 3) uint8 RGB under its final name in one step, replacing what is there; quality is a JPEG's."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        Image.fromarray(image).save(partial, quality=quality)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_cells(path: Path, fps: Fraction, wanted: Sequence[int], layout: StripLayout) -> list[ImageArray]:
    """The cells (h, width, 3) of the frames ``wanted``, ascending numbers at rate ``fps``."""
    cells: dict[int, ImageArray] = {}
    for frame in VideoReader(path, fps):
        if frame.index in wanted:
            cells[frame.index] = cell(frame.pixels, layout.crop, layout.width)
        if frame.index >= wanted[-1]:
            return [cells[index] for index in wanted]
    raise MediaError(f"{path} ends before frame {wanted[-1]}; give a result that was made from this source")


def _label(text: str, height: int) -> ImageArray:
    """(height, _LABEL_WIDTH, 3) dark text on white."""
    canvas = Image.new("RGB", (_LABEL_WIDTH, height), "white")
    font = ImageFont.load_default(_LABEL_SIZE)
    ImageDraw.Draw(canvas).text((6, height // 2), text, fill=(40, 40, 40), font=font, anchor="lm")
    return np.asarray(canvas)
