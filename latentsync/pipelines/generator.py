"""From aligned faces and audio to new faces: one window through VAE, denoiser and VAE again."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from einops import rearrange
from torch import Tensor

from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.diffusion.denoise import NoisePredictor, SamplerOptions, WindowCondition, denoise, initial_noise
from latentsync.face.compositing.color_match import ColorMatcher
from latentsync.face.compositing.detail import SmoothedDetailWeight
from latentsync.face.compositing.masks import latent_mask
from latentsync.models.vae import LatentCodec, decode_latents, encode_latents
from latentsync.profiling import StageClock


@dataclass(frozen=True)
class WindowInput:
    """What one window is made from.

    Attributes:
        faces: (f, 3, R, R) uint8 aligned source faces.
        audio: (f, 50, d) audio windows.
        face_keys: identifies the face of each slot: equal keys, also in the previous window, mean equal faces, which
            need not be looked at twice.
    """

    faces: Tensor
    audio: Tensor
    face_keys: Sequence[Hashable] | None = None


class WindowNoise(NamedTuple):
    """The random part of a window.

    Attributes:
        initial: (1, 4, 1, R/8, R/8), the video's own, from which all its frames begin.
        masked: (f, 4, R/8, R/8) for sampling the masked latents; None takes the mean.
        ref: the same for the reference latents.
    """

    initial: Tensor
    masked: Tensor | None
    ref: Tensor | None


class FaceGenerator(Protocol):
    """Makes the faces of a video window by window; `start` must be called before each video.

    Attributes:
        resolution: R, side of the faces.
        window_batch_size: how many windows `sample_windows` is best given together; a video's last call has fewer.
    """

    resolution: int
    window_batch_size: int

    def start(self, seed: int, options: SamplerOptions, clock: StageClock) -> None:
        """Begin a new video: equal seeds give equal videos."""
        ...

    def sample_windows(self, windows: Sequence[WindowInput]) -> list[Tensor]:
        """Windows of a video, in order -> of each a code per frame (f, ...), safe to blend linearly."""
        ...

    def decode(self, codes: Tensor, faces: Tensor) -> Tensor:
        """Codes (n, ...) and the source faces (n, 3, R, R) uint8 -> new faces (n, 3, R, R) in [-1, 1]."""
        ...


@dataclass
class DiffusionGenerator:
    """The real generator: audio-conditioned latent diffusion.

    Attributes:
        predictor: predicts the noise.
        vae: the autoencoder; both on one device, in one dtype.
        mask: (3, R, R) float, 1 = keep, 0 = repaint.
        schedule: the training noise schedule.
        keep_detail: put the source's own detail back where nothing changed; costs one more decoding per frame.
        vae_batch: most frames the VAE sees at once; bounds the memory.
        window_batch_size: see `FaceGenerator`.
    """

    predictor: NoisePredictor
    vae: LatentCodec
    mask: Tensor
    schedule: NoiseSchedule
    vae_batch: int = 8
    keep_detail: bool = False
    window_batch_size: int = 1
    resolution: int = field(init=False)

    def __post_init__(self) -> None:
        self._device, self._dtype = self.vae.device, self.vae.dtype
        # bfloat16 holds about half the levels of a pixel, which would show where the source is kept.
        self._pixel_dtype = torch.float32 if self._dtype == torch.bfloat16 else self._dtype
        self.resolution = self.mask.shape[-1]
        self.mask = self.mask.to(self._device, self._pixel_dtype)
        self._mask_latents = latent_mask(self.mask[:1]).to(self._device, self._dtype)
        self.start(0, SamplerOptions(), StageClock(self._device))

    def start(self, seed: int, options: SamplerOptions, clock: StageClock) -> None:
        """See `FaceGenerator.start`. The one noise draw of the video is made here."""
        self._options, self._clock = options, clock
        self._match_colors, self._detail_weight = ColorMatcher(self.mask), SmoothedDetailWeight()
        self._latent_cache: dict[Hashable, Tensor] = {}
        self._generator = torch.Generator(self._device).manual_seed(seed)
        size = self.resolution // 8
        shape = (self.vae.config["latent_channels"], size, size)
        self._noise = initial_noise(shape, 1, self._generator, self._pixel_dtype).to(self._dtype)

    def sample_windows(self, windows: Sequence[WindowInput]) -> list[Tensor]:
        """See `FaceGenerator.sample_windows`."""
        return self.sample([(window, self.draw_noise(len(window.faces))) for window in windows])

    def draw_noise(self, num_frames: int) -> WindowNoise:
        """The noise of the next window: drawn in the order of the windows, whoever samples them."""
        return WindowNoise(self._noise, *self._encoder_noise(num_frames))

    @torch.inference_mode()
    def sample(self, parts: Sequence[tuple[WindowInput, WindowNoise]]) -> list[Tensor]:
        """Of each window clean scaled latents (f, 4, R/8, R/8), with `keep_detail` followed by the source's own.

        As many windows as `window_batch_size` says, of one length, go through the network together.
        """
        codes: list[Tensor] = []
        for start in range(0, len(parts), self.window_batch_size):
            group = parts[start : start + self.window_batch_size]
            whole = len(group) == self.window_batch_size and len({len(window.faces) for window, _ in group}) == 1
            for together in [group] if whole else [[each] for each in group]:
                codes.extend(self._sample_together(together))
        return codes

    def _sample_together(self, parts: Sequence[tuple[WindowInput, WindowNoise]]) -> Tensor:
        """Windows of one length -> (b, f, c, R/8, R/8)."""
        with self._clock.on_device("encode"):
            condition = WindowCondition.joined([self._encode_window(*part) for part in parts])
        with self._clock.on_device("denoise"):
            initial = parts[0][1].initial.expand(len(parts), -1, condition.mask.shape[2], -1, -1)
            latents = denoise(self.predictor, initial, condition, self.schedule, self._options)
        codes = torch.cat([latents, condition.ref_latents], dim=1) if self.keep_detail else latents
        return rearrange(codes, "b c f h w -> b f c h w")

    def _encode_window(self, window: WindowInput, noise: WindowNoise) -> WindowCondition:
        if window.face_keys is None or self._options.published:
            return self.condition(window.faces, window.audio, noise.masked, noise.ref)
        return self._window_condition(self._encode_cached(window.faces, window.face_keys), window.audio)

    def condition(
        self, faces: Tensor, audio: Tensor, masked_noise: Tensor | None, ref_noise: Tensor | None
    ) -> WindowCondition:
        """Encode what a window is conditioned on.

        Args:
            faces: (f, 3, R, R) uint8 aligned source faces, which are also the reference.
            audio: (f, 50, d) audio windows.
            masked_noise: (f, 4, R/8, R/8) for sampling the masked latents; None takes the mean.
            ref_noise: the same for the reference latents.
        """
        return self._window_condition(self._encode(faces, masked_noise, ref_noise), audio)

    def _encode(self, faces: Tensor, masked_noise: Tensor | None = None, ref_noise: Tensor | None = None) -> Tensor:
        """Masked and reference latents, (f, 3, R, R) uint8 -> (f, 8, R/8, R/8)."""
        pixels = self.pixels(faces)
        masked_latents = encode_latents(self.vae, (pixels * self.mask).to(self._dtype), masked_noise, self.vae_batch)
        ref_latents = encode_latents(self.vae, pixels.to(self._dtype), ref_noise, self.vae_batch)
        return torch.cat([masked_latents, ref_latents], dim=1)

    def _encode_cached(self, faces: Tensor, face_keys: Sequence[Hashable]) -> Tensor:
        """As `_encode`, but only faces that neither this window nor the one before has had already."""
        fresh: dict[Hashable, Tensor] = {}
        for name, face in zip(face_keys, faces, strict=True):
            if name not in self._latent_cache:
                fresh.setdefault(name, face)
        if fresh:
            self._latent_cache.update(zip(fresh, self._encode(torch.stack(list(fresh.values()))), strict=True))
        self._latent_cache = {name: self._latent_cache[name] for name in face_keys}
        return torch.stack([self._latent_cache[name] for name in face_keys])

    def _window_condition(self, encoded: Tensor, audio: Tensor) -> WindowCondition:
        """From `_encode`'s latents (f, 8, R/8, R/8) and audio (f, 50, d)."""
        masked_latents, ref_latents = rearrange(encoded, "f (two c) h w -> two 1 c f h w", two=2)
        return WindowCondition(
            mask=self._mask_latents.expand(1, 1, len(encoded), -1, -1),
            masked_latents=masked_latents,
            ref_latents=ref_latents,
            audio=audio[None].to(self._device, self._dtype),
        )

    def decode(self, codes: Tensor, faces: Tensor) -> Tensor:
        """See `FaceGenerator.decode`: the repainted region from the latents, the rest from the source faces."""
        return self.postprocess(*self.vae_decode(codes), faces)

    @torch.inference_mode()
    def vae_decode(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """The part of `decode` that takes every frame by itself, in any order: the autoencoder's.

        Returns:
            (n, 3, R, R) in [-1, 1], the new faces, and the same of the source; None where that is not needed.
        """
        with self._clock.on_device("decode"):
            channels = self.vae.config["latent_channels"]
            decoded = self._vae_decode(codes[:, :channels])
            if not self.keep_detail or self._options.published:
                return decoded, None
            return decoded, self._vae_decode(codes[:, channels:])

    @torch.inference_mode()
    def postprocess(self, decoded: Tensor, reconstruction: Tensor | None, faces: Tensor) -> Tensor:
        """The part of `decode` that takes the frames in order: from what `vae_decode` made to the new faces."""
        with self._clock.on_device("decode"):
            source = self.pixels(faces)
            if not self._options.published:
                decoded = self._refine(decoded, reconstruction, source)
            return torch.lerp(decoded, source, self.mask)

    def _refine(self, decoded: Tensor, reconstruction: Tensor | None, source: Tensor) -> Tensor:
        """Right colours where the face is new, the source's own detail where it is not."""
        matched = self._match_colors(decoded, source)
        if reconstruction is None:
            return matched
        return torch.lerp(
            matched, decoded + source - reconstruction, self._detail_weight(decoded, reconstruction, source)
        )

    def _vae_decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (n, 4, R/8, R/8) -> pixels (n, 3, R, R), about [-1, 1]."""
        return decode_latents(self.vae, latents.to(self._dtype), self.vae_batch).to(self._pixel_dtype)

    def pixels(self, faces: Tensor) -> Tensor:
        """(n, 3, R, R) uint8 -> the same in [-1, 1], in the networks' dtype (float32 instead of bfloat16)."""
        return faces.to(self._device, self._pixel_dtype) / 127.5 - 1.0

    def _encoder_noise(self, num_frames: int) -> tuple[Tensor | None, Tensor | None]:
        """Masked first, then reference: the order in which the public system draws them."""
        if not self._options.published:
            return None, None
        shape = (num_frames, self.vae.config["latent_channels"], self.resolution // 8, self.resolution // 8)
        draws = [
            torch.randn(shape, generator=self._generator, device=self._device, dtype=self._pixel_dtype)
            for _ in range(2)
        ]
        return draws[0].to(self._dtype), draws[1].to(self._dtype)


@dataclass
class PassThroughGenerator:
    """Gives every face back as it came: exercises everything around the networks."""

    resolution: int
    window_batch_size: int = 1

    def start(self, seed: int, options: SamplerOptions, clock: StageClock) -> None:
        """Nothing to prepare."""

    def sample_windows(self, windows: Sequence[WindowInput]) -> list[Tensor]:
        """The same faces in [-1, 1]."""
        return [window.faces.float() / 127.5 - 1.0 for window in windows]

    def decode(self, codes: Tensor, faces: Tensor) -> Tensor:
        """The codes already are faces."""
        return codes
