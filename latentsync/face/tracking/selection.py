"""Keep to one person: which of a frame's detections is the chosen face, through gaps and across scene cuts.

Faces are told apart by place and size only. A face that was seen beside the chosen one is known to be someone else and
is never taken instead of it within a shot; after a cut the choice is made anew.
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
_REACH = 0.6  # centres may be this many face sizes apart when the boxes no longer overlap


def parse_choice(choice: str | int) -> str | int:
    """A checked choice: one of CHOICES, or the position from the left counted from 0. Raises ConfigError."""
    if isinstance(choice, str) and choice.isdecimal():
        return int(choice)
    if (isinstance(choice, str) and choice in CHOICES) or (isinstance(choice, int) and choice >= 0):
        return choice
    raise ConfigError(
        f"Unknown choice of face '{choice}': give {', '.join(CHOICES)}, or a number counted from the left from 0."
    )


@dataclass
class _Track:
    """One person within a shot."""

    track_id: int
    face: FaceDetection
    velocity: FloatArray  # pixels per frame of the box's centre
    last_seen: int  # count of the last frame with this face

    def predicted_box(self, now: int) -> FloatArray:
        """The box moved on at constant speed; over long gaps the speed is no longer trusted."""
        shift = self.velocity * min(now - self.last_seen, 3)
        return np.asarray(self.face.box + np.tile(shift, 2), np.float32)

    def match_score(self, face: FaceDetection, now: int) -> float:
        """How well a detection continues this track: > 0 if it may, greater is better."""
        ratio = face.size / max(self.face.size, 1e-6)
        if not 1 / _SIZE_RATIO <= ratio <= _SIZE_RATIO:
            return 0.0
        box = self.predicted_box(now)
        overlap = box_overlap(box, face.box)
        distance = float(np.linalg.norm((box[:2] + box[2:]) / 2 - face.center)) / max(self.face.size, 1e-6)
        return 1 + overlap if overlap >= _MIN_OVERLAP else max(0.0, 1 - distance / _REACH)


class IdentityTracker:
    """Picks the chosen person's detection out of each frame's.

    Args:
        choice: one of CHOICES or the position from the left, applied when a person has to be chosen.
        frame_width: for "center", in pixels.
        memory: frames for which an unseen person's place is remembered.
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
        """The chosen face of the next frame (None if it is not there), and whether the scene was cut before it."""
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
        """Give each track the detection that continues it best; returns the detections so used."""
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
