"""Usability checks of clips: measured on first use, cached by content, and compared with the rules."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange

from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.data.clips.disk_cache import DiskCache
from latentsync.data.clips.face_check import FaceCheck
from latentsync.media.audio.syncnet_mel import SAMPLE_RATE, VIDEO_FPS

_MAX_CACHED_INFOS = 65536
_FACE_SIDE = 256
_FACE_POSITIONS = (0.25, 0.75)


@dataclass(frozen=True)
class ClipInfo:
    """Properties that decide whether a clip is usable.

    Attributes:
        video_frames: number of video frames at 25 frames per second.
        audio_seconds: duration of the audio from the first frame on; 0 without audio.
        loudness: RMS level of the audio, 1 = full scale.
        has_face: whether the sampled frames show a face; None if not checked.
    """

    video_frames: int
    audio_seconds: float
    loudness: float
    has_face: bool | None = None

    @property
    def frames(self) -> int:
        """Number of frames with both video and audio; audio may end up to one frame early."""
        return min(self.video_frames, int(self.audio_seconds * VIDEO_FPS) + 1 if self.audio_seconds else 0)


@dataclass(frozen=True)
class ClipRules:
    """Requirements on a clip.

    Attributes:
        min_frames: minimum number of frames with audio.
        min_loudness: minimum RMS level of the audio; 0.001 = -60 dBFS.
        check_faces: require a face in two sampled frames; needs mediapipe.
    """

    min_frames: int
    min_loudness: float = 1e-3
    check_faces: bool = False


class ClipInspector:
    """Checks clips against rules.

    Args:
        reader: reads the clips.
        rules: requirements on the clips.
        cache: folder that persists `ClipInfo` between runs; None caches in this process only.
        face_check: face check to use; None uses MediaPipe.
    """

    def __init__(
        self, reader: ClipReader, rules: ClipRules, cache: Path | None = None, face_check: FaceCheck | None = None
    ) -> None:
        self.reader, self.rules = reader, rules
        self._faces = face_check or FaceCheck()
        self._disk = DiskCache(cache, "clip-facts 1")
        self._memory_cache: OrderedDict[str, ClipInfo] = OrderedDict()

    def require(self, clip: Path) -> ClipInfo:
        """Return the properties of a clip that satisfies the rules.

        Raises:
            UnusableClip: the clip cannot be read or violates a rule; the reason says which.
            DependencyError: faces are to be checked but the detector is not installed.
        """
        info = self.info(clip)
        reason = self._rejection_reason(info)
        if reason:
            raise UnusableClip(clip, reason)
        if self.rules.check_faces and not self._check_face(clip, info).has_face:
            raise UnusableClip(clip, "no face in a sampled frame; the frames must be aligned face crops")
        return info

    def info(self, clip: Path) -> ClipInfo:
        """Return the properties of a clip; only `require` runs the face check.

        Raises:
            UnusableClip: the file cannot be read.
        """
        fingerprint = self.reader.fingerprint(clip)
        if fingerprint not in self._memory_cache:
            info = _from_record(self._disk.load_record(fingerprint))
            if info is None:
                info = _measure(self.reader, clip)
                self._disk.store_record(fingerprint, _to_record(info))
            self._add_to_cache(fingerprint, info)
        self._memory_cache.move_to_end(fingerprint)
        return self._memory_cache[fingerprint]

    def _rejection_reason(self, info: ClipInfo) -> str | None:
        needed = self.rules.min_frames
        if not info.audio_seconds:
            return "no audio during its video"
        if info.loudness < self.rules.min_loudness:
            return (
                f"silent: loudness {info.loudness:.2g} of full scale, at least {self.rules.min_loudness:.2g} required"
            )
        if info.video_frames < needed:
            return f"too short: {info.video_frames} frames at {VIDEO_FPS} fps, at least {needed} required"
        if info.frames < needed:
            return f"audio too short: {info.audio_seconds:.2f} s, at least {needed / VIDEO_FPS:.2f} s required"
        return None

    def _check_face(self, clip: Path, info: ClipInfo) -> ClipInfo:
        if info.has_face is not None:
            return info
        frame_indices = [int(info.video_frames * position) for position in _FACE_POSITIONS]
        windows = self.reader.windows(clip, frame_indices, 1, _FACE_SIDE)
        images = (rearrange(window, "1 c h w -> h w c").contiguous().numpy() for window in windows)
        checked = replace(info, has_face=self._faces.all_have_faces(images))
        fingerprint = self.reader.fingerprint(clip)
        self._disk.store_record(fingerprint, _to_record(checked))
        self._add_to_cache(fingerprint, checked)
        return checked

    def _add_to_cache(self, fingerprint: str, info: ClipInfo) -> None:
        self._memory_cache[fingerprint] = info
        while len(self._memory_cache) > _MAX_CACHED_INFOS:
            self._memory_cache.popitem(last=False)


def _to_record(info: ClipInfo) -> dict[str, Any]:
    """The on-disk form, whose keys must not change: existing caches contain them."""
    return {
        "video_frames": info.video_frames,
        "sound_seconds": info.audio_seconds,
        "loudness": info.loudness,
        "has_face": info.has_face,
    }


def _from_record(record: dict[str, Any] | None) -> ClipInfo | None:
    """Inverse of `_to_record`; None if there is no record or it is incomplete."""
    if record is None:
        return None
    try:
        return ClipInfo(record["video_frames"], record["sound_seconds"], record["loudness"], record["has_face"])
    except KeyError:
        return None


def _measure(reader: ClipReader, clip: Path) -> ClipInfo:
    frames = reader.num_frames(clip)
    if not reader.has_audio(clip):
        return ClipInfo(frames, 0.0, 0.0)
    waveform = reader.waveform(clip)
    loudness = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    return ClipInfo(frames, len(waveform) / SAMPLE_RATE, loudness)
