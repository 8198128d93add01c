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
class ClipFacts:
    """What decides whether a clip can be used.

    Attributes:
        video_frames: frames of the picture at 25 a second.
        sound_seconds: sound from the first frame's time on; 0 without sound.
        loudness: root mean square of the sound, 1 = full scale.
        has_face: whether the frames looked at show a face; None where nobody looked.
    """

    video_frames: int
    sound_seconds: float
    loudness: float
    has_face: bool | None = None

    @property
    def frames(self) -> int:
        """Frames that have both picture and sound; a sound that ends less than a frame early counts as whole."""
        return min(self.video_frames, int(self.sound_seconds * VIDEO_FPS) + 1 if self.sound_seconds else 0)


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
        self._known: OrderedDict[str, ClipFacts] = OrderedDict()

    def require(self, clip: Path) -> ClipFacts:
        """Return the facts about a clip that keeps to the rules.

        Raises:
            UnusableClip: it cannot be read or breaks a rule; the reason says which.
            DependencyError: faces are to be checked and the detector is not installed.
        """
        facts = self.facts(clip)
        objection = self._objection(facts)
        if objection:
            raise UnusableClip(clip, objection)
        if self.rules.check_faces and not self._with_face(clip, facts).has_face:
            raise UnusableClip(clip, "no face in a frame that was looked at; the frames must be aligned face crops")
        return facts

    def facts(self, clip: Path) -> ClipFacts:
        """Facts about a clip; faces are looked for by `require` only.

        Raises:
            UnusableClip: the file cannot be read.
        """
        identity = self.reader.identity(clip)
        if identity not in self._known:
            record = self._disk.load_record(identity)
            facts = _measure(self.reader, clip) if record is None else ClipFacts(**record)
            if record is None:
                self._disk.store_record(identity, asdict(facts))
            self._remember(identity, facts)
        self._known.move_to_end(identity)
        return self._known[identity]

    def _objection(self, facts: ClipFacts) -> str | None:
        needed = self.rules.min_frames
        if not facts.sound_seconds:
            return "no sound beside its picture"
        if facts.loudness < self.rules.min_loudness:
            return f"silent: loudness {facts.loudness:.2g} of full scale, {self.rules.min_loudness:.2g} is needed"
        if facts.video_frames < needed:
            return f"too short: {facts.video_frames} frames at {VIDEO_FPS} a second, {needed} are needed"
        if facts.frames < needed:
            return f"sound too short: {facts.sound_seconds:.2f} s, {needed / VIDEO_FPS:.2f} s are needed"
        return None

    def _with_face(self, clip: Path, facts: ClipFacts) -> ClipFacts:
        if facts.has_face is not None:
            return facts
        places = [int(facts.video_frames * place) for place in _FACE_PLACES]
        windows = self.reader.windows(clip, places, 1, _FACE_SIDE)
        pictures = (rearrange(window, "1 c h w -> h w c").contiguous().numpy() for window in windows)
        looked = replace(facts, has_face=self._faces.all_have_faces(pictures))
        identity = self.reader.identity(clip)
        self._disk.store_record(identity, asdict(looked))
        self._remember(identity, looked)
        return looked

    def _remember(self, identity: str, facts: ClipFacts) -> None:
        self._known[identity] = facts
        while len(self._known) > _FACTS_KEPT:
            self._known.popitem(last=False)


def _measure(reader: ClipReader, clip: Path) -> ClipFacts:
    frames = reader.num_frames(clip)
    if not reader.has_sound(clip):
        return ClipFacts(frames, 0.0, 0.0)
    sound = reader.waveform(clip)
    loudness = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    return ClipFacts(frames, len(sound) / SAMPLE_RATE, loudness)
