"""A checkpoint folder with random networks so small that the whole program runs in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from latentsync.build.specs import build_unet_spec
from latentsync.config.load import load_config
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.whisper.audio_encoder import AudioEncoder, AudioEncoderDims, save_audio_encoder

WIDTH = 16
CONFIG = f"""\
data:
  resolution: 64
run:
  guidance_scale: 1.0
  inference_steps: 1
model:
  block_out_channels: [32, 32]
  down_block_types: [CrossAttnDownBlock3D, DownBlock3D]
  up_block_types: [UpBlock3D, CrossAttnUpBlock3D]
  layers_per_block: 1
  cross_attention_dim: {WIDTH}
  attention_head_dim: 2
  norm_num_groups: 8
"""


@dataclass(frozen=True)
class TinyModels:
    """Where the tiny networks lie, laid out as the bundled demo model is."""

    root: Path

    @property
    def config(self) -> Path:
        """The U-Net's configuration."""
        return self.root / "tiny.yaml"

    @property
    def unet(self) -> Path:
        """The U-Net's weights."""
        return self.root / "demo" / "unet.safetensors"

    @property
    def options(self) -> list[str]:
        """The command line's options that choose these networks."""
        own = ["--unet_config_path", str(self.config), "--inference_ckpt_path", str(self.unet)]
        return [*own, "--checkpoints", str(self.root), "--device", "cpu"]


def write_tiny_models(root: Path) -> TinyModels:
    """Write a U-Net with motion modules, an audio encoder and a VAE of random weights, the same at every call."""
    models = TinyModels(root)
    (root / "demo").mkdir(parents=True)
    models.config.write_text(CONFIG)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet3DConditionModel(build_unet_spec(load_config(models.config).model))
        save_file({key: value.contiguous() for key, value in unet.state_dict().items()}, models.unet)
        # Conv output and four blocks make the 50 tokens per frame that the published networks have.
        dims = AudioEncoderDims(n_audio_state=WIDTH, n_audio_head=2, n_audio_layer=4)
        save_audio_encoder(AudioEncoder(dims), root / "demo" / "audio_encoder.safetensors")
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
        )
        vae.save_pretrained(root / "demo" / "vae")
    return models
