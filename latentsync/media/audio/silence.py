"""Detection of long silences in speech, where the source's own mouth may be kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError

SpeechWeights = npt.NDArray[np.float32]
_LOUD_PERCENTILE, _LOUD_RANGE_DB = 95, 40.0


@dataclass(frozen=True)
class SilenceOptions:
    """What counts as silence. Durations are in seconds."""

    threshold_db: float = 35.0
    """A frame is silent if its level is at least this many dB below the loud parts of the track."""
    min_duration: float = 0.5
    """Shorter silences are treated as speech."""
    margin: float = 0.08
    """The generated mouth is kept this long at either end of a silence, while it closes and opens."""
    fade: float = 0.16
    """Duration of the cross-fade between the generated and the source mouth."""

    def __post_init__(self) -> None:
        if min(self.threshold_db, self.margin, self.fade) < 0 or self.min_duration <= 2 * (self.margin + self.fade):
            raise ConfigError(
                f"Silence options out of range: {self}; no value may be negative, and both margins and fades must fit "
                "into min_duration."
            )


def speech_weights(
    waveform: npt.NDArray[np.float32],
    sample_rate: int,
    fps: Fraction,
    num_frames: int,
    options: SilenceOptions | None = None,
) -> SpeechWeights:
    """Blend weight of the generated mouth in every output frame: 1 in speech, 0 in long silences.

    A track that contains no speech, only zeros or steady noise, has weight 1 everywhere.

    Args:
        waveform: (n,) mono in [-1, 1]; output frames beyond its end are silent.
        sample_rate: in Hz.
        fps: of the output.
        num_frames: of the output.
        options: what counts as silence.

    Returns:
        (num_frames,) float32 in [0, 1].
    """
    options = options or SilenceOptions()
    levels = _frame_levels(waveform, sample_rate, fps)
    total = max(num_frames, len(levels))  # the whole track even for a preview, whose end is not the end of the track
    weights = np.ones(total, np.float32)
    loudest = levels.max(initial=0.0)
    if loudest == 0:
        return weights[:num_frames]
    # Percentile over frames close to the peak level only: a track may be silent almost all of the time.
    loud = float(np.percentile(levels[levels > loudest * 10 ** (-_LOUD_RANGE_DB / 20)], _LOUD_PERCENTILE))
    silent = np.ones(total, bool)
    silent[: len(levels)] = levels < loud * 10 ** (-options.threshold_db / 20)
    margin, fade = float(options.margin * fps), float(options.fade * fps)
    for start, stop in _runs(silent):
        if stop - start < options.min_duration * fps:
            continue
        # Distance in frames to the speech before and after; infinite at the ends of the track.
        since = np.arange(stop - start) if start else np.full(stop, np.inf)
        until = np.arange(stop - start)[::-1] if stop < total else np.full(stop - start, np.inf)
        inside = np.minimum(since, until) + 1 - margin
        weights[start:stop] = np.clip(1 - inside / (fade + 1), 0, 1)
    return weights[:num_frames]


def _frame_levels(waveform: npt.NDArray[np.float32], sample_rate: int, fps: Fraction) -> npt.NDArray[np.float64]:
    """(frames,) RMS level of the audio of each video frame, without its DC offset."""
    edges = [int(index * sample_rate / fps) for index in range(int(len(waveform) * fps / sample_rate) + 2)]
    chunks = (waveform[start:stop].astype(np.float64) for start, stop in zip(edges, edges[1:]))
    return np.array([chunk.std() if chunk.size else 0.0 for chunk in chunks])


def _runs(flags: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist())
