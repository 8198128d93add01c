"""SyncNet's training task: it learns which pairs belong together, on pixels and on latents, guided or not."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from latentsync.data.sampling.sample_rng import SampleRng
from latentsync.data.sampling.samples import SyncNetBatch
from latentsync.errors import ConfigError
from latentsync.losses.objective import Objective
from latentsync.losses.region import lower_half
from latentsync.losses.sync import contrastive_loss, syncnet_bce
from latentsync.losses.terms import SYNCNET_LOSSES
from latentsync.models.stable_syncnet import StableSyncNet, StableSyncNetSpec, SyncNetEncoderSpec
from latentsync.models.vae import encode_latents
from latentsync.models.weights.state_dict import read_state_dict
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS
from latentsync.training.loop.task import Shard
from latentsync.training.syncnet.cached_frames import augment_windows
from latentsync.training.syncnet.task import FramesToImage, GuidedSyncNet, SyncNetTask, SyncNetTaskOptions
from tests.models.builders import golden_vae

FRAMES, SIDE = 4, 16


def network(channels: int = 3 * FRAMES, factors: tuple = ((2, 4), 4)) -> StableSyncNet:
    visual = SyncNetEncoderSpec(channels, (64, 128), factors)
    return StableSyncNet(StableSyncNetSpec(visual, SyncNetEncoderSpec(1, (64, 128), ((10, 4), (8, 4)))))


def batch(*ids: int, told: bool = True) -> SyncNetBatch:
    """The mouth is as far open as the sound has bands, frame by frame, where they belong together."""
    frames, mels, labels, mouths = [], [], [], []
    for number in ids:
        draw = torch.Generator().manual_seed(number)
        heard, other = torch.rand(2, FRAMES, generator=draw)
        label = number % 2
        seen = heard if label else other
        picture = torch.rand(FRAMES, 3, SIDE, SIDE, generator=draw) * 30
        is_open = torch.arange(SIDE // 2) / (SIDE // 2) < seen[:, None]
        picture[:, :, SIDE // 2 :] += 200 * is_open[:, None, :, None]
        frames.append(picture.to(torch.uint8))
        until = torch.nn.functional.interpolate(heard[None, None], 13, mode="nearest")[0]
        mels.append(8 * (torch.arange(80)[:, None] / 80 < until)[None] - 4.0)
        labels.append(float(label))
        mouths.append(torch.stack([seen, heard])[..., None].expand(2, FRAMES, len(MOUTH_PARAMETERS)))
    seen_mouths, heard_mouths = torch.stack(mouths, dim=1) if told else (None, None)
    return SyncNetBatch(
        frames=torch.stack(frames),
        mel=torch.stack(mels),
        labels=torch.tensor(labels),
        shifts=torch.zeros(len(ids), dtype=torch.int64),
        clips=[f"{number}.mp4" for number in ids],
        sample_ids=torch.tensor(ids),
        problems={},
        video_mouth_curves=seen_mouths,
        audio_mouth_curves=heard_mouths,
    )


def task(options: SyncNetTaskOptions | None = None, weights: dict[str, float] | None = None, **changes) -> SyncNetTask:
    made = {"network": network(), "to_image": FramesToImage(), "validation": [batch(*range(1000, 1064))], **changes}
    weights = {"bce": 1.0, **(weights or {})}
    objective = Objective({name: SYNCNET_LOSSES[name]() for name in weights}, weights)
    return SyncNetTask(**made, objective=objective, options=options)


def train(made: SyncNetTask, steps: int, size: int = 32, fresh: bool = True) -> list[float]:
    """Losses of some steps, on new samples every time or on the same ones."""
    optimizer = torch.optim.AdamW(made.network.parameters(), lr=3e-4)
    seen = []
    for step in range(steps):
        first = step * size if fresh else 0
        losses = made.losses(made.network, batch(*range(first, first + size)))
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        seen.append(losses["total"].item())
    return seen


def metrics(made: SyncNetTask) -> dict[str, float]:
    made.network.eval()
    found = made.validate(made.network, Shard())
    made.network.train()
    return {name: total / count for name, (total, count) in found.items()}


def test_it_learns_which_mouths_belong_to_which_sounds() -> None:
    made = task()
    before = metrics(made)
    train(made, 16, size=24)
    after = metrics(made)
    assert after["accuracy"] > before["accuracy"] + 0.1 and after["bce"] < 0.85 * before["bce"]


def test_latents_are_learned_from_as_well() -> None:
    to_image = FramesToImage(vae=golden_vae(), chunk_size=5)
    made = task(network=network(4 * FRAMES, (1, 2)), to_image=to_image)
    seen = train(made, 20, size=6, fresh=False)
    assert seen[-1] < 0.7 * seen[0]
    assert all(each.grad is None for each in golden_vae().parameters())


def test_a_guide_reads_both_embeddings_and_leaves_a_plain_syncnet(tmp_path: Path) -> None:
    plain = network()
    made = task(weights={"mouth": 10.0}, network=GuidedSyncNet(plain, FRAMES))
    losses = made.losses(made.network, batch(1, 2))
    assert set(losses) == {"bce", "mouth", "total", "accuracy"}
    assert losses["total"].item() == pytest.approx(float(losses["bce"] + 10 * losses["mouth"]), rel=1e-5)
    losses["total"].backward()
    assert all(each.grad is not None and each.grad.abs().max() > 0 for each in made.network.parameters())
    assert set(metrics(made)) == {"bce", "accuracy"}
    file = made.export(made.network.state_dict(), tmp_path, 3)
    assert file.name == "stable_syncnet-3.pt"
    network().load_state_dict(read_state_dict(file))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in read_state_dict(file).items())
    before = float(losses["mouth"])
    train(made, 6, size=24)
    assert float(made.losses(made.network, batch(1, 2))["mouth"]) < before


def test_a_guide_without_knowledge_is_refused() -> None:
    made = task(weights={"mouth": 1.0}, network=GuidedSyncNet(network(), FRAMES))
    with pytest.raises(ConfigError, match=r"run.mouth_weight needs clips whose sidecars.*1.mp4 has none"):
        made.losses(made.network, batch(1, 2, told=False))


def test_losses_are_those_of_the_network_on_the_lower_half() -> None:
    made, samples = task(weights={"contrastive": 0.5}), batch(*range(6))
    losses = made.losses(made.network, samples)
    image = lower_half((samples.frames.float() / 127.5 - 1).flatten(1, 2))
    seen, heard = made.network(image, samples.mel)
    cosine = (seen * heard).sum(1)
    bce, contrastive = syncnet_bce(cosine, samples.labels), contrastive_loss(seen, heard, samples.labels)
    assert losses["bce"].item() == pytest.approx(bce.item(), rel=1e-5)
    assert losses["total"].item() == pytest.approx((bce + 0.5 * contrastive).item(), rel=1e-5)
    right = ((cosine > 0.5) == (samples.labels > 0.5)).float().mean()
    assert losses["accuracy"].item() == right.item()


def test_training_frames_are_varied_and_validation_frames_are_not() -> None:
    shown: list[Tensor] = []

    class Watcher(FramesToImage):
        def __call__(self, pixels: Tensor) -> Tensor:
            shown.append(pixels)
            return super().__call__(pixels)

    samples = batch(*range(8))
    made = task(SyncNetTaskOptions(seed=3, augment=True), to_image=Watcher(), validation=[samples])
    made.losses(made.network, samples)
    made.validate(made.network, Shard())
    plain = samples.frames.float() / 127.5 - 1
    expected = augment_windows(plain, SampleRng(3, samples.sample_ids, torch.device("cpu")))
    assert torch.equal(shown[0], expected) and not torch.equal(shown[0], plain)
    assert torch.equal(shown[1], plain)


@pytest.mark.parametrize("half", [True, False])
def test_pictures_are_stacked_as_the_network_takes_them(half: bool) -> None:
    pixels = torch.rand(2, FRAMES, 3, SIDE, SIDE) * 2 - 1
    image = FramesToImage(lower_half=half)(pixels)
    top = SIDE // 2 if half else 0
    assert image.shape == (2, FRAMES * 3, SIDE - top, SIDE)
    assert torch.equal(image[1, 3 * 2 + 1], pixels[1, 2, 1, top:])
    latents = FramesToImage(half, golden_vae(), 3)(pixels)
    assert latents.shape == (2, FRAMES * 4, SIDE // 8, SIDE // 8)
    torch.testing.assert_close(latents[1, 8:12], encode_latents(golden_vae(), pixels[1, 2:3])[0], atol=1e-5, rtol=0)


def test_validation_is_the_same_however_it_is_shared() -> None:
    made = task(validation=[batch(1, 2, 3, 4), batch(5, 6), batch(7, 8, 9)])
    made.network.eval()
    whole = made.validate(made.network, Shard())
    assert whole == made.validate(made.network, Shard()) and {count for _, count in whole.values()} == {9}
    parts = [made.validate(made.network, Shard(rank, 2)) for rank in (0, 1)]
    for name, (total, count) in whole.items():
        assert sum(part[name][0] for part in parts) == pytest.approx(total, rel=1e-6)
        assert sum(part[name][1] for part in parts) == count


def test_a_sheet_shows_what_the_network_is_shown(tmp_path: Path) -> None:
    made = task()
    made.save_samples(made.network, tmp_path, 5)
    with Image.open(tmp_path / "syncnet_input.jpg") as sheet:
        assert sheet.size == (FRAMES * SIDE, 6 * SIDE)
    task(validation=[]).save_samples(made.network, tmp_path / "none", 5)
    assert not (tmp_path / "none").exists()
