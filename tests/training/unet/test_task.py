"""The U-Net's training task: the published step, learning, judging, and what it leaves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from latentsync.build.networks import build_unet
from latentsync.config.load import load_config
from latentsync.data.sampling.sample_rng import SampleRng
from latentsync.diffusion.ddim import NoiseSchedule
from latentsync.errors import ConfigError
from latentsync.face.compositing.masks import prepare_masked_pixels, prepare_pixels
from latentsync.losses.objective import Objective
from latentsync.losses.terms import ReconTerm, SyncTerm, TrepaTerm
from latentsync.models.unet.load import load_unet
from latentsync.models.vae import encode_latents
from latentsync.training.loop.task import Shard
from latentsync.training.unet import task as unet_trainer
from latentsync.training.unet.denoising import NoiseOptions
from latentsync.training.unet.latent_windows import LatentWindows
from latentsync.training.unet.supervision import Supervision
from latentsync.training.unet.task import UNetTask, UNetTaskOptions, ValidationSet, select_trainable
from tests.golden_files import REPOSITORY, load_golden
from tests.models.builders import golden_syncnet, golden_unet, golden_vae, golden_video_mae, small_unet
from tests.training.unet_windows import SIDE, STAGE2, batch, small_task

LISTENING = UNetTaskOptions(
    noise=NoiseOptions(
        high_noise_prob=0.5, pure_noise_from=640, pure_noise_to=960, shared_noise_prob=0.5, mouth_weight=3.0
    ),
    uncond_prob=0.3,
    sample_steps=2,
)


class GivenDraws(SampleRng):
    """Hands out given numbers in their order."""

    def __init__(self, numbers: Sequence[Tensor]) -> None:
        super().__init__(0, torch.zeros(1, dtype=torch.int64), torch.device("cpu"))
        self.numbers = list(numbers)

    def uniform(self) -> Tensor:
        return self.numbers.pop(0)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return self.numbers.pop(0)


class Ready:
    """Windows that need no preparing."""

    def __init__(self, windows: LatentWindows, mask: Tensor) -> None:
        self.windows, self.mask = windows, mask

    def to(self, device: torch.device) -> None:
        self.mask = self.mask.to(device)

    def __call__(self, given: None) -> LatentWindows:
        return self.windows


def test_a_step_of_stage_2_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    case = load_golden("train_step_t401")
    given, vae = case.inputs, golden_vae()
    target, references = (rearrange(given[f"{name}_frames"], "f h w c -> f c h w") for name in ("gt", "ref"))
    pixels, masked, _ = prepare_masked_pixels(target, given["mask"])

    def encoded(each: Tensor) -> Tensor:
        return rearrange(encode_latents(vae, each), "f c h w -> 1 c f h w")

    windows = LatentWindows(
        clean=encoded(pixels),
        masked=encoded(masked),
        reference=encoded(prepare_pixels(references, case.attrs["resolution"])),
        audio=given["audio"].reshape(1, -1, *given["audio"].shape[-2:]),
        mel=given["mel"],
        gt_pixel_values=rearrange(pixels, "f c h w -> 1 c f h w"),
        sample_ids=torch.zeros(1, dtype=torch.int64),
    )
    terms: dict[str, Any] = {
        "recon": ReconTerm(),
        "sync": SyncTerm(golden_syncnet("syncnet_tiny_weights"), 64),
        "trepa": TrepaTerm(golden_video_mae("videomae_tiny_weights")),
    }
    one = torch.ones(1)
    numbers = [one, (given["timesteps"] + 0.5) / 1000, one, given["shared_raw"][:, :, :1], given["individual_raw"], one]
    monkeypatch.setattr(unet_trainer, "SampleRng", lambda *_: GivenDraws(numbers))
    supervision = Supervision(vae, Objective(terms, {"recon": 1.0, "sync": 0.05, "trepa": 10.0}))
    options = UNetTaskOptions(noise=NoiseOptions(mixed_noise_alpha=case.attrs["alpha"]))
    network = golden_unet(case)
    task = UNetTask(network, Ready(windows, given["mask"]), NoiseSchedule(), supervision, options, ValidationSet())
    losses = task.losses(network, None)
    for name in ("recon", "sync", "trepa"):
        assert float(losses[name]) == pytest.approx(case.outputs[f"{name}_loss"].item(), rel=1e-3)
    case.check("total_without_lpips", losses["total"][None])
    (gradient,) = torch.autograd.grad(losses["total"], network.conv_out.weight)
    case.check("grad_conv_out_weight", gradient, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "sample"])
def test_loss_falls(kind: str) -> None:
    task = small_task(options=LISTENING, kind=kind)
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=2e-3)
    seen = []
    for step in range(30):
        total = task.losses(task.network, batch(4 * step % 8, 4 * step % 8 + 1))["total"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seen.append(total.item())
    assert sum(seen[-6:]) < 0.8 * sum(seen[:6])


@pytest.mark.parametrize("weights", [{}, STAGE2], ids=["stage 1", "stage 2"])
def test_the_loss_of_a_batch_is_the_mean_of_its_samples(weights: dict[str, float]) -> None:
    task = small_task(weights, LISTENING)
    with torch.no_grad():
        both = task.losses(task.network, batch(5, 9, paired=True))
        alone = [task.losses(task.network, batch(number, paired=True)) for number in (5, 9)]
    assert set(both) == {"recon", "total", *weights}
    for name, value in both.items():
        assert float(value) == pytest.approx(float(sum(each[name] for each in alone)) / 2, rel=2e-4), name
    expected = both["recon"] + sum(weight * both[name] for name, weight in weights.items())
    assert float(both["total"]) == pytest.approx(float(expected), rel=1e-5)


def test_motion_counts_as_it_is_weighted() -> None:
    plain = small_task(options=UNetTaskOptions())
    windows = batch(5, 9)
    alone = plain.losses(plain.network, windows)
    moved = small_task({"motion": 0.5}, UNetTaskOptions(), network=plain.network)
    both = moved.losses(plain.network, windows)
    assert "motion" not in alone and both["motion"] > 0
    assert both["total"].item() == pytest.approx(alone["total"].item() + 0.5 * both["motion"].item(), rel=1e-5)


def test_other_samples_and_seeds_ask_other_questions() -> None:
    task, network = small_task(options=LISTENING), small_unet()
    other = small_task(options=UNetTaskOptions(seed=1, noise=LISTENING.noise), network=network)
    with torch.no_grad():
        first, again = (float(task.losses(network, batch(5))["recon"]) for _ in range(2))
        assert first == again
        assert first != pytest.approx(float(other.losses(network, batch(5))["recon"]), rel=1e-3)


def test_critics_teach_the_trained_parameters_only() -> None:
    task = small_task({"pixel": 1.0, "recon": 0.0})
    select_trainable(task.network, ["attn2."])
    losses = task.losses(task.network, batch(1))
    assert set(losses) == {"pixel", "total"}
    losses["total"].backward()
    with_gradient = {name for name, value in task.network.named_parameters() if value.grad is not None}
    assert with_gradient == {name for name, _ in task.network.named_parameters() if "attn2." in name}
    assert all(value.grad.abs().max() > 0 for value in task.network.parameters() if value.grad is not None)
    assert all(each.grad is None for each in task.supervision.vae.parameters())


def test_silent_windows_hear_nothing() -> None:
    heard: list[Tensor] = []

    class Listener(nn.Module):
        def forward(self, sample: Tensor, timesteps: Tensor, audio: Tensor) -> Tensor:
            heard.append(audio)
            return sample[:, :4]

    task = small_task(options=UNetTaskOptions(uncond_prob=0.5), network=Listener())
    task.losses(task.network, batch(*range(16)))
    silent = [bool((audio == 0).all()) for audio in heard[0]]
    assert 2 < sum(silent) < 14
    assert all(bool((audio == 0).any()) == hush for audio, hush in zip(heard[0], silent))


@pytest.mark.parametrize("recon_weight", [0.0, 1.0])
def test_validation_is_the_same_every_time_and_however_it_is_shared(recon_weight: float) -> None:
    options = UNetTaskOptions(noise=LISTENING.noise, sample_steps=2)
    held_out = (batch(1, 2), batch(3, 4), batch(5))
    task = small_task({**STAGE2, "recon": recon_weight}, options, held_out)
    torch.manual_seed(3)
    whole = task.validate(task.network, Shard())
    torch.manual_seed(4)
    assert task.validate(task.network, Shard()) == whole
    names = {"recon", "latent_mse", "mouth_psnr", "sync_loss", "sync_loss_of_truth"}
    assert set(whole) == names and {count for _, count in whole.values()} == {5}
    parts = [task.validate(task.network, Shard(rank, 2)) for rank in (0, 1)]
    for name in names:
        assert sum(part[name][0] for part in parts) == pytest.approx(whole[name][0], rel=1e-6)
        assert sum(part[name][1] for part in parts) == 5
    assert not any(value.grad is not None for value in task.network.parameters())


def test_figures_tell_a_good_network_from_a_bad_one() -> None:
    class Oracle(nn.Module):
        def __init__(self, error: float) -> None:
            super().__init__()
            self.error = error

        def forward(self, sample: Tensor, timesteps: Tensor, audio: Tensor) -> Tensor:
            return clean + self.error

    metrics = []
    for error in (0.0, 1.0):
        task = small_task({"pixel": 1.0}, network=Oracle(error), held_out=(None,), kind="sample")
        # The autoencoder is a random one: only what it makes of the true latents can be reached.
        windows = replace(task.prepare(batch(1, 2)), gt_pixel_values=None)
        task.prepare, clean = Ready(windows, task.prepare.mask), windows.clean
        metrics.append({name: total / count for name, (total, count) in task.validate(task.network, Shard()).items()})
    good, bad = metrics
    assert good["recon"] == 0 and good["latent_mse"] < 0.01 < bad["latent_mse"]
    assert good["mouth_psnr"] > bad["mouth_psnr"] + 3


def test_a_sheet_shows_reference_truth_and_sample(tmp_path: Path) -> None:
    task = small_task(options=LISTENING, held_out=(batch(*range(6)),))
    task.save_samples(task.network, tmp_path, 12)
    with Image.open(tmp_path / "unet-12.jpg") as sheet:
        assert sheet.size == (8 * SIDE, 4 * 3 * SIDE)
    small_task().save_samples(task.network, tmp_path / "none", 12)
    assert not (tmp_path / "none").exists()


def test_whoever_renders_videos_is_given_the_network(tmp_path: Path) -> None:
    task, asked = small_task(), []
    task.validation.render = lambda *given: asked.append(given)
    task.save_samples(task.network, tmp_path, 7)
    assert asked == [(task.network, tmp_path, 7)]


def test_an_exported_network_is_one_that_inference_loads(tmp_path: Path) -> None:
    network = small_unet()
    task = small_task(network=network)
    file = task.export(network.state_dict(), tmp_path, 40)
    assert file == tmp_path / "latentsync_unet-40.pt" and list(tmp_path.iterdir()) == [file]
    assert torch.load(file, weights_only=True)["global_step"] == 40
    loaded = load_unet(network.spec, file, "cpu", torch.float32).state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(loaded[name], value)


@pytest.mark.parametrize("stage", ["stage1", "stage1_512", "stage2", "stage2_512", "stage2_efficient", "demo"])
def test_trained_parts_of_the_shipped_configurations(stage: str) -> None:
    config = load_config(REPOSITORY / "configs" / "unet" / f"{stage}.yaml", ["ckpt.resume_ckpt_path="])
    with torch.device("meta"):
        network = build_unet(config)
    select_trainable(network, config.run.trainable_modules)
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    everything = {name for name, _ in network.named_parameters()}
    if stage in ("stage1", "stage1_512", "demo"):
        assert trained == everything
        return
    assert 0 < len(trained) < len(everything)
    parts = ("motion_modules.", "attn2.") if stage == "stage2_efficient" else ("motion_modules.", "attentions.")
    assert trained == {name for name in everything if any(part in name for part in parts)}
    if stage == "stage2_efficient":
        assert any("mid_block" in name for name in trained)
        assert not any("motion_modules." in name for name in trained if name.startswith("down_blocks"))
    else:
        in_mid = {name for name in everything if name.startswith("mid_block.attentions.")}
        assert in_mid and in_mid <= trained


def test_parts_that_fit_nothing_are_named() -> None:
    with pytest.raises(ConfigError, match=r"\['nothing\.'\] fit no parameter"):
        select_trainable(small_unet(), ["attn2.", "nothing."])
