"""Color handling: the color tags of a stream, and conversions to and from RGB that are inverse to each other."""

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

UNSPECIFIED = 2
"""ITU-T H.273 code point "unspecified" of matrix, primaries and transfer (0 for the range)."""

_BT709 = 1
_SMPTE170M = 6
_BT2020 = 9
_FULL_RANGE = 2
_LIMITED_RANGE = 1
_HDR_TRANSFERS = (16, 18)

# H.273 matrix -> swscale color space constant. BT.470BG and SMPTE 170M are the same matrix (BT.601).
_SWSCALE_SPACES = {_BT709: 1, 4: 4, 5: 5, _SMPTE170M: 5, 7: 7, _BT2020: 9, 10: 9}

# Without these flags swscale takes a fast path that is 1-2 levels off in luma (46 dB instead of 59 dB for a 1080p RGB
# round trip) and repeats each chroma sample over two pixels without interpolation.
_ACCURATE = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_TO_RGB = Interpolation.BILINEAR | _ACCURATE
_FROM_RGB = Interpolation.BICUBIC | _ACCURATE


@dataclass(frozen=True)
class ColorTags:
    """Color description of a video stream, as ITU-T H.273 code points.

    Unspecified: 2 for ``matrix``, ``primaries`` and ``transfer``, 0 for ``range``.
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
        """Swscale constant of the matrix; if unspecified, BT.709 for HD sizes and BT.601 below, as players assume."""
        if self.matrix in _SWSCALE_SPACES:
            return _SWSCALE_SPACES[self.matrix]
        return _SWSCALE_SPACES[_BT709 if width >= 1280 or height > 576 else _SMPTE170M]

    @property
    def swscale_range(self) -> int:
        """Swscale constant of the range (1 limited, 2 full); limited if unspecified."""
        return _FULL_RANGE if self.range == _FULL_RANGE else _LIMITED_RANGE


def frame_tags(frame: VideoFrame) -> ColorTags:
    """Color tags of a decoded frame; unspecified for formats that cannot be written back (RGB, YCgCo)."""
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
        tags: color description of the stream.
        reformatter: reused between frames so that swscale builds its tables once.
        size: (w, h) of the result, for streams that change size midway; None keeps the frame size.
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
    """Convert (h, w, 3) uint8 RGB to a frame of ``pix_fmt`` with the matrix and range of ``tags``."""
    height, width = pixels.shape[:2]
    return reformatter.reformat(
        VideoFrame.from_numpy_buffer(pixels, format="rgb24"),
        format=pix_fmt,
        src_color_range=_FULL_RANGE,
        dst_colorspace=tags.swscale_space(width, height),
        dst_color_range=tags.swscale_range,
        interpolation=int(_FROM_RGB),
    )
