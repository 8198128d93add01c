"""A very small Whisper encoder with the golden weights, and deterministic test waveforms."""

import dataclasses
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from latentsync.whisper.audio_encoder import AudioEncoder, AudioEncoderDims
from latentsync.whisper.audio_windows import AudioWindows
from tests.golden_files import formula_u32, load_golden


def micro_encoder(**changes: int) -> AudioEncoder:
    """The 4-layer, 16-wide golden encoder; with `changes` to its dimensions, an untrained one instead."""
    weights = load_golden("whisper_micro_weights")
    dims = AudioEncoderDims.from_mapping(weights.attrs)
    if changes:
        return AudioEncoder(dataclasses.replace(dims, **changes)).eval().requires_grad_(False)
    encoder = AudioEncoder(dims)
    encoder.load_state_dict({key: value for key, value in weights.weights.items() if key.startswith("encoder.")})
    return encoder.eval().requires_grad_(False)


def chirp(samples: int, seed: int) -> Tensor:
    """The test waveform of the golden files, (samples,) float32 in [-1, 1]."""
    index = np.arange(samples, dtype=np.int64)
    phase = (index * (300 + 17 * seed + (index >> 6) % 1777)) & 0xFFFF
    triangle = np.abs(phase - 32768) - 16384
    envelope = 1 + (index // (1237 + 10 * seed)) % 9
    noise = (formula_u32(f"chirp{seed}", samples).astype(np.int64) >> 22) - 512
    return torch.from_numpy(((triangle * envelope) // 12 + noise).astype(np.int16)).float() / 32768


def windows_of(
    encoder: AudioEncoder, waveform: Tensor, continuity: str = "continuous", fps: Fraction | int = 25
) -> AudioWindows:
    """All windows of `waveform`."""
    frames = round(len(waveform) / 16000 * fps)
    return AudioWindows(encoder, waveform, fps, frames, continuity)  # type: ignore[arg-type]
