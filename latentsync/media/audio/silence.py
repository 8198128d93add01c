"""Where speech is silent for long, so that the source's own mouth may stay there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError

SpeechWeights = npt.NDArray[np.float32]
_LOUD_PERCENTILE, _NEAR_LOUDEST = 95, 40.0


@dataclass(frozen=True)
class SilenceOptions:
    """What counts as silence. Durations are in seconds."""

    threshold_db: float = 35.0
    """A frame is silent if its level is this many dB below the loud parts of the track."""
    min_duration: float = 0.5
    """Shorter silences belong to the speech."""
    margin: float = 0.08
    """The mouth closes after the last sound and opens before the next: so long the new mouth stays whole."""
    fade: float = 0.16
    """Cross-fade from there into the source's mouth, and back."""

    def __post_init__(self) -> None:
        if min(self.threshold_db, self.margin, self.fade) < 0 or self.min_duration <= 2 * (self.margin + self.fade):
            raise ConfigError(f"Silence: no value may be negative and both fades must fit into the shortest: {self}")


def speech_weights(
    waveform: npt.NDArray[np.float32],
    sample_rate: int,
    fps: Fraction,
    num_frames: int,
    options: SilenceOptions | None = None,
) -> SpeechWeights:
    """Share of the new mouth in every output frame: 1 in speech, 0 in long silence.

    A track without any speech to be silent beside, all zeros or steady noise, has 1 everywhere.

    Args:
        waveform: (n,) mono in [-1, 1]; what it lacks at the end is silent.
        sample_rate: in Hz.
        fps: of the output.
        num_frames: of the output.
        options: what counts as silence.

    Returns:
        (num_frames,) float32 in [0, 1].
    """
    options = options or SilenceOptions()
    levels = _frame_levels(waveform, sample_rate, fps)
    total = max(num_frames, len(levels))  # of a preview too, or its end would pass for the track's
    weights = np.ones(total, np.float32)
    loudest = levels.max(initial=0.0)
    if loudest == 0:
        return weights[:num_frames]
    # Only among frames within so many dB of the loudest: a track may be silent for almost all of its time.
    loud = float(np.percentile(levels[levels > loudest * 10 ** (-_NEAR_LOUDEST / 20)], _LOUD_PERCENTILE))
    silent = np.ones(total, bool)
    silent[: len(levels)] = levels < loud * 10 ** (-options.threshold_db / 20)
    margin, fade = float(options.margin * fps), float(options.fade * fps)
    for start, stop in _runs(silent):
        if stop - start < options.min_duration * fps:
            continue
        # Frames between this one and the sound before and after; beyond the track's ends there is none.
        since = np.arange(stop - start) if start else np.full(stop, np.inf)
        until = np.arange(stop - start)[::-1] if stop < total else np.full(stop - start, np.inf)
        inside = np.minimum(since, until) + 1 - margin
        weights[start:stop] = np.clip(1 - inside / (fade + 1), 0, 1)
    return weights[:num_frames]


def _frame_levels(waveform: npt.NDArray[np.float32], sample_rate: int, fps: Fraction) -> npt.NDArray[np.float64]:
    """(frames,) root mean square of the sound under every video frame, less its mean: a constant is no sound."""
    edges = [int(index * sample_rate / fps) for index in range(int(len(waveform) * fps / sample_rate) + 2)]
    pieces = (waveform[start:stop].astype(np.float64) for start, stop in zip(edges, edges[1:]))
    return np.array([piece.std() if piece.size else 0.0 for piece in pieces])


def _runs(flags: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(start, stop) of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist())
