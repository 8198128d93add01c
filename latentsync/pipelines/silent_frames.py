"""Leaves the source's mouth where the speech is silent for long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from latentsync.media.audio.silence import SpeechWeights
from latentsync.pipelines.align import AlignedFrame

SILENCE = "silence"


def keep_silent_frames(frames: Iterable[AlignedFrame], weights: SpeechWeights) -> Iterator[AlignedFrame]:
    """Fade the new face out and in.

    Args:
        frames: aligned frames from output frame 0.
        weights: (t,) share of the new face in each of them, see `latentsync.media.audio.silence.speech_weights`.

    Yields:
        The frames, each with at most its share. One whose share is 0 gives silence as the reason, unless it has no
        usable face anyway.
    """
    for frame in frames:
        face, weight = frame.face, float(weights[frame.index])
        if face.matrix is not None and weight < face.weight:
            face = replace(face, weight=weight, reason=face.reason if weight else SILENCE)
        yield replace(frame, face=face)
