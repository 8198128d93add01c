"""Frames, sound and mel of aligned clips, all on the clock of the clip's first frame."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from latentsync.data.clips.disk_cache import DiskCache, file_fingerprint
from latentsync.errors import DataError, MediaError
from latentsync.media.audio.syncnet_mel import SAMPLE_RATE, VIDEO_FPS, syncnet_mel
from latentsync.media.audio.timed_audio import read_timed_audio
from latentsync.media.container import audio_stream, open_input
from latentsync.media.frame_index import FrameIndex, index_frames
from latentsync.media.window_reader import read_frames

_INDICES_KEPT = 4096


class UnusableClip(DataError):
    """A clip cannot be used.

    Attributes:
        clip: which one.
        reason: why.
    """

    def __init__(self, clip: Path, reason: str) -> None:
        super().__init__(f"{clip}: {reason}")
        self.clip, self.reason = clip, reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return type(self), (self.clip, self.reason)


class ClipReader:
    """Reads clips at 25 frames a second and 16 kHz, where sound and frames keep the times that the file gives them.

    All methods raise `UnusableClip` where the file cannot be read.

    Args:
        mel_cache: folder for the mel spectrograms of whole clips; None makes them anew each time.
    """

    def __init__(self, mel_cache: Path | None = None) -> None:
        self._mels = DiskCache(mel_cache, "syncnet-mel 1")
        self._indices: OrderedDict[str, FrameIndex] = OrderedDict()
        self._last_sound: tuple[str, np.ndarray] | None = None

    def fingerprint(self, clip: Path) -> str:
        """Name of the clip's present content, see `file_fingerprint`."""
        try:
            return file_fingerprint(clip)
        except OSError as error:
            raise UnusableClip(clip, f"cannot be found ({error.strerror})") from error
        except ValueError as error:
            raise UnusableClip(clip, f"cannot be found ({error})") from error  # a null byte: no list of clips at all

    def num_frames(self, clip: Path) -> int:
        """Frames of the clip at 25 a second."""
        return self._index(clip).count(VIDEO_FPS)

    def windows(self, clip: Path, starts: Sequence[int], num_frames: int, resolution: int) -> list[Tensor]:
        """Decode one window per start, in one opening of the file: (num_frames, 3, R, R) uint8 each."""
        numbers = [start + frame for start in starts for frame in range(num_frames)]
        try:
            pixels = read_frames(self._index(clip), numbers, VIDEO_FPS)
        except MediaError as error:
            raise UnusableClip(clip, str(error)) from error
        # NumPy turns bytes round twice as fast as torch does.
        frames = torch.from_numpy(np.ascontiguousarray(rearrange(pixels, "t h w c -> t c h w")))
        return list(_resized(frames, resolution).split(num_frames))

    def has_audio(self, clip: Path) -> bool:
        """Whether the file has a sound track, perhaps an empty one."""
        try:
            with open_input(clip) as container:
                return audio_stream(container) is not None
        except MediaError as error:
            raise UnusableClip(clip, str(error)) from error

    def waveform(self, clip: Path) -> np.ndarray:
        """The clip's sound from the time of its first frame on: (n,) float32, 16 kHz mono; do not write into it."""
        fingerprint = self.fingerprint(clip)
        if self._last_sound is None or self._last_sound[0] != fingerprint:
            try:
                sound = read_timed_audio(clip, self._index(clip).start, SAMPLE_RATE)
            except MediaError as error:
                raise UnusableClip(clip, str(error)) from error
            self._last_sound = (fingerprint, sound)
        return self._last_sound[1]

    def mel(self, clip: Path) -> Tensor:
        """The SyncNet mel of the whole clip: (80, n // 200 + 1) float32, see `syncnet_mel`."""
        fingerprint = self.fingerprint(clip)
        kept = self._mels.load_array(fingerprint)
        if kept is None:
            mel = syncnet_mel(torch.from_numpy(self.waveform(clip)))
            self._mels.store_array(fingerprint, mel.numpy())
            return mel
        return torch.from_numpy(kept)

    def _index(self, clip: Path) -> FrameIndex:
        fingerprint = self.fingerprint(clip)
        if fingerprint not in self._indices:
            try:
                self._indices[fingerprint] = index_frames(clip)
            except MediaError as error:
                raise UnusableClip(clip, str(error)) from error
        self._indices.move_to_end(fingerprint)
        while len(self._indices) > _INDICES_KEPT:
            self._indices.popitem(last=False)
        return self._indices[fingerprint]


def _resized(frames: Tensor, resolution: int) -> Tensor:
    """(t, 3, h, w) uint8 -> (t, 3, R, R) uint8; another size is resized bicubic and antialiased."""
    if frames.shape[-2:] == (resolution, resolution):
        return frames
    pixels = F.interpolate(frames.float(), (resolution, resolution), mode="bicubic", antialias=True)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)
