"""One window of speech features per video frame, for audio of any length.

The encoder processes segments of `n_audio_ctx` positions (30 s for Whisper). The published system splits the audio
into adjacent segments, so that features jump every 30 s. Here segments overlap and are cross-faded where both have at
least a tenth of a segment (3 s) of context on either side. Segments are encoded on demand and only the last two are
cached, so sequential reading needs constant memory.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from latentsync.errors import MediaError
from latentsync.runtime.transfer import to_device
from latentsync.whisper.audio_encoder import AudioEncoder
from latentsync.whisper.log_mel import HOP_LENGTH, SAMPLE_RATE, LogMel

Continuity = Literal["continuous", "published"]

ROWS_PER_SECOND = 50
SAMPLES_PER_ROW = 2 * HOP_LENGTH

_MAX_CACHED_SEGMENTS = 2


def feature_length(num_samples: int) -> int:
    """Return the number of 20 ms feature rows in `num_samples` samples at 16 kHz."""
    return num_samples // SAMPLES_PER_ROW


def published_window_count(length: int, fps: Fraction | int) -> int:
    """Return the number of windows (= video frames) that the published system produces from `length` feature rows.

    It continues until a window's center lies beyond the last row, one or two frames after the end of the audio.
    """
    return math.ceil((length + 1) * Fraction(fps) / ROWS_PER_SECOND) + 1


def window_rows(
    start: int, stop: int, fps: Fraction | int, length: int, feat_length: tuple[int, int] = (2, 2)
) -> Tensor:
    """Return the feature row indices of the windows of video frames start..stop-1.

    Args:
        start: first video frame.
        stop: one after the last video frame.
        fps: frames per second of the video.
        length: number of feature rows; indices outside are clamped to the first or last row.
        feat_length: (left, right) context in units of two rows, `audio_feat_length` of the published configuration.

    Returns:
        (stop - start, 2 * (left + right + 1)) int64; window i covers center - 2 * left .. center + 2 * right + 1 with
        center = floor(50 * i / fps).
    """
    rate = Fraction(fps)
    centers = [frame * ROWS_PER_SECOND * rate.denominator // rate.numerator for frame in range(start, stop)]
    offsets = torch.arange(-2 * feat_length[0], 2 * feat_length[1] + 2)
    rows = rearrange(torch.tensor(centers, dtype=torch.int64), "f -> f 1") + offsets
    return rows.clamp(0, length - 1)


def gather_windows(features: Tensor, rows: Tensor) -> Tensor:
    """Gather rows of `features` into flattened windows, time-major.

    Args:
        features: (length, layers, d).
        rows: (f, r) int64 indices into `features`.

    Returns:
        (f, r * layers, d); (f, 50, d) for 10 rows of 5 layers.
    """
    return rearrange(features[to_device(rows, features.device)], "f r l d -> f (r l) d")


@dataclass(frozen=True)
class SegmentPlan:
    """Assignment of feature rows to encoder segments.

    Segment k covers rows k * hop .. k * hop + size. Its weight rises from 0 to 1 over `fade` rows, starting `margin`
    rows after its first row.
    """

    size: int
    hop: int
    margin: int
    fade: int

    @classmethod
    def for_continuity(cls, continuity: Continuity, size: int) -> "SegmentPlan":
        """Segments of `size` rows: adjacent for "published", overlapping by a third for "continuous"."""
        if continuity == "published":
            return cls(size, size, 0, 0)
        if continuity != "continuous":
            raise ValueError(f"continuity must be 'continuous' or 'published', got {continuity!r}")
        overlap = size // 3
        margin = size // 10
        return cls(size, size - overlap, margin, overlap - 2 * margin)

    def count(self, length: int) -> int:
        """Return the number of segments needed for `length` rows."""
        return max(1, math.ceil((length - self.size) / self.hop) + 1)

    def used_rows(self, index: int, length: int) -> tuple[int, int]:
        """Return the row range (first, stop) in which segment `index` has a weight above 0."""
        first = index * self.hop + self.margin if index else 0
        last_segment = index == self.count(length) - 1
        stop = length if last_segment else (index + 1) * self.hop + self.margin + self.fade
        return first, stop

    def segments_for(self, start: int, stop: int, length: int) -> range:
        """Return the segments needed for rows start..stop-1."""
        count = self.count(length)
        first = min(max(0, (start - self.margin - self.fade) // self.hop), count - 1)
        last = min(max(0, (stop - 1 - self.margin) // self.hop), count - 1)
        return range(first, last + 1)

    def rising_weights(self, start: int, stop: int, index: int) -> Tensor:
        """Return the cross-fade weights of segment `index` against its predecessor, for rows from `start` on.

        (n, 1, 1) float32 for the first n of the rows start..stop-1; n = 0 if none of them is in the cross-fade.
        """
        if index == 0:
            return torch.zeros(0, 1, 1)
        fade_start = index * self.hop + self.margin
        rows = torch.arange(start, max(start, min(stop, fade_start + self.fade)), dtype=torch.float64)
        progress = (rows - fade_start + 0.5) / max(1, self.fade)
        return rearrange(torch.sin(0.5 * math.pi * progress).square().float(), "n -> n 1 1")


class AudioWindows:
    """Speech feature windows of a video's frames, computed on demand.

    `windows[start:stop]` is (stop - start, 50, d) on the encoder's device and in its dtype: 10 rows of 20 ms by 5
    layers (4 blocks and their input), centered on the time of each frame; `len(windows)` is `num_frames`. Values do not
    depend on the slicing. Frames beyond the end of the audio repeat its last row.

    Args:
        encoder: computes features from log-mel segments.
        waveform: (n,) float32, 16 kHz mono, in [-1, 1].
        fps: frames per second of the output video.
        num_frames: number of output frames.
        continuity: "continuous" cross-fades overlapping segments; "published" uses adjacent 30 s segments. Both are
            equal for audio of up to one segment.
        feat_length: (left, right) context of a window in units of 40 ms.

    Raises:
        MediaError: less than 20 ms of audio, several channels, or samples that are not finite.
        ValueError: fps or num_frames out of range, or an unknown continuity.
    """

    def __init__(
        self,
        encoder: AudioEncoder,
        waveform: Tensor,
        fps: Fraction | int,
        num_frames: int,
        continuity: Continuity = "continuous",
        feat_length: tuple[int, int] = (2, 2),
    ) -> None:
        if fps <= 0 or num_frames < 0:
            raise ValueError(f"fps must be > 0 and num_frames >= 0, got {fps} and {num_frames}")
        self.encoder = encoder
        self.fps = Fraction(fps)
        self.num_frames = num_frames
        self.feat_length = feat_length
        self.plan = SegmentPlan.for_continuity(continuity, encoder.dims.n_audio_ctx)
        self._mel = LogMel(waveform, encoder.device)
        self.num_rows = feature_length(len(waveform))
        if self.num_rows == 0:
            raise MediaError(
                f"the audio is too short: {len(waveform)} samples ({1000 * len(waveform) / SAMPLE_RATE:.1f} ms); "
                "at least 20 ms are required"
            )
        self._segments: OrderedDict[int, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return self.num_frames

    def __getitem__(self, frames: slice) -> Tensor:
        start, stop, step = frames.indices(self.num_frames)
        if step != 1:
            raise ValueError(f"windows can be sliced with step 1 only, got {step}")
        rows = window_rows(start, max(start, stop), self.fps, self.num_rows, self.feat_length)
        if len(rows) == 0:
            layers, width = self.encoder.dims.n_audio_layer + 1, self.encoder.dims.n_audio_state
            return torch.zeros(0, rows.shape[1] * layers, width, device=self.encoder.device, dtype=self.encoder.dtype)
        first, last = int(rows[0, 0]), int(rows[-1, -1])
        return gather_windows(self.features(first, last + 1), rows - first)

    @torch.no_grad()
    def features(self, start: int, stop: int) -> Tensor:
        """Return feature rows start..stop-1 of the `num_rows` rows: (stop - start, layers + 1, d)."""
        if not 0 <= start < stop <= self.num_rows:
            raise ValueError(f"rows {start}..{stop} are outside the audio's rows 0..{self.num_rows}")
        dims = self.encoder.dims
        features = torch.empty(
            stop - start,
            dims.n_audio_layer + 1,
            dims.n_audio_state,
            device=self.encoder.device,
            dtype=self.encoder.dtype,
        )
        for index in self.plan.segments_for(start, stop, self.num_rows):
            used_first, used_stop = self.plan.used_rows(index, self.num_rows)
            first, last = max(start, used_first), min(stop, used_stop)
            offset = index * self.plan.hop
            segment = self._segment(index)[first - offset : last - offset]
            target = features[first - start : last - start]
            weights = to_device(self.plan.rising_weights(first, last, index), features.device)
            faded = len(weights)
            target[:faded] = torch.lerp(target[:faded].float(), segment[:faded].float(), weights)
            target[faded:] = segment[faded:]
        return features

    def _segment(self, index: int) -> Tensor:
        """Return all rows of segment `index`, (size, layers + 1, d), from the cache or by encoding it."""
        if index not in self._segments:
            start, columns = 2 * index * self.plan.hop, 2 * self.plan.size
            mel = self._mel[start : start + columns]
            mel = torch.nn.functional.pad(mel, (0, columns - mel.shape[1]))
            self._segments[index] = self.encoder(mel.unsqueeze(0))[0]
        self._segments.move_to_end(index)
        while len(self._segments) > _MAX_CACHED_SEGMENTS:
            self._segments.popitem(last=False)
        return self._segments[index]
