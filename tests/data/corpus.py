"""Tiny training clips whose frames encode their index, usable and unusable ones."""

from pathlib import Path

import numpy as np

from tests.media.clips import number_of, numbered
from tests.media.shifted_sound import RATE, write_clip

SIDE = 64


def noise(seconds: float, seed: int = 0, level: float = 0.2) -> np.ndarray:
    """(n,) int16 noise."""
    samples = np.random.default_rng(seed).uniform(-level, level, round(seconds * RATE))
    return (32767 * samples).astype(np.int16)


def frames(count: int, side: int = SIDE, first: int = 0) -> np.ndarray:
    """(count, side, side, 3) uint8; frame i encodes the number first + i."""
    return np.stack([numbered(first + index, side, side) for index in range(count)])


def good_clip(path: Path, count: int = 60, seed: int = 0, first: int = 0) -> Path:
    """A usable clip with its own noise audio."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, frames(count, first=first), noise(count / 25, seed))


def numbers(window: np.ndarray) -> list[int]:
    """The numbers encoded in the frames (f, 3, h, w) of a window."""
    return [number_of(np.moveaxis(np.asarray(frame), 0, -1)) for frame in window]


def bad_clips(folder: Path) -> dict[str, Path]:
    """One clip per kind of defect, keyed by words that the reason must contain."""
    folder.mkdir(parents=True, exist_ok=True)
    corrupt, missing = folder / "corrupt.mp4", folder / "missing.mp4"
    corrupt.write_bytes(b"no video at all" * 99)
    return {
        "damaged": corrupt,
        "cannot be found": missing,
        "no audio": write_clip(folder / "mute.mp4", frames(60), None),
        "silent": write_clip(folder / "silent.mp4", frames(60), noise(2.4, level=1e-4)),
        "too short: 20 frames": write_clip(folder / "short.mp4", frames(20), noise(0.8)),
        "audio too short": write_clip(folder / "half.mp4", frames(60), noise(0.8)),
    }
