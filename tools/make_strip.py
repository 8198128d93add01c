"""Make a picture of two rows: frames of a source video, and below them the same frames of its lip-synced version.

    python -m tools.make_strip --source me.mp4 --result outputs/me_lipsync.mp4 --out strip.jpg --crop 230 160 310 350

The crop is given in pixels of the videos. docs/evaluation.md has the command for the strip in README.md.
"""

import argparse
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from latentsync.errors import ConfigError, LatentSyncError, MediaError
from latentsync.media.video_reader import VideoReader

Picture = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]


def spread(count: int, columns: int) -> list[int]:
    """Frame numbers of ``columns`` moments spread evenly over ``count`` frames, none at the very ends."""
    return [count * (2 * column + 1) // (2 * columns) for column in range(columns)]


def frame_count(path: Path, fps: Fraction) -> int:
    """Number of frames of a video at that rate, found by reading it."""
    return sum(1 for _ in VideoReader(path, fps))


def read_cells(path: Path, fps: Fraction, wanted: Sequence[int], crop: Box | None, width: int) -> list[Picture]:
    """Read some frames, cut out and scaled.

    Args:
        path: the video.
        fps: rate that ``wanted`` counts at.
        wanted: frame numbers, ascending.
        crop: left, top, width and height in pixels; None takes the whole picture.
        width: of a cell in pixels.

    Returns:
        (h, width, 3) uint8 RGB for each wanted frame.

    Raises:
        ConfigError: the crop reaches out of the picture.
        MediaError: the video cannot be read, or ends too early.
    """
    cells: dict[int, Picture] = {}
    for frame in VideoReader(path, fps):
        if frame.index in wanted:
            cells[frame.index] = cell(frame.pixels, crop, width)
        if frame.index >= wanted[-1]:
            return [cells[index] for index in wanted]
    raise MediaError(f"{path} ends before frame {wanted[-1]}; give a result that was made from this source")


def cell(pixels: Picture, crop: Box | None, width: int) -> Picture:
    """Cut a box out of an (h, w, 3) picture and scale it to a width; raises ConfigError when the box does not fit."""
    left, top, across, down = crop or (0, 0, pixels.shape[1], pixels.shape[0])
    if min(left, top) < 0 or min(across, down) < 1 or left + across > pixels.shape[1] or top + down > pixels.shape[0]:
        raise ConfigError(
            f"--crop {left} {top} {across} {down} does not fit into a picture of {pixels.shape[1]} x {pixels.shape[0]}"
        )
    piece = Image.fromarray(pixels[top : top + down, left : left + across])
    return np.asarray(piece.resize((width, max(1, round(width * down / across))), Image.Resampling.LANCZOS))


def make_strip(source: Path, result: Path, crop: Box | None, columns: int, width: int) -> Picture:
    """Source frames above the result's frames of the same moments: (2 h, columns * width, 3) uint8 RGB.

    Raises:
        ConfigError: the crop reaches out of a picture, or there are no columns.
        MediaError: a video cannot be read.
    """
    if columns < 1 or width < 1:
        raise ConfigError(f"--columns {columns}, --width {width}: expected at least 1 each")
    fps = VideoReader(result).fps
    wanted = spread(min(frame_count(source, fps), frame_count(result, fps)), columns)
    rows = [np.concatenate(read_cells(path, fps, wanted, crop, width), axis=1) for path in (source, result)]
    return np.concatenate(rows)


def main() -> int:
    """Read the command line and write the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="the video that was given to lip-sync")
    parser.add_argument("--result", type=Path, required=True, help="what came out")
    parser.add_argument("--out", type=Path, required=True, help="the picture to write (.jpg, .png)")
    parser.add_argument("--crop", type=int, nargs=4, metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"), help="in pixels")
    parser.add_argument("--columns", type=int, default=8, help="moments to show (%(default)s)")
    parser.add_argument("--width", type=int, default=160, help="of a column in pixels (%(default)s)")
    parser.add_argument("--quality", type=int, default=88, help="of a JPEG, 1 to 95 (%(default)s)")
    options = parser.parse_args()
    crop: Box | None = tuple(options.crop) if options.crop else None
    try:
        strip = make_strip(options.source, options.result, crop, options.columns, options.width)
    except LatentSyncError as error:
        print(error, file=sys.stderr)
        return 1
    Image.fromarray(strip).save(options.out, quality=options.quality)
    return 0


if __name__ == "__main__":
    sys.exit(main())
