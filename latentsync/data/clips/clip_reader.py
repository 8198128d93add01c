"""Frames, audio and mel of aligned clips, all timed from the clip's first frame."""

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

_MAX_CACHED_INDICES = 4096


class UnusableClip(DataError):
    """A clip that cannot be used for training.

    Attributes:
        clip: its path.
        reason: why it is unusable.
    """

    def __init__(self, clip: Path, reason: str) -> None:
        super().__init__(f"{clip}: {reason}")
        self.clip, self.reason = clip, reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return type(self), (self.clip, self.reason)


class ClipReader:
    """Reads clips at 25 frames per second and 16 kHz, preserving the timing of audio relative to frames.

    All methods raise `UnusableClip` if the file cannot be read.

    Args:
        mel_cache: cache folder for the mel spectrograms of whole clips; None recomputes them each time.
    """

    def __init__(self, mel_cache: Path | None = None) -> None:
        self._mels = DiskCache(mel_cache, "syncnet-mel 1")
        self._indices: OrderedDict[str, FrameIndex] = OrderedDict()
        self._last_audio: tuple[str, np.ndarray] | None = None

    def fingerprint(self, clip: Path) -> str:
        """Fingerprint of the clip's current content, see `file_fingerprint`."""
        try:
            return file_fingerprint(clip)
        except OSError as error:
            raise UnusableClip(clip, f"cannot be found ({error.strerror})") from error
        except ValueError as error:
            raise UnusableClip(clip, f"cannot be found ({error})") from error  # a null byte in the path

    def num_frames(self, clip: Path) -> int:
        """Number of frames of the clip at 25 frames per second."""
        return self._index(clip).count(VIDEO_FPS)

    def windows(self, clip: Path, starts: Sequence[int], num_frames: int, resolution: int) -> list[Tensor]:
        """Decode one window per start frame, opening the file once: (num_frames, 3, R, R) uint8 each."""
        frame_indices = [start + frame for start in starts for frame in range(num_frames)]
        try:
            pixels = read_frames(self._index(clip), frame_indices, VIDEO_FPS)
        except MediaError as error:
            raise UnusableClip(clip, str(error)) from error
        # NumPy transposes uint8 arrays twice as fast as torch.
        frames = torch.from_numpy(np.ascontiguousarray(rearrange(pixels, "t h w c -> t c h w")))
        return list(_resize(frames, resolution).split(num_frames))

    def has_audio(self, clip: Path) -> bool:
        """Whether the file has an audio track, possibly an empty one."""
        try:
            with open_input(clip) as container:
                return audio_stream(container) is not None
        except MediaError as error:
            raise UnusableClip(clip, str(error)) from error

    def waveform(self, clip: Path) -> np.ndarray:
        """Audio of the clip from its first frame on: (n,) float32, 16 kHz mono. Shared: do not modify."""
        fingerprint = self.fingerprint(clip)
        if self._last_audio is None or self._last_audio[0] != fingerprint:
            try:
                waveform = read_timed_audio(clip, self._index(clip).start, SAMPLE_RATE)
            except MediaError as error:
                raise UnusableClip(clip, str(error)) from error
            self._last_audio = (fingerprint, waveform)
        return self._last_audio[1]

    def mel(self, clip: Path) -> Tensor:
        """SyncNet mel of the whole clip: (80, n // 200 + 1) float32, see `syncnet_mel`."""
        fingerprint = self.fingerprint(clip)
        cached = self._mels.load_array(fingerprint)
        if cached is None:
            mel = syncnet_mel(torch.from_numpy(self.waveform(clip)))
            self._mels.store_array(fingerprint, mel.numpy())
            return mel
        return torch.from_numpy(cached)

    def _index(self, clip: Path) -> FrameIndex:
        fingerprint = self.fingerprint(clip)
        if fingerprint not in self._indices:
            try:
                self._indices[fingerprint] = index_frames(clip)
            except MediaError as error:
                raise UnusableClip(clip, str(error)) from error
        self._indices.move_to_end(fingerprint)
        while len(self._indices) > _MAX_CACHED_INDICES:
            self._indices.popitem(last=False)
        return self._indices[fingerprint]


def _resize(frames: Tensor, resolution: int) -> Tensor:
    """(t, 3, h, w) uint8 -> (t, 3, R, R) uint8; other sizes are resized by antialiased bicubic interpolation."""
    if frames.shape[-2:] == (resolution, resolution):
        return frames
    pixels = F.interpolate(frames.float(), (resolution, resolution), mode="bicubic", antialias=True)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)
