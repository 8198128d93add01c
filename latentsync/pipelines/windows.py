"""Which frames are denoised together, and how neighbouring windows are joined.

A window's frames influence each other (joint GroupNorm, attention over time), so how a video is cut into windows
changes the picture. Every plan here is made from the frame count alone, before any frame is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from latentsync.errors import ConfigError

WindowMode = Literal["blend", "tail", "published"]

_USUAL_OVERLAP = 4


@dataclass(frozen=True)
class Window:
    """One call of the denoiser.

    Attributes:
        indices: output frame of each slot; a video shorter than a window fills the rest by playing to and fro.
        new_start: first slot that no earlier window made.
        blend: number of slots just before `new_start` that are cross-faded from the earlier window into this one.
    """

    indices: tuple[int, ...]
    new_start: int = 0
    blend: int = 0

    @property
    def start(self) -> int:
        """First output frame of the window."""
        return self.indices[0]

    @property
    def stop(self) -> int:
        """One past the last output frame that the window makes."""
        return max(self.indices) + 1

    def fade_in(self, slot: int) -> float:
        """Share of this window in the result at a slot: 0 keeps the earlier window's frame, 1 replaces it."""
        if slot >= self.new_start:
            return 1.0
        position = slot - (self.new_start - self.blend)
        return 0.0 if position < 0 else (position + 1) / (self.blend + 1)


def plan_windows(num_frames: int, length: int, mode: WindowMode, overlap: int | None = None) -> Iterator[Window]:
    """Cut ``num_frames`` output frames into windows of ``length``.

    Modes:
        blend: full windows that overlap by ``overlap`` frames, cross-faded there; the last one reaches back.
        tail: full windows side by side; the last one reaches back over frames already made and only adds the rest.
        published: as the public system does: side by side, the last one shorter.

    Args:
        num_frames: frames of the output, at least 1.
        length: frames of a window.
        mode: see above.
        overlap: frames shared by neighbouring windows in the blend mode, less than half a window; None takes 4, or
            fewer in short windows.

    Yields:
        Windows in order; together their new slots cover every output frame exactly once.

    Raises:
        ConfigError: a number out of range or an unknown mode.
    """
    overlap = min(_USUAL_OVERLAP, (length - 1) // 2) if overlap is None else overlap
    _check_plan(num_frames, length, mode, overlap)
    if mode == "published":
        for start in range(0, num_frames, length):
            yield Window(tuple(range(start, min(start + length, num_frames))))
        return
    if num_frames <= length:
        yield Window(tuple(_ping_pong(slot, num_frames) for slot in range(length)))
        return
    overlap = overlap if mode == "blend" else 0
    done = 0
    while done < num_frames:
        start = min(max(done - overlap, 0), num_frames - length)
        new_start = done - start
        yield Window(tuple(range(start, start + length)), new_start, min(overlap, new_start))
        done = start + length


def _check_plan(num_frames: int, length: int, mode: str, overlap: int) -> None:
    if num_frames < 1 or length < 1:
        raise ConfigError(f"Windows: got {num_frames} frames in windows of {length}; both must be at least 1")
    if mode not in get_args(WindowMode):
        raise ConfigError(f"Windows: unknown mode {mode!r}, expected one of {', '.join(get_args(WindowMode))}")
    if not 0 <= overlap <= (length - 1) // 2:
        raise ConfigError(f"Windows: overlap {overlap} must be 0 to {(length - 1) // 2} for windows of {length}")


def _ping_pong(position: int, count: int) -> int:
    if count == 1:
        return 0
    position %= 2 * (count - 1)
    return position if position < count else 2 * (count - 1) - position
