"""Sync confidence of a clip and its audio-video offset in frames, estimated by a SyncNet.

Every window of frames is compared with the audio windows around it, following Chung and Zisserman ("Out of time:
automated lip sync in the wild", 2016): the shift with the highest similarity is the offset, and its margin over the
median of all shifts is the confidence.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from latentsync.errors import ConfigError, MediaError
from latentsync.losses.region import lower_half
from latentsync.media.audio.syncnet_mel import COLUMNS_PER_SECOND, VIDEO_FPS, mel_columns, num_mel_windows
from latentsync.models.stable_syncnet import StableSyncNet, cosine

Curve = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SyncScore:
    """Scores of one clip.

    Attributes:
        av_offset: frames by which the audio is early (positive) or late (negative).
        sync_conf: highest similarity minus the median over all shifts; a difference of cosines, between 0 and 1.
        cosine: mean similarity of frames and audio without a shift, 0 to 1.
        curve: (2 * shifts + 1,) mean similarity of frame i with the audio of frame i + s, s from -shifts to shifts.
        windows: number of windows of frames.
    """

    av_offset: int
    sync_conf: float
    cosine: float
    curve: tuple[float, ...]
    windows: int


def offset_and_confidence(curve: npt.ArrayLike) -> tuple[int, float]:
    """Offset and confidence from a similarity curve.

    Args:
        curve: (2 * shifts + 1,) similarity of frame i with the audio of frame i + s, s from -shifts to shifts; higher
            is better (negate distances).

    Returns:
        Frames by which the audio is early (negative: late), and the highest similarity minus the median.
    """
    values = np.asarray(curve, np.float64)
    best = int(values.argmax())
    return len(values) // 2 - best, float(values[best] - np.median(values))


def similarity_curve(vision: Tensor, audio: Tensor, shifts: int = 15) -> Curve:
    """Mean cosine similarity of two series of embeddings at every shift, over the pairs that exist in both.

    Args:
        vision: (n, d) unit vectors, one per frame.
        audio: (m, d) unit vectors for the same frames.
        shifts: largest shift in frames.

    Returns:
        (2 * shifts + 1,) float64 in [0, 1], see `offset_and_confidence`.

    Raises:
        MediaError: there are too few windows for that shift.
    """
    if min(len(vision), len(audio)) <= shifts:
        raise MediaError(
            f"Cannot search for offsets of up to {shifts} frames in {len(vision)} video windows and {len(audio)} audio "
            f"windows; give a clip with more than {shifts} windows of each"
        )
    return np.array([_diagonal_mean(vision, audio, shift) for shift in range(-shifts, shifts + 1)])


def _diagonal_mean(vision: Tensor, audio: Tensor, shift: int) -> float:
    """Mean cosine similarity of vision[i] and audio[i + shift] where both exist."""
    vision, audio = vision[max(0, -shift) :], audio[max(0, shift) :]
    count = min(len(vision), len(audio))
    return float(cosine(vision[:count], audio[:count]).mean())


def syncnet_input(frames: Tensor, lower: bool = True) -> Tensor:
    """Input of StableSyncNet: (b, f, 3, R, R) uint8 -> (b, f * 3, h, R) float32 in [-1, 1]; h = R / 2 if ``lower``."""
    frames = lower_half(frames) if lower else frames
    return frames.flatten(1, 2).float() / 127.5 - 1.0


class SyncMeter:
    """Scores clips with a SyncNet, in bounded memory.

    Args:
        network: a pixel-space (not latent-space) StableSyncNet in evaluation mode, on its device.
        num_frames: number of frames f of its window.
        lower: whether its input is the lower half of the face only.
        batch_size: number of windows embedded at once.
        shifts: largest offset to search for, in frames.

    Raises:
        ConfigError: the network does not take windows of that many frames.
    """

    def __init__(
        self, network: StableSyncNet, num_frames: int = 16, lower: bool = True, batch_size: int = 16, shifts: int = 15
    ) -> None:
        channels = network.spec.visual_encoder.in_channels
        if channels != 3 * num_frames:
            raise ConfigError(
                f"A SyncNet with {channels} input channels cannot score windows of {num_frames} frames; expected "
                f"{3 * num_frames} channels. Give a pixel-space (not latent-space) SyncNet and its number of frames"
            )
        self.network, self.num_frames, self.lower = network, num_frames, lower
        self.batch_size, self.shifts = batch_size, shifts
        parameter = next(network.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype

    @torch.inference_mode()
    def pair_cosines(self, frames: Tensor, mel: Tensor) -> Tensor:
        """Cosines of pairs: frames (b, f, 3, R, R) uint8, mel (b, 1, 80, m) -> (b,) float32 in [0, 1] on the CPU."""
        batches = zip(frames.split(self.batch_size), mel.split(self.batch_size), strict=True)
        return torch.cat([cosine(self._embed_video(images), self._embed_audio(mels)).cpu() for images, mels in batches])

    @torch.inference_mode()
    def vision(self, frames: Tensor) -> Tensor:
        """Embed every window of a clip: (t, 3, R, R) uint8 aligned faces at 25 fps -> (t - f + 1, d) on the CPU."""
        starts = torch.arange(len(frames) - self.num_frames + 1)
        offsets = torch.arange(self.num_frames)
        return torch.cat(
            [self._embed_video(frames[part[:, None] + offsets]).cpu() for part in starts.split(self.batch_size)]
        )

    @torch.inference_mode()
    def audio(self, mel: Tensor) -> Tensor:
        """Embed the audio window of every frame: SyncNet mel (80, m) -> (k, d) on the CPU.

        Window i starts at column int(3.2 i), the time of frame i; k windows fit.
        """
        columns = torch.arange(mel_columns(self.num_frames))
        frames = torch.arange(num_mel_windows(mel.shape[-1], self.num_frames))
        starts = COLUMNS_PER_SECOND * frames // VIDEO_FPS
        windows = [
            rearrange(mel[:, part[:, None] + columns], "bands b m -> b 1 bands m")
            for part in starts.split(self.batch_size)
        ]
        return torch.cat([self._embed_audio(window).cpu() for window in windows])

    def score(self, frames: Tensor, mel: Tensor) -> SyncScore:
        """Score one clip.

        Args:
            frames: (t, 3, R, R) uint8 aligned faces at 25 fps, on any device.
            mel: (80, m) SyncNet mel of its audio, 80 columns per second.

        Raises:
            MediaError: the clip is too short; at least f + shifts frames are needed.
        """
        needed = self.num_frames + self.shifts
        if len(frames) < needed or num_mel_windows(mel.shape[-1], self.num_frames) <= self.shifts:
            raise MediaError(
                f"{len(frames)} frames with {mel.shape[-1]} mel columns are too short to score; expected at least "
                f"{needed} frames ({needed / VIDEO_FPS:.2f} s) with their audio"
            )
        vision = self.vision(frames)
        curve = similarity_curve(vision, self.audio(mel), self.shifts)
        offset, confidence = offset_and_confidence(curve)
        return SyncScore(offset, confidence, float(curve[self.shifts]), tuple(curve.tolist()), len(vision))

    def _embed_video(self, frames: Tensor) -> Tensor:
        """(b, f, 3, R, R) uint8 -> (b, d) float32."""
        images = syncnet_input(frames.to(self._device), self.lower)
        embeds: Tensor = self.network.visual_encoder(images.to(self._dtype))
        return embeds.float()

    def _embed_audio(self, mel: Tensor) -> Tensor:
        """(b, 1, 80, m) -> (b, d) float32."""
        embeds: Tensor = self.network.audio_encoder(mel.to(self._device, self._dtype))
        return embeds.float()
