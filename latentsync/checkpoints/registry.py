"""Registry of the published weights files: name, location, download address, checksum and licence of each.

Looking files up never contacts the network; `fetch` alone does. The environment variable HF_ENDPOINT selects a mirror
of the Hugging Face hub.
"""

from __future__ import annotations

import logging
import os
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentsync.checkpoints.folders import default_root, search_folders
from latentsync.errors import CheckpointError
from latentsync.runtime.advice import fetch_command
from latentsync.runtime.resources import IS_CHECKOUT

if TYPE_CHECKING:
    from latentsync.checkpoints.download import DownloadOptions

logger = logging.getLogger(__name__)

HUB = "https://huggingface.co"

_RAIL = "OpenRAIL++ (the publisher's hub page)"
_OPENAI = "https://openaipublic.azureedge.net/main/whisper/models"


@dataclass(frozen=True)
class Checkpoint:
    """One published file."""

    name: str
    """How code and command lines call it."""
    path: str
    """Where `fetch` puts it, below the checkpoint folder."""
    purpose: str
    """What it is for."""
    sha256: str
    """Checksum, lower-case hex."""
    licence: str
    """Terms of the weights as far as their publisher states them."""
    repo: str = ""
    """Hub repository, "" if it is not on the hub."""
    repo_path: str = ""
    """Path inside the hub repository."""
    url: str = ""
    """Another address of the same file, "" if there is none."""
    size: int | None = None
    """Bytes, when known."""
    aliases: tuple[str, ...] = ()
    """Other places below the checkpoint folder where it is accepted, e.g. the published flat layout."""

    def urls(self, endpoint: str) -> list[str]:
        """Return the addresses to try in order; `endpoint` is the hub or a mirror of it."""
        hub = f"{endpoint.rstrip('/')}/{self.repo}/resolve/main/{urllib.parse.quote(self.repo_path)}"
        return [address for address in (hub if self.repo else "", self.url) if address]


def _auxiliary(name: str, file: str, size: int, sha256: str, **details: str) -> Checkpoint:
    path = f"auxiliary/{file}"
    return Checkpoint(
        name, path, details["purpose"], sha256, details["licence"], "ByteDance/LatentSync-1.5", path, size=size
    )


_ALL = (
    Checkpoint(
        "unet-1.5",
        "1.5/latentsync_unet.pt",
        "U-Net of version 1.5, 256 px",
        "6440b49a7ccceff56cdc001f5f17605216337f5bbd66fa360139768926e23f51",
        _RAIL,
        "ByteDance/LatentSync-1.5",
        "latentsync_unet.pt",
        size=5072348184,
        aliases=("latentsync_unet.pt",),
    ),
    Checkpoint(
        "unet-1.6",
        "1.6/latentsync_unet.pt",
        "U-Net of version 1.6, 512 px",
        "0a478e89eb660f82da4c35dbdde8a5adfb27f99d1b4e50edd03729e1e98316d3",
        _RAIL,
        "ByteDance/LatentSync-1.6",
        "latentsync_unet.pt",
        size=5072222488,
        aliases=("latentsync_unet.pt",),
    ),
    Checkpoint(
        "whisper-tiny",
        "whisper/tiny.pt",
        "audio encoder of width 384 (both versions)",
        "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
        "MIT",
        "ByteDance/LatentSync-1.6",
        "whisper/tiny.pt",
        f"{_OPENAI}/65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9/tiny.pt",
        75572083,
    ),
    Checkpoint(
        "whisper-small",
        "whisper/small.pt",
        "audio encoder of width 768, for U-Nets trained so",
        "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
        "MIT",
        url=f"{_OPENAI}/9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794/small.pt",
    ),
    Checkpoint(
        "vae-config",
        "sd-vae-ft-mse/config.json",
        "VAE, its configuration",
        "92d3dfb746fca211a2c9e019e285f8597412211728dce3c5bcf4eda0f2d62e7e",
        "MIT",
        "stabilityai/sd-vae-ft-mse",
        "config.json",
    ),
    Checkpoint(
        "vae-weights",
        "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
        "VAE, its weights",
        "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
        "MIT",
        "stabilityai/sd-vae-ft-mse",
        "diffusion_pytorch_model.safetensors",
        size=334643276,
    ),
    Checkpoint(
        "stable-syncnet",
        "stable_syncnet.pt",
        "StableSyncNet, the sync loss of U-Net training",
        "77678d13861a02d6e83d0b169962175b6266be773f1f6f85fda2b0182e225118",
        _RAIL,
        "ByteDance/LatentSync-1.6",
        "stable_syncnet.pt",
        size=1605328746,
    ),
    _auxiliary(
        "syncnet-v2",
        "syncnet_v2.model",
        54573114,
        "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
        purpose="SyncNet, sync confidence and offset in evaluation and data filtering",
        licence="not stated for the weights; Oxford VGG's code is MIT",
    ),
    _auxiliary(
        "s3fd",
        "sfd_face.pth",
        89844381,
        "d54a87c2b7543b64729c9a25eafd188da15fd3f6e02f0ecec76ae1b30d86c491",
        purpose="S3FD face detector, face tracks of the sync evaluation",
        licence="not stated for the weights",
    ),
    _auxiliary(
        "hyper-iqa",
        "koniq_pretrained.pkl",
        109768650,
        "ff9277bcc68ecc10e77d88b6d0a32825ec3c85562095542734ec6212eaaf6d81",
        purpose="hyperIQA, picture quality in data filtering",
        licence="not stated for the weights; hyperIQA's code is MIT",
    ),
    _auxiliary(
        "videomae-v2",
        "vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        2023804201,
        "5a210a92f035dff30c53b46157b612e7a1a5d3c99700e1b2d71da5c399ca7e70",
        purpose="VideoMAE v2 ViT-g, the TREPA loss",
        licence="not stated for the weights; VideoMAE v2's code is MIT",
    ),
    _auxiliary(
        "i3d",
        "i3d_torchscript.pt",
        51235320,
        "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        purpose="I3D, the features of FVD",
        licence="not stated for this file",
    ),
    _auxiliary(
        "vgg16",
        "vgg16-397923af.pth",
        553433881,
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        purpose="VGG-16, the LPIPS loss",
        licence="torchvision's weights: BSD-3-Clause code, ImageNet terms",
    ),
    Checkpoint(
        "lpips-vgg",
        "auxiliary/lpips_vgg.pth",
        "LPIPS, the weights of VGG-16's features",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        "BSD-2-Clause",
        url="https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth",
    ),
)

CHECKPOINTS = {checkpoint.name: checkpoint for checkpoint in _ALL}

BUNDLED = {f"demo-{net}": f"demo/{net.replace('-', '_')}.safetensors" for net in ("unet", "audio-encoder", "syncnet")}
"""Our own small model, part of this repository: names and places below the checkpoint folder."""

VAE_FOLDERS = {"vae": ("sd-vae-ft-mse", "vae", "stabilityai/sd-vae-ft-mse"), "demo-vae": ("demo/vae",)}
"""Diffusers folders by name, and the places below the checkpoint folder where they are looked for."""

GROUPS = {
    "1.5": ("unet-1.5", "whisper-tiny", "vae"),
    "1.6": ("unet-1.6", "whisper-tiny", "vae"),
    "demo": ("demo-unet", "demo-audio-encoder", "demo-vae"),
    "train": (
        *("whisper-tiny", "vae", "stable-syncnet", "syncnet-v2"),
        *("s3fd", "hyper-iqa", "videomae-v2", "i3d", "vgg16", "lpips-vgg"),
    ),
}
"""What is needed together: inference with a version, or training and evaluation (besides a U-Net to start from)."""


def hub_endpoint(endpoint: str | None = None) -> str:
    """Return the hub's address: `endpoint`, else the environment's HF_ENDPOINT, else the hub itself."""
    return endpoint or os.environ.get("HF_ENDPOINT") or HUB


def expand(names: Iterable[str]) -> list[str]:
    """Replace group names by what they hold, keep the order, drop repetitions.

    Raises:
        CheckpointError: a name is unknown.
    """
    members: dict[str, None] = {}
    for name in names:
        if name not in GROUPS and name not in CHECKPOINTS and name not in BUNDLED and name not in VAE_FOLDERS:
            raise CheckpointError(
                f"unknown checkpoint {name!r}; groups: {', '.join(GROUPS)}; files: "
                f"{', '.join((*CHECKPOINTS, *BUNDLED, *VAE_FOLDERS))}"
            )
        members.update(dict.fromkeys(GROUPS.get(name, (name,))))
    return list(members)


def resolve(name: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Return the location of checkpoint `name`: a file, or a folder for a VAE.

    In each folder our own layout comes first, then the published flat layout; for the VAE the Hugging Face cache comes
    last. Under the flat name that both U-Nets share, a file with the published size of one is not taken for the other.

    Args:
        name: a single checkpoint, not a group.
        root: the checkpoint folder; None searches the standard ones, see `search_folders`.

    Raises:
        CheckpointError: the name is unknown, or no file was found; the message names the command that fetches it.
    """
    if expand([name]) != [name]:
        raise CheckpointError(f"{name!r} is a group of checkpoints; name one of {', '.join(expand([name]))}")
    candidates = _candidate_paths(name, root)
    for candidate in candidates:
        if (
            _is_vae_folder(candidate)
            if name in VAE_FOLDERS
            else candidate.is_file() and not _is_another(name, candidate)
        ):
            return candidate
    raise CheckpointError(f"{name} is missing; searched {', '.join(map(str, candidates))}; {remedy(name, root)}")


def remedy(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """How to get a missing checkpoint or group; `root` as in `resolve`."""
    if name.startswith("demo"):
        what = "restore checkpoints/demo with git" if IS_CHECKOUT else "install the package again"
        return f"it is part of this {'repository' if IS_CHECKOUT else 'package'}: {what}"
    explicit = None if root is None or Path(root).absolute() == default_root().absolute() else root
    return f"fetch it with: {fetch_command(name, explicit)}"


def find(name: str, root: str | os.PathLike[str] | None = None) -> Path | None:
    """Return what `resolve` returns, or None where it would raise because nothing is there."""
    expand([name])
    try:
        return resolve(name, root)
    except CheckpointError:
        return None


def fetch(
    names: Iterable[str],
    root: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    options: DownloadOptions | None = None,
) -> list[Path]:
    """Download the checkpoints that are missing and return the location of all.

    Args:
        names: checkpoints or groups of them.
        root: the checkpoint folder; None searches the standard ones and downloads to `default_root()`.
        endpoint: address of the hub; see `hub_endpoint`.
        options: retries and verification of downloads.

    Raises:
        CheckpointError: a name is unknown, or files could not be fetched (all others were).
    """
    from latentsync.checkpoints.download import download  # brings TLS and HTTP, which only this function needs

    found, problems = [], []
    for name in expand(names):
        try:
            present = find(name, root)
            if present is not None:
                logger.info("%s: present at %s", name, present)
            for checkpoint in () if present is not None else _files_of(name):
                logger.info("%s: fetching %s (licence: %s)", checkpoint.name, checkpoint.path, checkpoint.licence)
                target = Path(default_root() if root is None else root) / checkpoint.path
                addresses = checkpoint.urls(hub_endpoint(endpoint))
                if not target.is_file():
                    download(addresses, target, checkpoint.sha256, checkpoint.size, options)
            found.append(resolve(name, root))
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("\n".join(problems))
    return found


def verify(names: Iterable[str], root: str | os.PathLike[str] | None = None) -> list[str]:
    """Compare files with the published checksums; returns one line per problem.

    Args:
        names: checkpoints or groups of them.
        root: the checkpoint folder, as in `resolve`.
    """
    from latentsync.checkpoints.download import sha256_of

    problems = []
    for name in expand(names):
        for checkpoint in _files_of(name):
            candidate = find(checkpoint.name, root)
            if candidate is None:
                folder = Path(default_root() if root is None else root)
                problems.append(f"{checkpoint.name}: missing at {folder / checkpoint.path}")
            elif (sha256 := sha256_of(candidate)) != checkpoint.sha256:
                problems.append(f"{checkpoint.name}: {candidate} has SHA-256 {sha256}, expected {checkpoint.sha256}")
    return problems


def _files_of(name: str) -> tuple[Checkpoint, ...]:
    """Published files that make up `name`; none for what is bundled."""
    if name == "vae":
        return CHECKPOINTS["vae-config"], CHECKPOINTS["vae-weights"]
    return (CHECKPOINTS[name],) if name in CHECKPOINTS else ()


def _candidate_paths(name: str, root: str | os.PathLike[str] | None) -> list[Path]:
    """All paths at which `name` is accepted, best first."""
    if name in CHECKPOINTS:
        places: tuple[str, ...] = (CHECKPOINTS[name].path, *CHECKPOINTS[name].aliases)
    else:
        places = (BUNDLED[name],) if name in BUNDLED else VAE_FOLDERS[name]
    candidates = [folder / place for folder in search_folders(root) for place in places]
    if name == "vae":
        home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        candidates += sorted((home / "hub" / "models--stabilityai--sd-vae-ft-mse" / "snapshots").glob("*"))
    return candidates


def _is_another(name: str, candidate: Path) -> bool:
    """Whether the file has exactly the published size of another checkpoint."""
    size = candidate.stat().st_size
    return any(size == other.size and name != other.name for other in CHECKPOINTS.values())


def _is_vae_folder(candidate: Path) -> bool:
    weights = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    return (candidate / "config.json").is_file() and any((candidate / file).is_file() for file in weights)
