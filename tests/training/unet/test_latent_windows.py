"""From frames to what the U-Net sees, and back to pictures."""

import torch
from einops import rearrange

from latentsync.face.compositing.masks import latent_mask
from latentsync.models.vae import decode_latents, encode_latents
from latentsync.training.unet.latent_windows import WindowEncoder, decode_windows
from tests.models.builders import golden_vae
from tests.training.unet_windows import FRAMES, SIDE, batch, fake_audio_windows, mask


def latents_of(pixels: torch.Tensor) -> torch.Tensor:
    """(f, 3, h, w) -> (4, f, h / 8, w / 8), one picture at a time."""
    return torch.cat([encode_latents(golden_vae(), each[None]) for each in pixels]).transpose(0, 1)


def test_each_kind_of_latents_comes_from_its_own_frames() -> None:
    samples = batch(3, 7, paired=True)
    windows = WindowEncoder(golden_vae(), fake_audio_windows, mask(), chunk_size=3)(samples)
    for place in range(2):
        truth, source, reference = (
            frames[place].float() / 127.5 - 1
            for frames in (samples.gt_frames, samples.source_frames, samples.ref_frames)
        )
        for found, pixels in (
            (windows.clean, truth),
            (windows.masked, source * mask()),
            (windows.reference, reference),
        ):
            torch.testing.assert_close(found[place], latents_of(pixels), atol=1e-5, rtol=0)
        torch.testing.assert_close(windows.gt_pixel_values[place], truth.transpose(0, 1))
        assert torch.equal(windows.audio[place], fake_audio_windows(samples.clips[place], 0, FRAMES))
    assert torch.equal(windows.mel, samples.mel) and torch.equal(windows.sample_ids, samples.sample_ids)


def test_without_other_takes_the_blanked_faces_are_the_true_ones() -> None:
    samples = batch(3)
    windows = WindowEncoder(golden_vae(), fake_audio_windows, mask())(samples)
    pixels = samples.gt_frames[0].float() / 127.5 - 1
    torch.testing.assert_close(windows.masked[0], latents_of(pixels * mask()), atol=1e-5, rtol=0)
    assert not windows.clean.requires_grad


def test_conditions_stand_in_the_published_order() -> None:
    windows = WindowEncoder(golden_vae(), fake_audio_windows, mask())(batch(1, 2))
    conditions = windows.conditions(latent_mask(mask())[:1])
    assert conditions.shape == (2, 9, FRAMES, SIDE // 8, SIDE // 8)
    assert torch.equal(conditions[1, 0, 2], latent_mask(mask())[0])
    assert torch.equal(conditions[:, 1:5], windows.masked) and torch.equal(conditions[:, 5:], windows.reference)


def test_a_part_of_a_batch_is_those_windows() -> None:
    windows = WindowEncoder(golden_vae(), fake_audio_windows, mask())(batch(1, 2, 3))
    taken, alone = windows.first(2), WindowEncoder(golden_vae(), fake_audio_windows, mask())(batch(1, 2))
    for name, value in vars(alone).items():
        torch.testing.assert_close(getattr(taken, name), value, atol=1e-5, rtol=0)


def test_decoding_in_parts_gives_pictures_and_gradients_of_the_whole() -> None:
    vae = golden_vae()
    latents = torch.randn(2, 4, 3, 4, 4, requires_grad=True)
    pictures = decode_windows(vae, latents, chunk_size=4)
    flat = decode_latents(vae, rearrange(latents, "b c f h w -> (b f) c h w"))
    torch.testing.assert_close(pictures, rearrange(flat, "(b f) c h w -> b c f h w", b=2), atol=1e-5, rtol=0)
    (found,), (expected,) = (torch.autograd.grad(each.square().mean(), latents) for each in (pictures, flat))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    assert found.abs().min() > 0
