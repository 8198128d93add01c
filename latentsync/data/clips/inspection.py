"""Which clips can be used, found out when they are first needed and remembered with their content."""

from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from einops import rearrange

from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.data.clips.disk_cache import DiskCache
from latentsync.data.clips.face_check import FaceCheck
from latentsync.media.audio.syncnet_mel import SAMPLE_RATE, VIDEO_FPS

_FACTS_KEPT = 65536
_FACE_SIDE = 256
_FACE_PLACES = (0.25, 0.75)


@dataclass(frozen=True)
class ClipInfo:
    """What decides whether a clip can be used.

    Attributes:
        video_frames: frames of the picture at 25 a second.
        audio_seconds: sound from the first frame's time on; 0 without sound.
        loudness: root mean square of the sound, 1 = full scale.
        has_face: whether the frames looked at show a face; None where nobody looked.
    """

    video_frames: int
    audio_seconds: float
    loudness: float
    has_face: bool | None = None

    @property
    def frames(self) -> int:
        """Frames that have both picture and sound; a sound that ends less than a frame early counts as whole."""
        return min(self.video_frames, int(self.audio_seconds * VIDEO_FPS) + 1 if self.audio_seconds else 0)


@dataclass(frozen=True)
class ClipRules:
    """What a clip must have.

    Attributes:
        min_frames: frames with sound.
        min_loudness: root mean square of the sound; 0.001 = -60 dB of full scale.
        check_faces: look for a face in two frames; needs mediapipe.
    """

    min_frames: int
    min_loudness: float = 1e-3
    check_faces: bool = False


class ClipInspector:
    """Judges clips by rules.

    Args:
        reader: reads the clips.
        rules: what they must have.
        cache: folder where facts are kept from run to run; None keeps them for this process only.
        face_check: looks for faces; None uses MediaPipe.
    """

    def __init__(
        self, reader: ClipReader, rules: ClipRules, cache: Path | None = None, face_check: FaceCheck | None = None
    ) -> None:
        self.reader, self.rules = reader, rules
        self._faces = face_check or FaceCheck()
        self._disk = DiskCache(cache, "clip-facts 1")
        self._memory_cache: OrderedDict[str, ClipInfo] = OrderedDict()

    def require(self, clip: Path) -> ClipInfo:
        """Return the facts about a clip that keeps to the rules.

        Raises:
            UnusableClip: it cannot be read or breaks a rule; the reason says which.
            DependencyError: faces are to be checked and the detector is not installed.
        """
        info = self.info(clip)
        objection = self._objection(info)
        if objection:
            raise UnusableClip(clip, objection)
        if self.rules.check_faces and not self._check_face(clip, info).has_face:
            raise UnusableClip(clip, "no face in a frame that was looked at; the frames must be aligned face crops")
        return info

    def info(self, clip: Path) -> ClipInfo:
        """Facts about a clip; faces are looked for by `require` only.

        Raises:
            UnusableClip: the file cannot be read.
        """
        fingerprint = self.reader.fingerprint(clip)
        if fingerprint not in self._memory_cache:
            record = self._disk.load_record(fingerprint)
            info = _measure(self.reader, clip) if record is None else ClipInfo(**record)
            if record is None:
                self._disk.store_record(fingerprint, asdict(info))
            self._add_to_cache(fingerprint, info)
        self._memory_cache.move_to_end(fingerprint)
        return self._memory_cache[fingerprint]

    def _objection(self, info: ClipInfo) -> str | None:
        needed = self.rules.min_frames
        if not info.audio_seconds:
            return "no sound beside its picture"
        if info.loudness < self.rules.min_loudness:
            return f"silent: loudness {info.loudness:.2g} of full scale, {self.rules.min_loudness:.2g} is needed"
        if info.video_frames < needed:
            return f"too short: {info.video_frames} frames at {VIDEO_FPS} a second, {needed} are needed"
        if info.frames < needed:
            return f"sound too short: {info.audio_seconds:.2f} s, {needed / VIDEO_FPS:.2f} s are needed"
        return None

    def _check_face(self, clip: Path, info: ClipInfo) -> ClipInfo:
        if info.has_face is not None:
            return info
        positions = [int(info.video_frames * position) for position in _FACE_PLACES]
        windows = self.reader.windows(clip, positions, 1, _FACE_SIDE)
        images = (rearrange(window, "1 c h w -> h w c").contiguous().numpy() for window in windows)
        looked = replace(info, has_face=self._faces.all_have_faces(images))
        fingerprint = self.reader.fingerprint(clip)
        self._disk.store_record(fingerprint, asdict(looked))
        self._add_to_cache(fingerprint, looked)
        return looked

    def _add_to_cache(self, fingerprint: str, info: ClipInfo) -> None:
        self._memory_cache[fingerprint] = info
        while len(self._memory_cache) > _FACTS_KEPT:
            self._memory_cache.popitem(last=False)


def _measure(reader: ClipReader, clip: Path) -> ClipInfo:
    frames = reader.num_frames(clip)
    if not reader.has_audio(clip):
        return ClipInfo(frames, 0.0, 0.0)
    sound = reader.waveform(clip)
    loudness = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    return ClipInfo(frames, len(sound) / SAMPLE_RATE, loudness)
