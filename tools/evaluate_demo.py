"""Measure how well the mouth in the pipeline's output follows the speech, on new faces and held-out words.

    python -m tools.evaluate_demo --clips 3 --seconds 4

Makes synthetic clips, drives each with other held-out speech through the whole pipeline, measures the opening of the
mouth in the output with the landmark detector (inner lips over eye distance) and correlates it with the curve of the
driving speech: in place (``r``), shifted by 0.4 s (``r_shifted``), and with the source video's own mouth
(``r_source``). Prints JSON.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from latentsync.builders import REPOSITORY, build_face_detector, build_pipeline, preset_files
from latentsync.config import load_config
from latentsync.diffusion.denoise import SamplerOptions
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import WriterOptions
from latentsync.metrics.mouth_opening import MouthMeter, correlation
from latentsync.pipelines.job import LipsyncJob
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.synthetic.clip import ClipOptions, sample_state, write_clip, write_wav
from latentsync.synthetic.head import HeadRenderer
from latentsync.synthetic.speech import SAMPLE_RATE, VARIANTS, Utterance, join, silence, synthesize
from latentsync.synthetic.text import passage
from latentsync.synthetic.visemes import mouth_curve

logger = logging.getLogger("evaluate_demo")

_FPS = 25


def main() -> int:
    """Read the command line, measure, print."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    device = torch.device(arguments.device)
    files = preset_files(arguments.preset, arguments.checkpoints)
    run = load_config(files.config_path).run
    sampler = SamplerOptions(
        arguments.inference_steps or run.inference_steps, arguments.guidance_scale or run.guidance_scale
    )
    pipeline = build_pipeline(
        files, device, torch.float32, build_face_detector("mediapipe", arguments.checkpoints, device)
    )
    clips = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(arguments.clips):
            clips.append(_measure_clip(pipeline, sampler, folder, arguments.seed + index, arguments.seconds))
            logger.info("clip %d of %d: %s", index + 1, arguments.clips, clips[-1])
    names = ("r", "r_shifted", "r_source", "r_ceiling", "found")
    means = {name: round(float(np.mean([clip[name] for clip in clips])), 4) for name in names}
    settings = {"preset": files.name, "steps": sampler.steps, "guidance_scale": sampler.guidance_scale}
    json.dump({"settings": settings, "mean": means, "clips": clips}, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--checkpoints", type=Path, default=REPOSITORY / "checkpoints")
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each clip")
    parser.add_argument("--seed", type=int, default=90210)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--inference_steps", type=int, help="default: the preset's")
    parser.add_argument("--guidance_scale", type=float, help="default: the preset's")
    parser.add_argument("--keep", type=Path, help="folder to leave the clips and results in")
    return parser


def _measure_clip(
    pipeline: LipsyncPipeline, sampler: SamplerOptions, folder: Path, seed: int, seconds: float
) -> dict[str, float]:
    """One held-out face with one held-out speech."""
    generator = random.Random(seed)
    own, driving = (_utterance(generator, seconds) for _ in range(2))
    count = round(seconds * _FPS)
    state = sample_state(own, generator, count)
    dubbed = state.speaking(mouth_curve(driving.phonemes, count, Fraction(_FPS)))
    renderer = HeadRenderer()
    source, wav, result = (folder / name for name in (f"source_{seed}.mp4", f"speech_{seed}.wav", f"result_{seed}.mp4"))
    write_clip(source, state, own, renderer, ClipOptions(size=512, writer=WriterOptions(overwrite=True)))
    write_wav(wav, driving.waveform[: round(seconds * SAMPLE_RATE)])
    pipeline(LipsyncJob(source, wav, result, sampler, overwrite=True))
    true, before = (renderer.mouth_opening(each).double().numpy() for each in (dubbed, state))
    measured, measured_source = _openings(result), _openings(source)
    shift = round(0.4 * _FPS)
    return {
        "seed": seed,
        "found": float(np.isfinite(measured).mean()),
        "r": correlation(measured, true),
        "r_shifted": max(correlation(measured, true, shift), correlation(measured, true, -shift)),
        "r_source": correlation(measured, before),
        "r_ceiling": correlation(measured_source, before),
    }


def _utterance(generator: random.Random, seconds: float) -> Utterance:
    """Held-out English words, at least ``seconds`` long."""
    voice = f"en-us+{generator.choice(VARIANTS)}"
    parts = [silence(generator.uniform(0.1, 0.3))]
    while sum(part.seconds for part in parts) < seconds:
        parts.append(synthesize(passage(generator, "en-us", "held_out"), voice, generator.randint(140, 190)))
    return join(parts)


def _openings(path: Path) -> npt.NDArray[np.float64]:
    """(t,) measured mouth opening of every frame, NaN where no face is found."""
    with MouthMeter() as meter:
        return np.array([meter.opening(frame.pixels) for frame in VideoReader(path)], np.float64)


if __name__ == "__main__":
    sys.exit(main())
