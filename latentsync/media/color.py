"""How pixels are coded as colour: the tags of a file, and the two conversions that must be each other's inverse."""

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

UNSPECIFIED = 2
"""ITU-T H.273 code point of "not said" for matrix, primaries and transfer (a range uses 0)."""

_BT709 = 1
_SMPTE170M = 6
_BT2020 = 9
_FULL_RANGE = 2
_LIMITED_RANGE = 1
_HDR_TRANSFERS = (16, 18)

# H.273 matrix -> swscale's colour space constant. BT.470BG and SMPTE 170M are the same matrix (BT.601).
_SWSCALE_SPACES = {_BT709: 1, 4: 4, 5: 5, _SMPTE170M: 5, 7: 7, _BT2020: 9, 10: 9}

# Without these flags swscale takes a fast path that is 1-2 levels off in luma (46 dB instead of 59 dB, 1080p, RGB there
# and back) and spreads each chroma sample over two pixels unfiltered.
_ACCURATE = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_TO_RGB = Interpolation.BILINEAR | _ACCURATE
_FROM_RGB = Interpolation.BICUBIC | _ACCURATE


@dataclass(frozen=True)
class ColorTags:
    """Colour description of a video stream, as ITU-T H.273 code points.

    ``matrix``, ``primaries`` and ``transfer`` are 2 and ``range`` is 0 where the file does not say.
    """

    matrix: int = UNSPECIFIED
    range: int = 0
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer function is PQ or HLG."""
        return self.transfer in _HDR_TRANSFERS

    def swscale_space(self, width: int, height: int) -> int:
        """Swscale's constant of the matrix; where the file does not say, players' rule: BT.709 from HD sizes up."""
        if self.matrix in _SWSCALE_SPACES:
            return _SWSCALE_SPACES[self.matrix]
        return _SWSCALE_SPACES[_BT709 if width >= 1280 or height > 576 else _SMPTE170M]

    @property
    def swscale_range(self) -> int:
        """Swscale's constant of the range (1 limited, 2 full); limited where the file does not say."""
        return _FULL_RANGE if self.range == _FULL_RANGE else _LIMITED_RANGE


def frame_tags(frame: VideoFrame) -> ColorTags:
    """Tags of a decoded frame; formats that cannot be written back as they are (RGB, YCgCo) give empty tags."""
    matrix = int(frame.colorspace)
    known = matrix in _SWSCALE_SPACES or matrix == UNSPECIFIED
    full = frame.format.name.startswith("yuvj")
    return ColorTags(
        matrix=matrix if known else UNSPECIFIED,
        range=_FULL_RANGE if full else int(frame.color_range) if known else 0,
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
    )


def to_rgb(
    frame: VideoFrame, tags: ColorTags, reformatter: VideoReformatter, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Convert a decoded frame to (h, w, 3) uint8 RGB, contiguous and owned by the caller.

    Args:
        frame: any pixel format and bit depth.
        tags: colour description of the stream.
        reformatter: kept between frames so that swscale's tables are made once.
        size: (w, h) of the result, for streams that change their size half-way; None keeps the frame's.
    """
    width, height = size or (frame.width, frame.height)
    converted = reformatter.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        src_colorspace=None if frame.format.is_rgb else tags.swscale_space(frame.width, frame.height),
        src_color_range=None if frame.format.is_rgb else tags.swscale_range,
        dst_color_range=_FULL_RANGE,
        interpolation=int(_TO_RGB),
    )
    return np.ascontiguousarray(converted.to_ndarray())


def from_rgb(pixels: np.ndarray, pix_fmt: str, tags: ColorTags, reformatter: VideoReformatter) -> VideoFrame:
    """Convert (h, w, 3) uint8 RGB to a frame of ``pix_fmt`` by the matrix and range of ``tags``."""
    height, width = pixels.shape[:2]
    return reformatter.reformat(
        VideoFrame.from_numpy_buffer(pixels, format="rgb24"),
        format=pix_fmt,
        src_color_range=_FULL_RANGE,
        dst_colorspace=tags.swscale_space(width, height),
        dst_color_range=tags.swscale_range,
        interpolation=int(_FROM_RGB),
    )
