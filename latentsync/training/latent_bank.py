"""Windows of ready-made latents: encoding is far dearer than a training step, so every clip is used many times.

Each clip holds two takes of one scene, a and b, that differ in the speech. Training repaints b with the words of a:
what surrounds the repainted region and the reference then show the wrong words, exactly as in use, and nothing but the
sound tells the right ones.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from einops import rearrange, repeat
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.models.vae import encode_latents
from latentsync.training.audio_batches import TracksOnDevice
from latentsync.training.clips import ClipSource, vary_colours
from latentsync.training.speech_tracks import TRACK_ROWS
from latentsync.whisper.audio_encoder import AudioEncoder
from latentsync.whisper.audio_windows import gather_windows

_ROWS_PER_FRAME = 2
_WINDOW_ROWS = (-4, 6)  # rows around a frame's own one: audio_feat_length [2, 2]


class SpeechFeatures:
    """Features of all tracks, clean and distorted, with the mouth curves that belong to them.

    Args:
        encoder: the trained audio encoder on the tracks' device.
        tracks: speech.
        versions: how many times every track is encoded; the first time clean.
        dtype: of the stored features.
        generator: of the distortions.
    """

    def __init__(
        self,
        encoder: AudioEncoder,
        tracks: TracksOnDevice,
        versions: int,
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        dims = encoder.dims
        shape = (versions, len(tracks), TRACK_ROWS, dims.n_audio_layer + 1, dims.n_audio_state)
        self.features = torch.empty(shape, dtype=dtype, device=tracks.device)
        self.curves = tracks.curves
        with torch.no_grad():
            for start in range(0, len(tracks), 16):
                indices = torch.arange(start, min(start + 16, len(tracks)), device=tracks.device)
                for version in range(versions):
                    batch = tracks.rerecorded(indices, generator) if version else tracks.clean(indices)
                    self.features[version, indices] = encoder(batch.mel).to(dtype)

    def draw(self, count: int, frames: int, generator: torch.Generator) -> Tensor:
        """Random places (count, 3) int64 where ``frames`` frames of speech fit: version, track, first row."""
        versions, tracks = self.features.shape[:2]
        last = TRACK_ROWS - _ROWS_PER_FRAME * frames
        columns = [_integers(high, count, generator) for high in (versions, tracks, last + 1)]
        return torch.stack(columns, dim=1)

    def mouth(self, places: Tensor, frames: int) -> Tensor:
        """Mouth curves (n, frames, 7) at 25 frames a second from places (n, 3)."""
        rows = places[:, 2:] + _ROWS_PER_FRAME * torch.arange(frames, device=places.device)
        return self.curves[places[:, 1:2], rows].float()

    def windows(self, places: Tensor, frames: int) -> Tensor:
        """Audio windows (n, frames, 50, d) from places (n, 3), as `AudioWindows` makes them at 25 frames a second."""
        centres = places[:, 2:] + _ROWS_PER_FRAME * torch.arange(frames, device=places.device)
        rows = rearrange(centres, "n f -> n f 1") + torch.arange(*_WINDOW_ROWS, device=places.device)
        _, tracks, length = self.features.shape[:3]
        track = places[:, 0] * tracks + places[:, 1]
        flat_rows = rearrange(track, "n -> n 1 1") * length + rows.clamp(0, length - 1)
        features = rearrange(self.features, "v n t l d -> (v n t) l d")
        windows = gather_windows(features, rearrange(flat_rows, "n f r -> (n f) r"))
        return rearrange(windows, "(n f) k d -> n f k d", f=frames)


@dataclass(frozen=True)
class WindowBatch:
    """What the U-Net is trained on.

    Attributes:
        clean: (b, 4, f, h, w) latents of the true faces.
        masked, reference: (b, 4, f, h, w) latents of the source faces, with the repainted region blanked, and whole.
        audio: (b, f, 50, d) audio windows of the true faces' speech.
        mouth, source_mouth: (b, f, 7) mouth curves of the true and of the source faces.
    """

    clean: Tensor
    masked: Tensor
    reference: Tensor
    audio: Tensor
    mouth: Tensor
    source_mouth: Tensor


class LatentBank:
    """A ring of encoded clips.

    Args:
        capacity: clips kept.
        clip_frames: frames of a clip, at least the window's.
        source: renders the clips.
        speech: what is spoken in them.
        vae: encodes them.
        mask: (3, R, R), 1 = keep, on the VAE's device.
    """

    def __init__(
        self,
        capacity: int,
        clip_frames: int,
        source: ClipSource,
        speech: SpeechFeatures,
        vae: AutoencoderKL,
        mask: Tensor,
    ) -> None:
        if capacity < 1 or clip_frames < 1:
            raise ConfigError(f"Latent bank: capacity {capacity} and clip_frames {clip_frames} must be at least 1")
        self.source, self.speech, self.vae, self.mask = source, speech, vae, mask
        self.clip_frames = clip_frames
        side = source.resolution // 8
        # Axes: clip, take, whole or blanked, frame.
        self.latents = torch.zeros(
            (capacity, 2, 2, clip_frames, 4, side, side), dtype=speech.features.dtype, device=mask.device
        )
        self.places = torch.zeros((capacity, 2, 3), dtype=torch.int64, device=mask.device)
        self.filled = 0
        self._next = 0

    @torch.no_grad()
    def add(self, generator: torch.Generator) -> None:
        """Render and encode one more clip in place of the oldest."""
        places = self.speech.draw(2, self.clip_frames, generator)
        takes = vary_colours(self.source.takes(self.speech.mouth(places, self.clip_frames), generator), generator)
        both = torch.stack([takes, takes * self.mask], dim=1).to(self.vae.dtype)
        latents = encode_latents(self.vae, rearrange(both, "k m t c h w -> (k m t) c h w"), None, 64)
        self.latents[self._next] = rearrange(latents, "(k m t) c h w -> k m t c h w", k=2, m=2).to(self.latents.dtype)
        self.places[self._next] = places
        self._next = (self._next + 1) % len(self.latents)
        self.filled = min(self.filled + 1, len(self.latents))

    def draw(self, count: int, frames: int, generator: torch.Generator, other_reference: float = 0.25) -> WindowBatch:
        """``count`` random windows.

        Args:
            count: b.
            frames: f.
            generator: of the choice.
            other_reference: share of the windows whose reference frames are from another part of the source take.
        """
        clips = _integers(self.filled, count, generator)
        take = _integers(2, count, generator)
        start, elsewhere = (_integers(self.clip_frames - frames + 1, count, generator) for _ in range(2))
        moved = torch.rand(count, generator=generator, device=generator.device) < other_reference
        ref_start = torch.where(moved, elsewhere, start)
        places, source_places = self.places[clips, take].clone(), self.places[clips, 1 - take].clone()
        for shifted in (places, source_places):
            shifted[:, 2] += _ROWS_PER_FRAME * start
        return WindowBatch(
            clean=self._window(clips, take, 0, start, frames),
            masked=self._window(clips, 1 - take, 1, start, frames),
            reference=self._window(clips, 1 - take, 0, ref_start, frames),
            audio=self.speech.windows(places, frames),
            mouth=self.speech.mouth(places, frames),
            source_mouth=self.speech.mouth(source_places, frames),
        )

    def _window(self, clips: Tensor, take: Tensor, blanked: int, start: Tensor, frames: int) -> Tensor:
        positions = rearrange(start, "b -> b 1") + torch.arange(frames, device=start.device)
        index = repeat(clips, "b -> b f", f=frames), repeat(take, "b -> b f", f=frames)
        chosen = self.latents[index[0], index[1], torch.full_like(positions, blanked), positions]
        return rearrange(chosen, "b f c h w -> b c f h w")


def _integers(high: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(high, (count,), generator=generator, device=generator.device)
