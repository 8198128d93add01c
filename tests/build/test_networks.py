"""From training configurations to networks: the shipped ones are the published ones, and what does not fit is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from latentsync.build.networks import (
    build_syncnet,
    build_syncnet_spec,
    build_unet,
    check_syncnet,
    check_syncnet_input,
    load_frozen,
    load_syncnet,
    trained_syncnet,
)
from latentsync.build.specs import build_unet_spec
from latentsync.config.load import load_config, load_syncnet_config
from latentsync.config.sections import DataConfig, SyncNetDataConfig
from latentsync.errors import CheckpointError, ConfigError
from latentsync.models.stable_syncnet import StableSyncNet
from latentsync.models.unet.unet import UNet3DConditionModel
from tests.golden_files import REPOSITORY, load_manifest
from tests.training.tiny_training import TinyTraining

UNETS = {"stage1", "stage1_512", "stage2", "stage2_512", "stage2_efficient"}
SYNCNETS = {"syncnet_16_latent", "syncnet_16_pixel", "syncnet_16_pixel_attn", "syncnet_25_pixel"}


def shipped(kind: str) -> list[Path]:
    return sorted((REPOSITORY / "configs" / kind).glob("[a-z]*.yaml"))


def entries(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def published(manifest: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(entry["shape"]) for name, entry in load_manifest(f"{manifest}.json").items()}


def test_all_published_configurations_are_shipped() -> None:
    assert {path.stem for path in shipped("unet")} >= UNETS
    assert {path.stem for path in shipped("syncnet")} >= SYNCNETS


@pytest.mark.parametrize("path", shipped("unet"), ids=lambda path: path.stem)
def test_every_shipped_unet_can_be_built(path: Path) -> None:
    with torch.device("meta"):
        network = build_unet(load_config(path, ["ckpt.resume_ckpt_path="]))
    assert network.training and all(value.requires_grad for value in network.parameters())
    if path.stem in UNETS:
        assert entries(network) == published(f"unet_{path.stem}")


@pytest.mark.parametrize("path", shipped("syncnet"), ids=lambda path: path.stem)
def test_every_shipped_syncnet_takes_its_windows(path: Path) -> None:
    config = load_syncnet_config(path)
    check_syncnet_input(config)
    with torch.device("meta"):
        network = build_syncnet(config)
    if path.stem in SYNCNETS:
        assert entries(network) == published(f"stable_{path.stem}")


def test_a_unet_that_starts_from_nothing_can_learn_from_the_first_step(tiny_training: TinyTraining) -> None:
    network = build_unet(load_config(tiny_training.unet))
    assert all(value.abs().max() > 0 for name, value in network.named_parameters() if name.startswith("conv_in."))


def test_a_unet_starts_from_a_file(tiny_training: TinyTraining) -> None:
    network = build_unet(load_config(tiny_training.unet, [f"ckpt.resume_ckpt_path={tiny_training.models.unet}"]))
    again = build_unet(load_config(tiny_training.unet, [f"ckpt.resume_ckpt_path={tiny_training.models.unet}"]))
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("channels", [4, 9])
def test_a_unet_starts_from_an_image_network(tiny_training: TinyTraining, tmp_path: Path, channels: int) -> None:
    """The layout of Stable Diffusion 1.5: no motion modules, text for sound, fewer channels in."""
    config = load_config(tiny_training.unet)
    source = UNet3DConditionModel(build_unet_spec(config.model)).state_dict()
    image = {name: value.contiguous() for name, value in source.items() if "motion_modules." not in name}
    image["conv_in.weight"] = torch.randn(32, channels, 3, 3)
    save_file(image, tmp_path / "image.safetensors")
    config.ckpt.resume_ckpt_path = str(tmp_path / "image.safetensors")
    network = build_unet(config)
    taken = network.state_dict()
    kept = [name for name in image if name.startswith("mid_block.resnets.0") or name.startswith("conv_out")]
    assert kept and all(torch.equal(taken[name], image[name]) for name in kept)
    assert torch.equal(taken["conv_in.weight"][:, :4], image["conv_in.weight"][:, :4])
    assert entries(network) == entries(UNet3DConditionModel(build_unet_spec(config.model)))


def test_a_syncnet_that_is_trained_on_is_trainable(tiny_training: TinyTraining) -> None:
    weights = tiny_training.root / "configs" / "syncnet.safetensors"
    config = load_syncnet_config(tiny_training.syncnet, [f"ckpt.resume_ckpt_path={weights}"])
    network = build_syncnet(config)
    assert network.training and all(value.requires_grad for value in network.parameters())
    expected = load_syncnet(config, weights).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.num_frames=8", "got 12, but 8 frames of 3 channels are 24"),
        ("data.latent_space=true", "got 12, but 4 frames of 4 channels are 16"),
        ("data.resolution=128", r"an image 64 x 128 gives 512 values, a mel 80 x 13 in 128"),
        ("data.lower_half=false", r"an image 64 x 64 gives 256 values"),
        ("model.visual_encoder.downsample_factors=[[64,128],8]", "shrinks below its smallest size"),
        ("model.audio_encoder.block_out_channels=[32,64]", r"gives 128 values, a mel 80 x 13 in 64"),
    ],
)
def test_a_syncnet_that_does_not_take_its_windows_is_refused(
    tiny_training: TinyTraining, change: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_syncnet(load_syncnet_config(tiny_training.syncnet, [change]))


def test_a_syncnet_of_other_windows_is_refused() -> None:
    supervised = DataConfig(num_frames=16, resolution=512, syncnet_config_path="critic.yaml")
    check_syncnet(SyncNetDataConfig(num_frames=16, resolution=256), supervised)
    for wrong, message in (
        (SyncNetDataConfig(num_frames=25), "of critic.yaml takes 25 frames.*is 16"),
        (SyncNetDataConfig(latent_space=True, resolution=256), "latents of 256 px.*is 512"),
        (SyncNetDataConfig(lower_half=False), "takes whole faces"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_syncnet(wrong, supervised)


def test_the_critic_that_a_configuration_names_is_loaded(tiny_training: TinyTraining, tmp_path: Path) -> None:
    network, config = trained_syncnet(str(tiny_training.syncnet))
    assert config.data.num_frames == 4
    expected = entries(StableSyncNet(build_syncnet_spec(config)))
    assert entries(network) == expected
    with pytest.raises(ConfigError, match="data.syncnet_config_path is empty"):
        trained_syncnet("")
    with pytest.raises(ConfigError, match="data.syncnet_config_path: .*nowhere.yaml does not exist"):
        trained_syncnet("nowhere.yaml")
    own = tmp_path / "own.yaml"
    own.write_text(f"base: {tiny_training.syncnet}\nckpt: {{inference_ckpt_path: nowhere.pt}}\n")
    with pytest.raises(ConfigError, match="ckpt.inference_ckpt_path: nowhere.pt does not exist"):
        trained_syncnet(str(own))
    own.write_text(f"base: {tiny_training.syncnet}\nckpt: {{inference_ckpt_path: {tiny_training.models.unet}}}\n")
    with pytest.raises(CheckpointError, match="does not fit StableSyncNet"):
        trained_syncnet(str(own))


def test_only_the_critics_that_losses_need_are_loaded(tiny_training: TinyTraining) -> None:
    cpu = torch.device("cpu")
    plain = load_frozen(load_config(tiny_training.unet), cpu)
    assert [plain.syncnet, plain.lpips, plain.videomae] == [None] * 3
    supervised = load_frozen(
        load_config(tiny_training.unet, ["run.use_syncnet=true", "run.pixel_space_supervise=true"]), cpu
    )
    assert supervised.syncnet is not None and supervised.syncnet_resolution == 64 and supervised.videomae is None
    for networks in (plain, supervised):
        assert not any(value.requires_grad for value in networks.vae.parameters())
    for key, word in (("trepa_loss_weight=1", "videomae"), ("perceptual=lpips", "vgg16|lpips")):
        with pytest.raises(CheckpointError, match=f"{word}.*fetch"):
            load_frozen(load_config(tiny_training.unet, ["run.pixel_space_supervise=true", f"run.{key}"]), cpu)
