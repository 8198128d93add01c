"""Follow one face through a video as its frames come, and give each frame a steady place for it, or a reason why not.

Frames leave a fixed number of frames after they came, because smoothing looks at both sides and a short gap can be
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
OUTSIDE = "face partly outside the picture"

_MEMORY_SECONDS = 1.0
_JUMP = 0.45  # a change of speed this large, over the distance of the brows, within one frame is a cut


@dataclass(frozen=True)
class TrackerOptions:
    """How a face is followed. Durations are in seconds."""

    gap: float = 0.5
    """Gaps up to this are bridged by interpolation; in longer ones the frames stay as they are."""
    fade: float = 0.2
    """How long the new face fades in and out beside frames that stay as they are."""
    smoothing: float = 0.28
    """Reach of the smoothing on either side; 0 switches it off."""
    min_size: float = 40.0
    """Smallest face, square root of the box's area in pixels."""
    max_yaw: float = 0.9
    """Largest sideways turn, 0 = frontal, 1 = profile."""
    min_inside: float = 0.75
    """Smallest share of the lower half of the crop that must lie inside the picture."""

    def __post_init__(self) -> None:
        durations = (self.gap, self.fade, self.smoothing, self.min_size)
        if min(durations) < 0 or not 0 < self.max_yaw <= 1 or not 0 <= self.min_inside <= 1:
            raise ConfigError(f"Face tracking options out of range: {self}; durations and sizes must not be negative.")


@dataclass(frozen=True)
class TrackedFace:
    """Where the face of one frame is.

    Attributes:
        index: the frame's own number, as pushed.
        matrix: (2, 3) float32 picture -> crop; None where the frame stays as it is.
        weight: share of the new face, 0 to 1.
        reason: why the frame stays as it is, else None.
    """

    index: int
    matrix: FloatArray | None
    weight: float
    reason: str | None = None


@dataclass
class _PendingFrame:
    """A frame that waits: `pose` is None until known, `settled` once it is clear whether the frame has a face."""

    index: int
    shot: int
    segment: int = -1  # smoothing stays within one
    pose: Poses | None = None
    settled: bool = False
    reason: str | None = NO_FACE


class FaceTracker:
    """Streaming tracker of one face.

    Args:
        choice: "largest", "leftmost", "rightmost", "center", or the position from the left counted from 0.
        frame_size: (width, height) of the frames in pixels.
        fps: frames per second.
        resolution: R of the faces, for the matrices.
        options: how the face is followed.
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
        self._identity = IdentityTracker(choice, frame_size[0], round(_MEMORY_SECONDS * rate))
        self._entries: list[_PendingFrame] = []
        self._next = 0  # position in _entries of the next frame to leave
        self._shot = 0
        self._segment = 0
        self._turned = False

    @property
    def max_lag(self) -> int:
        """Most frames that wait inside: how many frames a caller must be ready to hold."""
        return self._gap + self._horizon + 1

    @property
    def _horizon(self) -> int:
        return max(self._radius, self._fade)

    def push(self, frame_index: int, detections: Sequence[FaceDetection]) -> list[TrackedFace]:
        """Take the detections of the next frame; returns the frames that are ready, in order."""
        face, cut = self._identity.update(detections)
        if cut:
            self._settle_gap(None)
            self._shot += 1
            self._segment += 1
        entry = _PendingFrame(frame_index, self._shot)
        if face is not None:
            entry.reason = self._refuse(face)
            if entry.reason is None:
                self._observe(entry, to_poses(face.control_points[None], self._resolution)[0])
        self._entries.append(entry)
        if self._gap_length() > self._gap:
            self._settle_gap(None)
        return self._ready(self._horizon)

    def flush(self) -> list[TrackedFace]:
        """The frames still inside, at the end of the video."""
        self._settle_gap(None)
        return self._ready(0)

    def _refuse(self, face: FaceDetection) -> str | None:
        """Why a detection cannot be used; None if it can."""
        if face.size < self.options.min_size:
            return TOO_SMALL
        # Once turned away a face must come back a little further, or it would flicker at the limit.
        limit = self.options.max_yaw - (0.1 if self._turned else 0.0)
        self._turned = face.yaw is not None and face.yaw > limit
        if self._turned:
            return TURNED_AWAY
        return OUTSIDE if self._inside_fraction(face) < self.options.min_inside else None

    def _inside_fraction(self, face: FaceDetection) -> float:
        """Share of the crop's lower half that lies inside the picture."""
        matrix = to_matrices(to_poses(face.control_points[None], self._resolution), self._resolution)[0]
        width, height = crop_size(self._resolution)
        x, y = np.meshgrid(np.linspace(0.1, 0.9, 9) * width, np.linspace(0.45, 0.9, 6) * height)
        points = apply_affine(invert_affine(matrix), np.stack([x.ravel(), y.ravel()], 1))
        inside = (points >= 0) & (points <= np.array(self._frame_size) - 1)
        return float(inside.all(axis=1).mean())

    def _observe(self, entry: _PendingFrame, pose: Poses) -> None:
        """Enter a measured place: join it to the stretch before, or start a new one after a cut or a long gap."""
        last = next((old for old in reversed(self._entries) if old.pose is not None), None)
        if last is not None and last.pose is not None and last.segment == self._segment:
            pose[3] += 2 * np.pi * np.round((last.pose[3] - pose[3]) / (2 * np.pi))
            if self._jumped(last.pose, pose):
                self._settle_gap(None)
                self._shot += 1
                self._segment += 1
                entry.shot = self._shot
        self._settle_gap(pose)
        entry.pose, entry.segment, entry.settled = pose, self._segment, True

    def _jumped(self, last: Poses, pose: Poses) -> bool:
        """Whether the face is at another place than motion explains."""
        gap = self._gap_length()
        before = [old.pose for old in self._entries[-2:] if old.segment == self._segment and old.pose is not None]
        expected = 2 * before[1] - before[0] if gap == 0 and len(before) == 2 else last
        steps = [relative_step(origin, pose, self._resolution) for origin in (expected, last)]
        return min(float(np.linalg.norm(step)) for step in steps) > _JUMP * (1 + 0.25 * gap)

    def _gap_length(self) -> int:
        """Unsettled frames at the end of the queue."""
        length = 0
        while length < len(self._entries) and not self._entries[-1 - length].settled:
            length += 1
        return length

    def _settle_gap(self, pose: Poses | None) -> None:
        """Bridge the gap at the end of the queue up to `pose`, or leave its frames as they are."""
        length = self._gap_length()
        gap = self._entries[len(self._entries) - length :]
        before = self._entries[-1 - length] if length < len(self._entries) else None
        bridge = pose is not None and before is not None and before.segment == self._segment
        for step, entry in enumerate(gap, start=1):
            entry.settled = True
            if bridge and pose is not None and before is not None and before.pose is not None:
                entry.pose = before.pose + (pose - before.pose) * (step / (length + 1))
                entry.segment, entry.reason = self._segment, None
        if gap and not bridge:
            self._segment += 1

    def _ready(self, horizon: int) -> list[TrackedFace]:
        """Let all frames go whose neighbourhood of `horizon` frames is settled; forget what no one needs any more."""
        settled = len(self._entries) - self._gap_length()
        leaving = []
        while self._next + horizon < settled:
            leaving.append(self._track(self._next))
            self._next += 1
        spare = self._next - self._horizon - 2
        if spare > 0:
            del self._entries[:spare]
            self._next -= spare
        return leaving

    def _track(self, position: int) -> TrackedFace:
        entry = self._entries[position]
        if entry.pose is None:
            return TrackedFace(entry.index, None, 0.0, entry.reason)
        low = max(0, position - self._radius)
        near = range(low, min(len(self._entries), position + self._radius + 1))
        samples = [(other - position, self._entries[other]) for other in near]
        kept = [(step, old.pose) for step, old in samples if old.segment == entry.segment and old.pose is not None]
        offsets = [step for step, _ in kept]
        pose = smooth_pose(offsets, np.stack([value for _, value in kept]), self._radius, self._resolution)
        matrix = to_matrices(pose[None], self._resolution)[0]
        return TrackedFace(entry.index, matrix, self._weight(position), None)

    def _weight(self, position: int) -> float:
        """1, less beside frames of the same shot that stay as they are."""
        for distance in range(1, self._fade + 1):
            for other in (position - distance, position + distance):
                if 0 <= other < len(self._entries):
                    entry = self._entries[other]
                    if entry.pose is None and entry.settled and entry.shot == self._entries[position].shot:
                        return distance / (self._fade + 1)
        return 1.0
