"""Windows of ready-made latents: the right frames, the right words."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from latentsync.training.audio_batches import TracksOnDevice
from latentsync.training.latent_bank import LatentBank, SpeechFeatures
from latentsync.training.speech_tracks import SpeechTracks, make_track
from latentsync.training.vae_stage import VaeStageOptions, build_vae
from latentsync.whisper.audio_encoder import AudioEncoder, AudioEncoderDims
from latentsync.whisper.audio_windows import AudioWindows


class GreySource:
    """Pictures whose brightness is the mouth's opening, the same for all takes otherwise."""

    resolution = 64

    def takes(self, curves: Tensor, generator: torch.Generator) -> Tensor:
        """See `ClipSource`."""
        return curves[..., 0][..., None, None, None].expand(-1, -1, 3, 64, 64).contiguous() - 0.5


@pytest.fixture(scope="module")
def speech() -> tuple[SpeechTracks, AudioEncoder, SpeechFeatures]:
    """Two tracks heard by a small random encoder."""
    made = [make_track(seed, "train") for seed in (1, 2)]
    arrays = ("waveforms", "curves", "classes")
    tracks = SpeechTracks(*(np.concatenate([getattr(track, name) for track in made]) for name in arrays))
    encoder = AudioEncoder(AudioEncoderDims(80, 1500, 16, 2, 4)).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    features = SpeechFeatures(encoder, TracksOnDevice(tracks, torch.device("cpu")), 2, torch.float32, generator)
    return tracks, encoder, features


def movement_correlation(latents: Tensor, mouth: Tensor) -> float:
    """How well changes from frame to frame agree between latents (b, 4, f, h, w) and mouth curves (b, f, 7)."""
    changed = (latents[:, :, 1:] - latents[:, :, :-1]).abs().mean(dim=(1, 3, 4)).flatten()
    moved = (mouth[:, 1:, 0] - mouth[:, :-1, 0]).abs().flatten()
    return float(torch.corrcoef(torch.stack([changed, moved]))[0, 1])


def test_windows_are_those_of_inference(speech: tuple[SpeechTracks, AudioEncoder, SpeechFeatures]) -> None:
    tracks, encoder, features = speech
    waveform = torch.from_numpy(tracks.waveforms[1]).float() / 32768
    expected = AudioWindows(encoder, waveform, Fraction(25), 750)
    for first_frame in (0, 300, 742):
        place = torch.tensor([[0, 1, 2 * first_frame]])
        windows = features.windows(place, 8)
        torch.testing.assert_close(windows[0], expected[first_frame : first_frame + 8], atol=1e-4, rtol=1e-4)


def test_mouth_is_the_tracks_curve_at_25_frames(speech: tuple[SpeechTracks, AudioEncoder, SpeechFeatures]) -> None:
    tracks, _, features = speech
    mouth = features.mouth(torch.tensor([[1, 0, 101]]), 5)
    assert np.array_equal(mouth[0].numpy(), tracks.curves[0, 101:111:2].astype(np.float32))


def test_batches_pair_the_true_frames_with_their_own_speech(
    speech: tuple[SpeechTracks, AudioEncoder, SpeechFeatures],
) -> None:
    torch.manual_seed(0)
    options = VaeStageOptions(block_out_channels=(8, 8, 8, 8), norm_num_groups=4)
    vae = build_vae(options, 64).eval().requires_grad_(False)
    mask = torch.ones(3, 64, 64)
    mask[:, 32:] = 0
    bank = LatentBank(3, 10, GreySource(), speech[2], vae, mask)
    generator = torch.Generator().manual_seed(4)
    for _ in range(4):
        bank.add(generator)
    assert bank.filled == 3
    batch = bank.draw(12, 6, generator, other_reference=0.0)
    assert batch.clean.shape == (12, 4, 6, 8, 8) and batch.audio.shape == (12, 6, 50, 16)
    for latents, own, other in (
        (batch.clean, batch.mouth, batch.source_mouth),
        (batch.reference, batch.source_mouth, batch.mouth),
    ):
        assert movement_correlation(latents, own) > max(0.5, movement_correlation(latents, other) + 0.2)
    same_top = (batch.masked[..., 0, :] - batch.reference[..., 0, :]).abs().mean()
    assert same_top < (batch.masked - batch.reference).abs().mean()
