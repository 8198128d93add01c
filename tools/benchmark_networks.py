"""Measure the networks alone: one call of the U-Net, the VAE on one window, each against single precision.

    python -m tools.make_random_checkpoints --out /tmp/random --preset 1.6 --dtype float16
    python -m tools.benchmark_networks --checkpoints /tmp/random --preset 1.6 --compile --out outputs/networks.json

Medians of --repeats runs after --warm_up runs, on inputs drawn anew for every run. The error is the distance from what
the same weights give in float32, computed plainly, as a share of that result. What the first call costs (compilation,
graphs) is told beside it.
"""

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latentsync.backends.placement import Placement, choose_placement
from latentsync.backends.predictor import UNetPredictor
from latentsync.backends.prepare import prepare_networks
from latentsync.build.presets import ModelFiles
from latentsync.build.specs import build_unet_spec
from latentsync.cli.inference import select_files
from latentsync.config.load import Config, load_config
from latentsync.diffusion.step_plan import FeatureCacheMode
from latentsync.errors import ConfigError
from latentsync.models.unet.load import load_unet
from latentsync.models.vae import decode_latents, encode_latents, load_vae
from latentsync.profiling.machine import machine_info, peak_memory, reset_peak_memory
from tools.command import with_inference_options

if TYPE_CHECKING:
    from latentsync.models.autoencoder import AutoencoderKL

logger = logging.getLogger("benchmark_networks")

# Name, guidance scale, what becomes of the deep features; a step that reuses them follows one that keeps them.
_CALLS: tuple[tuple[str, float, FeatureCacheMode], ...] = (
    ("full guided", 1.5, "keep"),
    ("shallow guided", 1.5, "reuse"),
    ("full", 1.0, "keep"),
    ("shallow", 1.0, "reuse"),
)
_TIMESTEP = 501
_AUDIO_TOKENS = 50


@dataclass(frozen=True)
class WindowTensors:
    """Random inputs of one window, in the form in which the networks get them.

    Attributes:
        latents: (1, 4, f, R/8, R/8).
        condition_latents: (1, 9, f, R/8, R/8) mask, masked and reference latents.
        audio_embeds: (1, f, 50, d).
        pixels: (f, 3, R, R) in [-1, 1].
    """

    latents: Tensor
    condition_latents: Tensor
    audio_embeds: Tensor
    pixels: Tensor

    def to(self, dtype: torch.dtype) -> "WindowTensors":
        """The same in another precision."""
        return WindowTensors(*(getattr(self, name).to(dtype) for name in self.__dataclass_fields__))


Workload = Callable[[WindowTensors], Callable[[], Tensor]]


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and measure; returns the exit code."""
    return with_inference_options(_parser(), argv, _run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=10, help="timed runs (%(default)s)")
    parser.add_argument("--warm_up", type=int, default=2, help="runs before (%(default)s)")
    parser.add_argument("--out", type=Path, help="file for the figures (.json)")
    return parser


def _run(tool_args: argparse.Namespace, options: argparse.Namespace) -> None:
    if tool_args.repeats < 1 or tool_args.warm_up < 1:
        raise ConfigError(f"--repeats and --warm_up must be 1 or more, got {tool_args.repeats} and {tool_args.warm_up}")
    if tool_args.out and tool_args.out.exists() and not options.overwrite:
        raise ConfigError(f"--out {tool_args.out} exists already; give another name, or --overwrite")
    files = select_files(options)
    placement = choose_placement(options.device, options.dtype, compiled=options.compile, memory=options.memory)
    report = measure(files, placement, tool_args.repeats, tool_args.warm_up)
    text = json.dumps(report, indent=2)
    print(text)
    if tool_args.out:
        tool_args.out.parent.mkdir(parents=True, exist_ok=True)
        tool_args.out.write_text(text + "\n")


@torch.inference_mode()
def measure(files: ModelFiles, placement: Placement, repeats: int, warm_up: int) -> dict[str, Any]:
    """Time and error of every call, on the placement's first device."""
    config, device = load_config(files.config_path), placement.devices[0]
    windows = [_window(config, device, seed) for seed in range(warm_up + repeats)]
    expected = _reference(files, config, windows[0], device)
    unet = load_unet(build_unet_spec(config.model), files.unet, device, placement.dtype)
    vae = load_vae(files.vae, device, placement.dtype)
    predictor = prepare_networks(unet, vae, config.data.num_frames, placement)
    batch = placement.vae_batch
    reset_peak_memory(device)
    inputs = [window.to(placement.dtype) for window in windows]
    calls = {
        name: _timed(work, inputs, warm_up, expected[name]) for name, work in _works(predictor, vae, batch).items()
    }
    return {
        "machine": machine_info(device),
        "settings": {"model": files.name, "dtype": str(placement.dtype), "compiled": placement.compiled},
        "window": {"frames": config.data.num_frames, "resolution": config.data.resolution},
        "calls": calls,
        "peak_mib": peak_memory(device),
    }


def _window(config: Config, device: torch.device, seed: int) -> WindowTensors:
    frames, resolution, side = config.data.num_frames, config.data.resolution, config.data.resolution // 8
    draw = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=device)

    return WindowTensors(
        latents=normal(1, 4, frames, side, side),
        condition_latents=normal(1, config.model.in_channels - 4, frames, side, side),
        audio_embeds=normal(1, frames, _AUDIO_TOKENS, config.model.cross_attention_dim),
        pixels=normal(frames, 3, resolution, resolution).clamp(-1, 1),
    )


def _reference(files: ModelFiles, config: Config, window: WindowTensors, device: torch.device) -> dict[str, Tensor]:
    """The results of every call in float32, by the plain networks."""
    with _exact_products():
        unet = load_unet(build_unet_spec(config.model), files.unet, device, torch.float32)
        works = _works(UNetPredictor(unet), load_vae(files.vae, device, torch.float32), 1)
        return {name: work(window)() for name, work in works.items()}


@contextmanager
def _exact_products() -> Iterator[None]:
    """No TF32, which would spoil the reference."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _works(predictor: UNetPredictor, vae: "AutoencoderKL", batch: int) -> dict[str, Workload]:
    """Every call by its name: given a window, it makes ready what is not to be timed and returns what is."""

    def unet_call(guidance_scale: float, cache_mode: FeatureCacheMode, window: WindowTensors) -> Callable[[], Tensor]:
        predictor.begin(window.condition_latents, window.audio_embeds)
        if cache_mode == "reuse":
            predictor.predict(window.latents, _TIMESTEP, guidance_scale, "keep")
        return partial(predictor.predict, window.latents, _TIMESTEP, guidance_scale, cache_mode)

    works: dict[str, Workload] = {
        f"unet, {name}": partial(unet_call, guidance_scale, cache_mode) for name, guidance_scale, cache_mode in _CALLS
    }
    works["vae, encode"] = lambda window: partial(encode_latents, vae, window.pixels, None, batch)
    works["vae, decode"] = lambda window: partial(decode_latents, vae, window.latents[0].transpose(0, 1), batch)
    return works


def _timed(work: Workload, inputs: Sequence[WindowTensors], warm_up: int, expected: Tensor) -> dict[str, float]:
    """Milliseconds of the first call and the median of those after the warm-up, and the error of the first result."""
    result, first = _clocked(work, inputs[0])
    error = float((result.float() - expected).norm() / expected.norm().clamp_min(1e-12))
    for window in inputs[1:warm_up]:
        work(window)()
    times = [_clocked(work, window)[1] for window in inputs[warm_up:]]
    metrics = {"ms": round(statistics.median(times), 3), "first_ms": round(first, 1), "relative_error": error}
    logger.info("%s", metrics)
    return metrics


def _clocked(work: Workload, window: WindowTensors) -> tuple[Tensor, float]:
    device = window.latents.device
    call = work(window)
    _wait(device)
    start = time.perf_counter()
    result = call()
    _wait(device)
    return result, (time.perf_counter() - start) * 1000


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main())
