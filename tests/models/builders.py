"""Small networks for the tests of the models."""

from typing import Any

import torch
from torch import Tensor, nn

from latentsync.models.autoencoder import AutoencoderKL, VaeConfig
from latentsync.models.stable_syncnet import StableSyncNet, StableSyncNetSpec, SyncNetEncoderSpec
from latentsync.models.unet.spec import UNetSpec
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.models.video_mae import VideoMae, VideoMaeSpec
from tests.golden_files import Golden, formula_unit, formula_weight, load_golden

SMALL_SPEC = UNetSpec(
    block_out_channels=(32, 64),
    down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    layers_per_block=1,
    cross_attention_dim=24,
    motion_max_len=6,
)


def golden_unet_spec(attrs: dict[str, Any]) -> UNetSpec:
    """The configuration that a golden case of the U-Net describes."""
    return UNetSpec(
        block_out_channels=tuple(attrs["block_out_channels"]),
        cross_attention_dim=attrs["cross_attention_dim"],
        norm_num_groups=attrs["norm_num_groups"],
        use_motion_module=attrs["motion"] != "none",
        motion_module_decoder_only=attrs["motion"] == "decoder_only",
    )


def golden_unet(case: Golden) -> UNet3DConditionModel:
    """The network of a golden case with its weights; the files' surplus motion modules are left out."""
    model = UNet3DConditionModel(golden_unet_spec(case.attrs)).eval()
    if case.attrs["weights"] == "formula":
        fill_with_formula(model, 1.0)
        return model
    weights = load_golden(case.attrs["weights"]).weights
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    return model


def fill_with_formula(model: nn.Module, gain: float) -> None:
    """Overwrite every entry but the position tables with the formula's numbers."""
    for key, tensor in model.state_dict().items():
        if not key.endswith("pos_encoder.pe"):
            tensor.copy_(formula_weight(key, tensor.shape, gain))


def small_unet(**changes: Any) -> UNet3DConditionModel:
    """A two-level network with random weights everywhere, in the zero-initialised layers too."""
    spec = UNetSpec(**{**SMALL_SPEC.__dict__, **changes})
    model = UNet3DConditionModel(spec).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("conv_in", "conv_out")) or name.endswith("temporal_transformer.proj_out.weight"):
                parameter.normal_(std=0.05)
    return model


def small_inputs(batch: int = 1, frames: int = 3, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Sample, timesteps and audio tokens that fit the two-level network."""
    sample = torch.randn(batch, SMALL_SPEC.in_channels, frames, size, size)
    return sample, torch.tensor(37), torch.randn(batch * frames, 50, SMALL_SPEC.cross_attention_dim)


def syncnet_encoder_spec(config: dict[str, Any]) -> SyncNetEncoderSpec:
    """One encoder of StableSyncNet from a golden case's configuration."""
    return SyncNetEncoderSpec(
        in_channels=config["in_channels"],
        block_out_channels=tuple(config["block_out_channels"]),
        downsample_factors=tuple(tuple(f) if isinstance(f, list) else f for f in config["downsample_factors"]),
        attn_blocks=tuple(config.get("attn_blocks", ())),
    )


def formula_syncnet(case: Golden) -> tuple[StableSyncNet, Tensor, Tensor]:
    """Network with formula weights, its images and its mel spectrogram, as a golden case describes them."""
    attrs = case.attrs
    config = attrs["config"]
    spec = StableSyncNetSpec(
        syncnet_encoder_spec(config["visual_encoder"]), syncnet_encoder_spec(config["audio_encoder"])
    )
    model = StableSyncNet(spec).eval()
    fill_with_formula(model, attrs["gain"])
    image = torch.from_numpy(formula_unit(attrs["image_key"], attrs["image_shape"])).float()
    mel = 4 * torch.from_numpy(formula_unit(attrs["mel_key"], attrs["mel_shape"])).float()
    return model, image, mel


def golden_video_mae_spec(attrs: dict[str, Any]) -> VideoMaeSpec:
    """The sizes that a golden case of VideoMAE describes."""
    return VideoMaeSpec(
        image_size=attrs["img_size"],
        frames=attrs["all_frames"],
        patch_size=attrs["patch_size"],
        tubelet_size=attrs["tubelet_size"],
        width=attrs["embed_dim"],
        depth=attrs["depth"],
        heads=attrs["num_heads"],
        mlp_width=int(attrs["embed_dim"] * attrs["mlp_ratio"]),
    )


def golden_video_mae(name: str) -> VideoMae:
    """The transformer of a golden weights file, without its classification head."""
    case = load_golden(name)
    model = VideoMae(golden_video_mae_spec(case.attrs)).eval()
    model.load_state_dict({key: case.weights[key] for key in model.state_dict()})
    return model


def golden_syncnet(name: str) -> StableSyncNet:
    """The SyncNet of a golden weights file."""
    case = load_golden(name)
    encoders = (syncnet_encoder_spec(case.attrs[side]) for side in ("visual_encoder", "audio_encoder"))
    model = StableSyncNet(StableSyncNetSpec(*encoders)).eval()
    model.load_state_dict(case.weights)
    return model


def golden_vae() -> AutoencoderKL:
    """The autoencoder of a golden weights file, frozen, with the published scale."""
    case = load_golden("vae_tiny_weights")
    vae = AutoencoderKL(VaeConfig.from_mapping(case.attrs)).eval().requires_grad_(False)
    vae.load_state_dict(case.weights)
    return vae
