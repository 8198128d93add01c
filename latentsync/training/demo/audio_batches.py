"""Batches of augmented log-mel segments with their mouth curves, made on the training device.

What is varied: speaker (resampling), loudness, noise of any colour, other voices, room echo, the microphone's tone,
missing bands, where a recording starts inside a segment and where it ends.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from latentsync.media.audio.mel_filterbank import mel_filterbank
from latentsync.training.demo.speech_tracks import TRACK_ROWS, SpeechTracks
from latentsync.whisper.log_mel import HOP_LENGTH, N_FFT, N_MELS, SAMPLE_RATE

_SAMPLES_PER_ROW = 2 * HOP_LENGTH
_RIR_SAMPLES = 4096


@dataclass(frozen=True)
class AudioBatch:
    """Segments of 30 s.

    Attributes:
        mel: (b, 80, 3000) log-mel, 0.0 behind a recording's end.
        curves: (b, 1500, 7) float32 mouth curve.
        classes: (b, 1500) int64 sound class.
        valid: (b, 1500) bool, False behind a recording's end.
    """

    mel: Tensor
    curves: Tensor
    classes: Tensor
    valid: Tensor


class TracksOnDevice:
    """Speech tracks in the device's memory.

    Args:
        tracks: at least one.
        device: needs about 1 MB of memory per track.
    """

    def __init__(self, tracks: SpeechTracks, device: torch.device) -> None:
        self.device = device
        self.waveforms = torch.from_numpy(np.array(tracks.waveforms)).to(device)
        self.curves = torch.from_numpy(np.array(tracks.curves)).to(device)
        self.classes = torch.from_numpy(np.array(tracks.classes)).to(device)
        self._filters = mel_filterbank(N_FFT, N_MELS, 0.0, SAMPLE_RATE / 2).to(device)
        self._window = torch.hann_window(N_FFT, device=device)

    def __len__(self) -> int:
        return len(self.waveforms)

    def clean(self, indices: Tensor) -> AudioBatch:
        """Whole tracks (b,) as they are."""
        waveforms = self.waveforms[indices].float() / 32768
        lengths = torch.full((len(indices),), TRACK_ROWS, device=self.device)
        return self._batch(waveforms, self.curves[indices].float(), self.classes[indices].long(), lengths)

    def augmented(self, batch_size: int, generator: torch.Generator) -> AudioBatch:
        """Random tracks, every one rolled, distorted and perhaps cut short; one resampling factor for the batch."""
        indices = torch.randint(len(self), (batch_size,), generator=generator, device=self.device)
        waveforms = self.waveforms[indices].float() / 32768
        curves, classes = self.curves[indices].float(), self.classes[indices].long()
        waveforms, curves, classes = _resampled(waveforms, curves, classes, generator)
        shifts = _uniform((batch_size,), 0, TRACK_ROWS, generator).long()
        curves, classes = _rolled(curves, shifts), _rolled(classes, shifts)
        waveforms = distort(_rolled(waveforms, shifts * _SAMPLES_PER_ROW), generator)
        shortest = TRACK_ROWS // 20
        lengths = _uniform((batch_size,), shortest, 2 * TRACK_ROWS, generator).long().clamp(max=TRACK_ROWS)
        batch = self._batch(waveforms, curves, classes, lengths)
        return AudioBatch(_tone(batch.mel, batch.valid, generator), batch.curves, batch.classes, batch.valid)

    def rerecorded(self, indices: Tensor, generator: torch.Generator) -> AudioBatch:
        """Whole tracks (b,), distorted but with their timing kept."""
        waveforms = distort(self.waveforms[indices].float() / 32768, generator)
        lengths = torch.full((len(indices),), TRACK_ROWS, device=self.device)
        return self._batch(waveforms, self.curves[indices].float(), self.classes[indices].long(), lengths)

    def _batch(self, waveforms: Tensor, curves: Tensor, classes: Tensor, lengths: Tensor) -> AudioBatch:
        positions = torch.arange(TRACK_ROWS, device=self.device)
        valid = rearrange(positions, "t -> 1 t") < rearrange(lengths, "b -> b 1")
        samples = repeat(valid, "b t -> b (t s)", s=_SAMPLES_PER_ROW)
        mel = batched_log_mel(waveforms * samples, self._filters, self._window)
        return AudioBatch(mel * repeat(valid, "b t -> b 1 (t two)", two=2), curves, classes, valid)


def batched_log_mel(waveforms: Tensor, filters: Tensor, window: Tensor) -> Tensor:
    """Whisper's log-mel of several recordings of one length, each normalised by its own maximum.

    Args:
        waveforms: (b, n) float32, 16 kHz.
        filters: (80, 201) from `mel_filterbank`.
        window: (400,) Hann window.

    Returns:
        (b, 80, n // 160) float32, equal to `latentsync.whisper.log_mel.log_mel` of each recording.
    """
    spectrum = torch.stft(waveforms, N_FFT, HOP_LENGTH, window=window, center=True, return_complex=True)[..., :-1]
    power = filters @ (spectrum.real.square() + spectrum.imag.square())
    log_power = power.clamp(min=1e-10).log10()
    peak = log_power.amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(log_power, peak - 8.0) + 4.0) / 4.0


def distort(waveforms: Tensor, generator: torch.Generator) -> Tensor:
    """Echo, a second voice, coloured noise and loudness, each with its own strength per recording: (b, n) -> (b, n)."""
    batch = len(waveforms)
    waveforms = _with_echo(waveforms, generator)
    level = waveforms.square().mean(dim=1, keepdim=True).sqrt() + 1e-4
    other = waveforms.roll(1, dims=0) if batch > 1 else torch.zeros_like(waveforms)
    other_gain = 10 ** (-_uniform((batch, 1), 12, 35, generator) / 20) * _chance((batch, 1), 0.3, generator)
    noise_gain = 10 ** (-_uniform((batch, 1), 3, 45, generator) / 20) * _chance((batch, 1), 0.7, generator)
    noise = _colored_noise(waveforms.shape, generator)
    mixed = waveforms + other * other_gain + noise * noise_gain * level
    gain = 10 ** (_uniform((batch, 1), -22, 8, generator) / 20)
    return (mixed * gain).clamp(-1, 1)


def _resampled(
    waveforms: Tensor, curves: Tensor, classes: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole batch played faster or slower, which also moves pitch and formants; lengths are kept by cutting."""
    factor = float(_uniform((1,), 0.84, 1.2, generator))
    if abs(factor - 1) < 0.04:
        return waveforms, curves, classes
    rows = round(TRACK_ROWS / factor)
    repeats = math.ceil(TRACK_ROWS / rows)
    waveforms = F.interpolate(waveforms[:, None], rows * _SAMPLES_PER_ROW, mode="linear")[:, 0]
    curves = rearrange(F.interpolate(rearrange(curves, "b t p -> b p t"), rows, mode="linear"), "b p t -> b t p")
    classes = F.interpolate(classes[:, None].float(), rows, mode="nearest")[:, 0].long()
    waveforms = waveforms.repeat(1, repeats)[:, : TRACK_ROWS * _SAMPLES_PER_ROW]
    return waveforms, curves.repeat(1, repeats, 1)[:, :TRACK_ROWS], classes.repeat(1, repeats)[:, :TRACK_ROWS]


def _rolled(values: Tensor, shifts: Tensor) -> Tensor:
    """Every row of ``values`` (b, t, ...) rolled by its own shift."""
    positions = torch.arange(values.shape[1], device=values.device)
    sources = (rearrange(positions, "t -> 1 t") + rearrange(shifts, "b -> b 1")) % values.shape[1]
    return values[torch.arange(len(values), device=values.device)[:, None], sources]


def _with_echo(waveforms: Tensor, generator: torch.Generator) -> Tensor:
    """Convolved with decaying noise behind the direct sound, in a third of the recordings."""
    batch, samples = waveforms.shape
    time = torch.arange(_RIR_SAMPLES, device=waveforms.device) / SAMPLE_RATE
    decay = _uniform((batch, 1), 0.02, 0.12, generator)
    rir = torch.randn((batch, _RIR_SAMPLES), generator=generator, device=waveforms.device) * torch.exp(-time / decay)
    strength = _uniform((batch, 1), 0.0, 0.8, generator) * _chance((batch, 1), 0.35, generator)
    rir = rir / (rir.square().sum(dim=1, keepdim=True).sqrt() + 1e-6) * strength
    rir[:, 0] = 1.0
    size = samples + _RIR_SAMPLES
    return torch.fft.irfft(torch.fft.rfft(waveforms, size) * torch.fft.rfft(rir, size), size)[:, :samples]


def _colored_noise(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Unit-power noise (b, n) whose spectrum falls by 0 to 9 dB an octave."""
    white = torch.randn(shape, generator=generator, device=generator.device)
    spectrum = torch.fft.rfft(white)
    slope = _uniform((shape[0], 1), 0.0, 1.5, generator)
    frequency = torch.linspace(0.002, 1.0, spectrum.shape[1], device=white.device)
    coloured = torch.fft.irfft(spectrum * frequency[None] ** -slope, shape[1])
    return coloured / (coloured.square().mean(dim=1, keepdim=True).sqrt() + 1e-6)


def _tone(mel: Tensor, valid: Tensor, generator: torch.Generator) -> Tensor:
    """A smooth random tone control over the bands, and a few missing bands and moments."""
    batch, bands, columns = mel.shape
    knots = torch.randn((batch, 1, 6), generator=generator, device=mel.device) * 0.12
    tone = rearrange(F.interpolate(knots, bands, mode="linear", align_corners=True), "b 1 m -> b m 1")
    first = _uniform((batch, 1, 1), 0, bands, generator)
    width = _uniform((batch, 1, 1), 0, 12, generator) * _chance((batch, 1, 1), 0.5, generator)
    band = rearrange(torch.arange(bands, device=mel.device), "m -> 1 m 1")
    kept = ((band < first) | (band >= first + width)).float()
    floor = mel.amin(dim=(1, 2), keepdim=True)
    toned = torch.lerp(floor.expand_as(mel), mel + tone, kept)
    return toned * repeat(valid, "b t -> b 1 (t two)", two=columns // valid.shape[1])


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _chance(shape: tuple[int, ...], probability: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator, device=generator.device) < probability).float()
