"""Streaming tracker of one face: a smoothed crop matrix for each frame, or the reason why the frame has none.

Results are delayed by a bounded number of frames, because smoothing uses neighbors on both sides and a short gap can be
bridged only once its end is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentsync.errors import ConfigError
from latentsync.face.detection.detector import FaceDetection
from latentsync.face.geometry.affine import FloatArray, apply_affine, crop_size, invert_affine
from latentsync.face.tracking.selection import IdentityTracker
from latentsync.face.tracking.smoothing import Poses, relative_step, smooth_pose, to_matrices, to_poses

NO_FACE = "no face"
TOO_SMALL = "face too small"
TURNED_AWAY = "face turned away"
OUTSIDE = "face partly outside the frame"

_TRACK_MEMORY_SECONDS = 1.0
_JUMP = 0.45  # deviation from the predicted pose, relative to the brow distance, that counts as a cut


@dataclass(frozen=True)
class TrackerOptions:
    """Face tracking settings. Durations are in seconds."""

    gap: float = 0.5
    """Longest gap that is bridged by interpolation; in longer gaps the frames stay unchanged."""
    fade: float = 0.2
    """Duration of the fade between the generated face and adjacent unchanged frames."""
    smoothing: float = 0.28
    """Radius of the temporal smoothing; 0 disables it."""
    min_size: float = 40.0
    """Smallest usable face: square root of the box area, in pixels."""
    max_yaw: float = 0.9
    """Largest usable yaw, 0 = frontal, 1 = profile."""
    min_inside: float = 0.75
    """Smallest fraction of the lower half of the crop that must lie inside the frame."""

    def __post_init__(self) -> None:
        durations = (self.gap, self.fade, self.smoothing, self.min_size)
        if min(durations) < 0 or not 0 < self.max_yaw <= 1 or not 0 <= self.min_inside <= 1:
            raise ConfigError(f"Face tracking options out of range: {self}; durations and sizes must not be negative.")


@dataclass(frozen=True)
class TrackedFace:
    """Tracking result of one frame.

    Attributes:
        index: the frame index, as pushed.
        matrix: (2, 3) float32 frame -> crop; None if the frame stays unchanged.
        weight: blend weight of the generated face, 0 to 1.
        reason: why the frame stays unchanged, else None.
    """

    index: int
    matrix: FloatArray | None
    weight: float
    reason: str | None = None


@dataclass
class _PendingFrame:
    """A queued frame: `pose` is None until known; `settled` is set once it is decided whether the frame has a face."""

    index: int
    shot: int
    segment: int = -1  # smoothing does not cross segments
    pose: Poses | None = None
    settled: bool = False
    reason: str | None = NO_FACE


class FaceTracker:
    """Streaming tracker of one face.

    Args:
        choice: "largest", "leftmost", "rightmost", "center", or the 0-based position from the left.
        frame_size: (width, height) of the frames in pixels.
        fps: frames per second.
        resolution: face resolution R, which sets the scale of the matrices.
        options: tracking settings.

    Raises ConfigError for an unknown choice or a frame rate that is not positive.
    """

    def __init__(
        self,
        choice: str | int,
        frame_size: tuple[int, int],
        fps: float,
        resolution: int,
        options: TrackerOptions | None = None,
    ) -> None:
        self.options = options or TrackerOptions()
        rate = float(fps)
        if rate <= 0:
            raise ConfigError(f"Cannot track faces at {fps} frames per second: give a positive rate.")
        self._frame_size = frame_size
        self._resolution = resolution
        self._gap = round(self.options.gap * rate)
        self._fade = round(self.options.fade * rate)
        self._radius = round(self.options.smoothing * rate)
        self._identity = IdentityTracker(choice, frame_size[0], round(_TRACK_MEMORY_SECONDS * rate))
        self._queue: list[_PendingFrame] = []
        self._next = 0  # position in _queue of the next frame to return
        self._shot = 0
        self._segment = 0
        self._was_turned_away = False

    @property
    def max_lag(self) -> int:
        """Largest number of frames held back: how many frames a caller must be able to buffer."""
        return self._gap + self._horizon + 1

    @property
    def _horizon(self) -> int:
        return max(self._radius, self._fade)

    def push(self, frame_index: int, detections: Sequence[FaceDetection]) -> list[TrackedFace]:
        """Add the detections of the next frame; returns the results that are ready, in order."""
        face, cut = self._identity.update(detections)
        if cut:
            self._settle_gap(None)
            self._shot += 1
            self._segment += 1
        entry = _PendingFrame(frame_index, self._shot)
        if face is not None:
            entry.reason = self._rejection_reason(face)
            if entry.reason is None:
                self._add_measurement(entry, to_poses(face.control_points[None], self._resolution)[0])
        self._queue.append(entry)
        if self._gap_length() > self._gap:
            self._settle_gap(None)
        return self._pop_ready(self._horizon)

    def flush(self) -> list[TrackedFace]:
        """Return the remaining results at the end of the video."""
        self._settle_gap(None)
        return self._pop_ready(0)

    def _rejection_reason(self, face: FaceDetection) -> str | None:
        """Why a detection is unusable; None if it is usable."""
        if face.size < self.options.min_size:
            return TOO_SMALL
        # Hysteresis: a face that was turned away must come back further, or it would flicker at the limit.
        limit = self.options.max_yaw - (0.1 if self._was_turned_away else 0.0)
        self._was_turned_away = face.yaw is not None and face.yaw > limit
        if self._was_turned_away:
            return TURNED_AWAY
        return OUTSIDE if self._inside_fraction(face) < self.options.min_inside else None

    def _inside_fraction(self, face: FaceDetection) -> float:
        """Fraction of the lower half of the crop that lies inside the frame."""
        matrix = to_matrices(to_poses(face.control_points[None], self._resolution), self._resolution)[0]
        width, height = crop_size(self._resolution)
        x, y = np.meshgrid(np.linspace(0.1, 0.9, 9) * width, np.linspace(0.45, 0.9, 6) * height)
        points = apply_affine(invert_affine(matrix), np.stack([x.ravel(), y.ravel()], 1))
        inside = (points >= 0) & (points <= np.array(self._frame_size) - 1)
        return float(inside.all(axis=1).mean())

    def _add_measurement(self, entry: _PendingFrame, pose: Poses) -> None:
        """Set a measured pose: continue the current segment, or start a new one after a cut or a long gap."""
        last = next((queued for queued in reversed(self._queue) if queued.pose is not None), None)
        if last is not None and last.pose is not None and last.segment == self._segment:
            pose[3] += 2 * np.pi * np.round((last.pose[3] - pose[3]) / (2 * np.pi))
            if self._is_jump(last.pose, pose):
                self._settle_gap(None)
                self._shot += 1
                self._segment += 1
                entry.shot = self._shot
        self._settle_gap(pose)
        entry.pose, entry.segment, entry.settled = pose, self._segment, True

    def _is_jump(self, last: Poses, pose: Poses) -> bool:
        """Whether the face moved further than continuous motion explains."""
        gap = self._gap_length()
        recent = [
            queued.pose for queued in self._queue[-2:] if queued.segment == self._segment and queued.pose is not None
        ]
        expected = 2 * recent[1] - recent[0] if gap == 0 and len(recent) == 2 else last
        steps = [relative_step(origin, pose, self._resolution) for origin in (expected, last)]
        return min(float(np.linalg.norm(step)) for step in steps) > _JUMP * (1 + 0.25 * gap)

    def _gap_length(self) -> int:
        """Number of unsettled frames at the end of the queue."""
        length = 0
        while length < len(self._queue) and not self._queue[-1 - length].settled:
            length += 1
        return length

    def _settle_gap(self, pose: Poses | None) -> None:
        """Interpolate the gap at the end of the queue up to `pose`, or leave its frames without a face."""
        length = self._gap_length()
        gap = self._queue[len(self._queue) - length :]
        before = self._queue[-1 - length] if length < len(self._queue) else None
        bridge = pose is not None and before is not None and before.segment == self._segment
        for step, entry in enumerate(gap, start=1):
            entry.settled = True
            if bridge and pose is not None and before is not None and before.pose is not None:
                entry.pose = before.pose + (pose - before.pose) * (step / (length + 1))
                entry.segment, entry.reason = self._segment, None
        if gap and not bridge:
            self._segment += 1

    def _pop_ready(self, horizon: int) -> list[TrackedFace]:
        """Return all frames whose next `horizon` frames are settled; drop queue entries no longer needed."""
        settled = len(self._queue) - self._gap_length()
        ready = []
        while self._next + horizon < settled:
            ready.append(self._track(self._next))
            self._next += 1
        expired = self._next - self._horizon - 2
        if expired > 0:
            del self._queue[:expired]
            self._next -= expired
        return ready

    def _track(self, position: int) -> TrackedFace:
        entry = self._queue[position]
        if entry.pose is None:
            return TrackedFace(entry.index, None, 0.0, entry.reason)
        low = max(0, position - self._radius)
        neighborhood = range(low, min(len(self._queue), position + self._radius + 1))
        neighbors = [(other - position, self._queue[other]) for other in neighborhood]
        samples = [
            (offset, other.pose)
            for offset, other in neighbors
            if other.segment == entry.segment and other.pose is not None
        ]
        offsets = [offset for offset, _ in samples]
        pose = smooth_pose(offsets, np.stack([sample for _, sample in samples]), self._radius, self._resolution)
        matrix = to_matrices(pose[None], self._resolution)[0]
        return TrackedFace(entry.index, matrix, self._weight(position), None)

    def _weight(self, position: int) -> float:
        """Blend weight: 1, reduced next to frames of the same shot that stay unchanged."""
        for distance in range(1, self._fade + 1):
            for other in (position - distance, position + distance):
                if 0 <= other < len(self._queue):
                    entry = self._queue[other]
                    if entry.pose is None and entry.settled and entry.shot == self._queue[position].shot:
                        return distance / (self._fade + 1)
        return 1.0
