"""Put trained networks together as the demo model, in half precision and under the names that inference looks for.

    python -m tools.pack_demo --encoders /tmp/demo_run/demo --unet outputs/train/.../latentsync_unet-450.pt \
        --syncnet outputs/train/.../stable_syncnet-7000.pt --out checkpoints/demo --overwrite

Every file is loaded into the network of its configuration before anything is written.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from latentsync.build.networks import load_syncnet
from latentsync.build.specs import build_unet_spec
from latentsync.config.load import load_config, load_syncnet_config
from latentsync.errors import ConfigError
from latentsync.media.output_file import atomic_output
from latentsync.models.unet.load import load_unet
from latentsync.models.vae import load_vae
from latentsync.runtime.resources import REPOSITORY
from latentsync.training.demo.half_weights import save_half
from latentsync.whisper.audio_encoder import load_audio_encoder, save_audio_encoder
from tools.command import exit_code

logger = logging.getLogger("pack_demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and pack; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return exit_code(lambda: _pack(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", type=Path, help="folder demo/ of a run of tools.train_demo")
    parser.add_argument("--unet", type=Path, help="weights of a U-Net")
    parser.add_argument("--syncnet", type=Path, help="weights of a SyncNet")
    parser.add_argument("--unet_config", type=Path, default=REPOSITORY / "configs/unet/demo.yaml")
    parser.add_argument("--syncnet_config", type=Path, default=REPOSITORY / "configs/syncnet/demo.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder; made if missing")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    return parser


def _pack(arguments: argparse.Namespace) -> None:
    writers = _loaded(arguments)
    if not writers:
        raise ConfigError("Nothing to pack: give at least one of --encoders, --unet and --syncnet")
    taken = [name for name in writers if (arguments.out / name).exists()]
    if taken and not arguments.overwrite:
        raise ConfigError(
            f"{arguments.out} already holds {', '.join(taken)}: choose another --out, or give --overwrite"
        )
    for name, write in writers.items():
        target = arguments.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write(target)
        logger.info("%s: %.1f MB", target, target.stat().st_size / 1e6)


def _loaded(arguments: argparse.Namespace) -> dict[str, Callable[[Path], None]]:
    """Load every requested network, which validates its weights: name in the model -> function that writes it."""
    cpu, exact = torch.device("cpu"), torch.float32
    config = load_config(arguments.unet_config)
    writers: dict[str, Callable[[Path], None]] = {}
    if arguments.encoders:
        vae = load_vae(arguments.encoders / "vae", cpu, exact)
        audio_file = arguments.encoders / "audio_encoder.safetensors"
        audio = load_audio_encoder(audio_file, cpu, exact, config.model.cross_attention_dim)
        writers["vae/config.json"] = partial(_copy, arguments.encoders / "vae" / "config.json")
        writers["vae/diffusion_pytorch_model.safetensors"] = partial(save_half, vae.state_dict())
        writers["audio_encoder.safetensors"] = partial(save_audio_encoder, audio)
    if arguments.unet:
        unet = load_unet(build_unet_spec(config.model), arguments.unet, cpu, exact)
        writers["unet.safetensors"] = partial(save_half, unet.state_dict())
    if arguments.syncnet:
        syncnet = load_syncnet(load_syncnet_config(arguments.syncnet_config), arguments.syncnet)
        writers["syncnet.safetensors"] = partial(save_half, syncnet.state_dict())
    return writers


def _copy(source: Path, target: Path) -> None:
    with atomic_output(target, overwrite=True) as unfinished:
        shutil.copyfile(source, unfinished)


if __name__ == "__main__":
    sys.exit(main())
