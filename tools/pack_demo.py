"""Put trained networks together as the demo model, in half precision and under the names that inference looks for.

    python -m tools.pack_demo --encoders /tmp/demo_run/demo --unet outputs/train/.../latentsync_unet-1500.pt \
        --syncnet outputs/train/.../stable_syncnet-3000.pt --out checkpoints/demo --overwrite

Every file is loaded into the network of its configuration before anything is written.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from latentsync.build_networks import load_syncnet
from latentsync.builders import REPOSITORY, build_unet_spec
from latentsync.config import load_config, load_syncnet_config
from latentsync.errors import ConfigError, LatentSyncError
from latentsync.models.loading import load_unet, read_state_dict
from latentsync.models.vae import load_vae
from latentsync.training.run_log import save_half
from latentsync.whisper.audio_encoder import load_audio_encoder

logger = logging.getLogger("pack_demo")

_VAE_FILES = ("vae/config.json", "vae/diffusion_pytorch_model.safetensors")
_AUDIO_FILE, _UNET_FILE, _SYNCNET_FILE = "audio_encoder.safetensors", "unet.safetensors", "syncnet.safetensors"


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and pack; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        _pack(arguments)
    except LatentSyncError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


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
    files = _given(arguments)
    taken = [name for name in files if (arguments.out / name).exists()]
    if taken and not arguments.overwrite:
        raise ConfigError(
            f"{arguments.out} already holds {', '.join(taken)}: choose another --out, or give --overwrite"
        )
    _check(arguments, files)
    trained = {name: read_state_dict(path) for name, path in files.items() if name in (_UNET_FILE, _SYNCNET_FILE)}
    for name, path in files.items():
        target = arguments.out / name
        if name in trained:
            save_half(trained[name], target)
        else:
            _copy(path, target)
        logger.info("%s: %.1f MB", target, target.stat().st_size / 1e6)


def _given(arguments: argparse.Namespace) -> dict[str, Path]:
    """Name in the model -> file, of all that was asked for."""
    given = {_UNET_FILE: arguments.unet, _SYNCNET_FILE: arguments.syncnet}
    files: dict[str, Path] = {name: path for name, path in given.items() if path}
    if arguments.encoders:
        files |= {name: arguments.encoders / name for name in (*_VAE_FILES, _AUDIO_FILE)}
    if not files:
        raise ConfigError("Nothing to pack: give at least one of --encoders, --unet and --syncnet")
    return files


def _copy(path: Path, target: Path) -> None:
    """Copy a file, which appears under its name only when complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".saving-") as folder:
        partial = Path(folder) / target.name
        shutil.copyfile(path, partial)
        os.replace(partial, target)


def _check(arguments: argparse.Namespace, files: Mapping[str, Path]) -> None:
    """Load every network, which tells what does not fit."""
    cpu, exact = torch.device("cpu"), torch.float32
    config = load_config(arguments.unet_config)
    if arguments.encoders:
        load_vae(arguments.encoders / "vae", cpu, exact)
        load_audio_encoder(files[_AUDIO_FILE], cpu, exact, config.model.cross_attention_dim)
    if arguments.unet:
        load_unet(build_unet_spec(config.model), arguments.unet, cpu, exact)
    if arguments.syncnet:
        load_syncnet(load_syncnet_config(arguments.syncnet_config), arguments.syncnet)


if __name__ == "__main__":
    sys.exit(main())
