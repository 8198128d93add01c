"""Identity tracking: which detection of each frame is the selected person, through gaps and across scene cuts.

Faces are distinguished by position and size only. A face that was visible together with the selected one is a different
person and never replaces it within a shot; after a cut the selection is made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from latentsync.errors import ConfigError
from latentsync.face.detection.detector import FaceDetection, FloatArray, box_overlap

CHOICES = ("largest", "leftmost", "rightmost", "center")

_MIN_OVERLAP = 0.15
_SIZE_RATIO = 1.6
_MAX_DISTANCE = 0.6  # largest distance of the centers, in face sizes, when the boxes no longer overlap


def parse_choice(choice: str | int) -> str | int:
    """Validate a face choice: one of CHOICES, or a 0-based position from the left. Raises ConfigError."""
    if isinstance(choice, str) and choice.isdecimal():
        return int(choice)
    if (isinstance(choice, str) and choice in CHOICES) or (isinstance(choice, int) and choice >= 0):
        return choice
    raise ConfigError(
        f"Unknown choice of face '{choice}': give {', '.join(CHOICES)}, or a number from the left, starting at 0."
    )


@dataclass
class _Track:
    """One person within a shot."""

    track_id: int
    face: FaceDetection
    velocity: FloatArray  # of the box center, pixels per frame
    last_seen: int  # index of the last frame with this face

    def predicted_box(self, now: int) -> FloatArray:
        """Extrapolate the box at constant velocity, for at most three frames."""
        shift = self.velocity * min(now - self.last_seen, 3)
        return np.asarray(self.face.box + np.tile(shift, 2), np.float32)

    def match_score(self, face: FaceDetection, now: int) -> float:
        """How well a detection continues this track: 0 = not at all, higher is better."""
        ratio = face.size / max(self.face.size, 1e-6)
        if not 1 / _SIZE_RATIO <= ratio <= _SIZE_RATIO:
            return 0.0
        box = self.predicted_box(now)
        overlap = box_overlap(box, face.box)
        distance = float(np.linalg.norm((box[:2] + box[2:]) / 2 - face.center)) / max(self.face.size, 1e-6)
        return 1 + overlap if overlap >= _MIN_OVERLAP else max(0.0, 1 - distance / _MAX_DISTANCE)


class IdentityTracker:
    """Selects one person's detection in each frame.

    Args:
        choice: one of CHOICES or the 0-based position from the left, applied whenever a person has to be selected.
        frame_width: for "center", in pixels.
        memory: number of frames for which the track of an unseen person is kept.
    """

    def __init__(self, choice: str | int, frame_width: int, memory: int) -> None:
        self._choice = parse_choice(choice)
        self._frame_width = frame_width
        self._memory = memory
        self._tracks: list[_Track] = []
        self._others: set[int] = set()
        self._chosen: int | None = None
        self._now = -1
        self._count = 0

    def update(self, faces: Sequence[FaceDetection]) -> tuple[FaceDetection | None, bool]:
        """Process the next frame; returns its selected face (None if absent) and whether a scene cut precedes it."""
        self._now += 1
        in_view = any(track.last_seen == self._now - 1 for track in self._tracks)
        continued = self._continue_tracks(faces)
        cut = bool(in_view and faces and not continued)
        if cut:
            self._tracks, self._others, self._chosen = [], set(), None
        for face in faces:
            if not any(face is known for known in continued):
                self._tracks.append(_Track(self._count, face, np.zeros(2, np.float32), self._now))
                self._count += 1
        self._tracks = [track for track in self._tracks if self._now - track.last_seen <= self._memory]
        return self._pick(), cut

    def _continue_tracks(self, faces: Sequence[FaceDetection]) -> list[FaceDetection]:
        """Greedily assign detections to tracks by match score; returns the assigned detections."""
        pairs = [(track.match_score(face, self._now), track, face) for track in self._tracks for face in faces]
        used: list[FaceDetection] = []
        for match_score, track, face in sorted(pairs, key=lambda pair: -pair[0]):
            if match_score <= 0 or track.last_seen == self._now or any(face is other for other in used):
                continue
            moved = (face.center - track.face.center) / (self._now - track.last_seen)
            track.velocity = np.asarray(0.5 * track.velocity + 0.5 * moved, np.float32)
            track.face, track.last_seen = face, self._now
            used.append(face)
        return used

    def _pick(self) -> FaceDetection | None:
        chosen = next((track for track in self._tracks if track.track_id == self._chosen), None)
        visible = [track for track in self._tracks if track.last_seen == self._now]
        if chosen is None:
            chosen = self._choose([track for track in visible if track.track_id not in self._others])
            self._chosen = None if chosen is None else chosen.track_id
        if chosen is None or chosen.last_seen != self._now:
            return None
        self._others.update(track.track_id for track in visible if track is not chosen)
        return chosen.face

    def _choose(self, tracks: list[_Track]) -> _Track | None:
        if isinstance(self._choice, int):
            ordered = sorted(tracks, key=lambda track: float(track.face.center[0]))
            return ordered[self._choice] if self._choice < len(ordered) else None
        rules: dict[str, Callable[[FaceDetection], float]] = {
            "largest": lambda face: -face.size,
            "leftmost": lambda face: float(face.center[0]),
            "rightmost": lambda face: -float(face.center[0]),
            "center": lambda face: abs(float(face.center[0]) - self._frame_width / 2),
        }
        rule = rules[self._choice]
        return min(tracks, key=lambda track: rule(track.face), default=None)
