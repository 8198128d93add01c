"""Which frames of a video kept their own mouth, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentsync.face.tracker import TrackedFace


@dataclass(frozen=True)
class FaceSpan:
    """Frames start .. end-1 stayed as they were, for one reason."""

    start: int
    end: int
    reason: str


@dataclass
class FaceReport:
    """Collects tracked faces in output order; memory grows with the number of spans, not of frames."""

    total: int = 0
    """Frames so far."""
    changed: int = 0
    """Frames that got a new face, fading ones included."""
    spans: list[FaceSpan] = field(default_factory=list)
    """Frames that stayed as they were."""

    def add(self, face: TrackedFace) -> None:
        """Count the next output frame."""
        index = self.total
        self.total += 1
        if face.reason is None and face.weight > 0:
            self.changed += 1
            return
        reason = face.reason or "no face"
        last = self.spans[-1] if self.spans else None
        if last is not None and last.end == index and last.reason == reason:
            self.spans[-1] = FaceSpan(last.start, index + 1, reason)
        else:
            self.spans.append(FaceSpan(index, index + 1, reason))

    def describe(self, fps: float) -> str:
        """One line a user can read: how many frames were changed and where and why the others were not."""
        if not self.spans:
            return f"all {self.total} frames have the face"
        parts = [f"{span.start / fps:.2f}-{span.end / fps:.2f} s {span.reason}" for span in self.spans[:5]]
        more = f" and {len(self.spans) - 5} more" if len(self.spans) > 5 else ""
        return f"{self.changed} of {self.total} frames have the face; left as they are: {', '.join(parts)}{more}"
