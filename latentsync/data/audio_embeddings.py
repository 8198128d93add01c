"""Whisper features of whole clips, cached in memory and on disk and sliced into windows of training samples."""

import hashlib
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentsync.data.clips.clip_reader import ClipReader, UnusableClip
from latentsync.data.clips.disk_cache import DiskCache
from latentsync.errors import MediaError
from latentsync.media.audio.syncnet_mel import VIDEO_FPS
from latentsync.whisper.audio_encoder import AudioEncoder
from latentsync.whisper.audio_windows import AudioWindows, gather_windows, window_rows

_DEFAULT_BYTES = 2**30


class ClipAudioEmbeddings:
    """Speech features of clips, aligned to each clip's first frame.

    Args:
        encoder: computes the features; its weights must not change afterwards.
        cache_dir: folder of the disk cache, keyed by the clip's content and the encoder's dimensions and weights; None
            caches in memory only.
        max_bytes: size of the in-memory LRU cache (10 s of Whisper tiny in half precision take 1.9 MB).
        feat_length: (left, right) context of a window in units of 40 ms.
    """

    def __init__(
        self,
        encoder: AudioEncoder,
        cache_dir: Path | None = None,
        max_bytes: int = _DEFAULT_BYTES,
        feat_length: tuple[int, int] = (2, 2),
    ) -> None:
        self.encoder, self.max_bytes, self.feat_length = encoder, max_bytes, feat_length
        self._reader = ClipReader()
        self._disk = DiskCache(cache_dir, f"whisper 1 {encoder_fingerprint(encoder)}" if cache_dir else "")
        self._memory_cache: OrderedDict[str, Tensor] = OrderedDict()
        self.cached_bytes = 0

    def windows(self, clip: str | Path, start: int, frames: int) -> Tensor:
        """Feature windows of the frames ``start`` ... ``start + frames - 1`` at 25 frames per second.

        Returns:
            (frames, 50, d) on the encoder's device and in its dtype. Beyond the end of the audio the last row repeats.

        Raises:
            DataError: the clip or its audio cannot be read.
        """
        features = self.features(Path(clip))
        rows = window_rows(start, start + frames, VIDEO_FPS, len(features), self.feat_length)
        return gather_windows(features, rows).to(self.encoder.device)

    def features(self, clip: Path) -> Tensor:
        """Features of the whole clip: (rows, layers + 1, d), 50 rows per second, on the CPU."""
        fingerprint = self._reader.fingerprint(clip)
        if fingerprint not in self._memory_cache:
            cached = self._disk.load_array(fingerprint)
            features = self._encode(clip) if cached is None else torch.from_numpy(cached).to(self.encoder.dtype)
            if cached is None:
                self._disk.store_array(fingerprint, _as_numpy(features))
            self._add_to_cache(fingerprint, features)
        self._memory_cache.move_to_end(fingerprint)
        return self._memory_cache[fingerprint]

    def _encode(self, clip: Path) -> Tensor:
        waveform = torch.from_numpy(self._reader.waveform(clip))
        try:
            windows = AudioWindows(self.encoder, waveform, VIDEO_FPS, 0)
        except MediaError as error:
            raise UnusableClip(clip, str(error)) from error
        return windows.features(0, windows.num_rows).cpu()

    def _add_to_cache(self, fingerprint: str, features: Tensor) -> None:
        self._memory_cache[fingerprint] = features
        self.cached_bytes += features.nbytes
        while self.cached_bytes > self.max_bytes and len(self._memory_cache) > 1:
            self.cached_bytes -= self._memory_cache.popitem(last=False)[1].nbytes


def encoder_fingerprint(encoder: AudioEncoder) -> str:
    """Hash of the encoder's dimensions, dtype and weights."""
    digest = hashlib.sha256(f"{asdict(encoder.dims)} {encoder.dtype}".encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(_as_numpy(value.detach().cpu().contiguous()).tobytes())
    return digest.hexdigest()[:40]


def _as_numpy(features: Tensor) -> np.ndarray:
    # NumPy has no bfloat16.
    return (features.float() if features.dtype == torch.bfloat16 else features).numpy()
