"""Write seeded random weights in the published file layout, for full-size runs without the real weights.

    python -m tools.make_random_checkpoints --out /tmp/random --dtype float16

Then ``--checkpoints /tmp/random --preset 1.6`` runs the complete pipeline at full size. Memory and speed are realistic;
the generated faces are noise.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn

from latentsync.build.presets import PRESETS
from latentsync.build.specs import build_unet_spec
from latentsync.checkpoints.registry import CHECKPOINTS
from latentsync.config.load import load_config
from latentsync.models.unet.unet import UNet3DConditionModel
from latentsync.whisper.audio_encoder import AudioEncoder, AudioEncoderDims

logger = logging.getLogger(__name__)

_VAE_SHAPE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 256,
}


def fill_zeros(module: nn.Module) -> None:
    """Give zero-initialized layers small random weights, so that they contribute to the result."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.02)


def main() -> int:
    """Write the U-Net, the Whisper encoder and the VAE of a preset; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to create; must not exist")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name != "demo"], default="1.6")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="precision of the U-Net file"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.out.exists():
        parser.error(f"{options.out} exists already; give a new folder")
    torch.manual_seed(options.seed)
    preset = PRESETS[options.preset]
    unet_path = options.out / CHECKPOINTS[preset.unet].path
    whisper_path = options.out / CHECKPOINTS[preset.audio_encoder].path
    for path in (unet_path, whisper_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    unet = UNet3DConditionModel(build_unet_spec(load_config(preset.config_path).model))
    fill_zeros(unet)
    torch.save({"global_step": 0, "state_dict": unet.to(getattr(torch, options.dtype)).state_dict()}, unet_path)
    dims = AudioEncoderDims()
    published_dims = {**vars(dims), "n_vocab": 51865, "n_text_ctx": 448}
    published_dims |= {"n_text_state": dims.n_audio_state, "n_text_head": dims.n_audio_head, "n_text_layer": 4}
    torch.save({"dims": published_dims, "model_state_dict": AudioEncoder(dims).state_dict()}, whisper_path)
    AutoencoderKL(**_VAE_SHAPE).save_pretrained(options.out / "sd-vae-ft-mse")
    for path in sorted(path for path in options.out.rglob("*") if path.is_file()):
        logger.info("%s: %.1f MB", path, path.stat().st_size / 1e6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
