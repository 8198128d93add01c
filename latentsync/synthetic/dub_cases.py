"""Test cases for evaluating finished lip-sync videos: a source clip, driving speech, and the ground-truth dub.

A case is a folder: ``source.mp4`` (the clip to lip-sync), ``truth.mp4`` (the same scene with the driving speech),
``truth.wav`` (the driving speech), and a JSON sidecar of each clip with its ground truth (see
`latentsync.synthetic.clip`).
"""

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from latentsync.errors import ConfigError, MediaError
from latentsync.media.video_writer import WriterOptions
from latentsync.synthetic.clip import ClipFormat, ground_truth, write_clip
from latentsync.synthetic.demo_scene import SIZE, demo_speech, demo_video
from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.population import sample_speaker, sample_speaker_utterance
from latentsync.synthetic.scene_writer import FPS, make_scene_script
from latentsync.synthetic.speech.tts import Utterance
from latentsync.synthetic.speech.visemes import mouth_curve

_TRUTH_CRF = 10  # keeps the compression error far below the differences being measured


@dataclass(frozen=True)
class DubCase:
    """One case before it is rendered.

    Attributes:
        name: name of its folder.
        source: head state of the clip to lip-sync.
        source_utterance: speech of that clip.
        dubbed: head state of the ground-truth dub, no longer than the source.
        driving_utterance: speech of the dub.
        size: side of the frames in pixels.
        video: existing video of ``source``; None renders one.
    """

    name: str
    source: HeadState
    source_utterance: Utterance
    dubbed: HeadState
    driving_utterance: Utterance
    size: int
    video: Path | None = None


def held_out_case(seed: int, number: int, seconds: float, size: int = 512) -> DubCase:
    """A case whose person, voices and words do not occur in training; the same arguments give the same case.

    Raises:
        DependencyError: espeakng-loader is missing.
    """
    script = make_scene_script(seed, "val", number, seconds)
    source, dubbed = script.states
    source_utterance, driving_utterance = script.utterances
    return DubCase(f"held_out_{seed}_{number:03d}", source, source_utterance, dubbed, driving_utterance, size)


def bundled_case(video: Path, seed: int, number: int) -> DubCase:
    """A dub of the bundled clip: number 0 uses the bundled speech, all others held-out words and voices.

    Args:
        video: ``assets/demo_video.mp4``.
        seed: random seed of words and voices.
        number: index of the case, from 0.

    Raises:
        DependencyError: espeakng-loader is missing.
        MediaError: the video is missing.
    """
    if not video.is_file():
        raise MediaError(f"The bundled clip {video} is missing; create it with: python -m tools.make_demo_assets")
    source, source_utterance = demo_video()
    driving_utterance, style, count = demo_speech(), 1.0, source.num_frames
    if number == 0:
        count = round(driving_utterance.seconds * FPS)
    else:
        generator = random.Random(f"{seed}/bundled/{number}")
        speaker = sample_speaker(generator, "held_out")
        driving_utterance = sample_speaker_utterance(generator, speaker, "held_out", float(count / FPS))
        style = speaker.style
    dubbed = source.frames(0, count).with_mouth(mouth_curve(driving_utterance.phonemes, count, FPS, style))
    return DubCase(f"bundled_{seed}_{number:03d}", source, source_utterance, dubbed, driving_utterance, SIZE, video)


def write_case(case: DubCase, folder: Path, renderer: HeadRenderer) -> Path:
    """Render a case into a folder of its own below ``folder``; an existing one is kept.

    Returns:
        The folder of the case.

    Raises:
        ConfigError: the folder exists and holds a case of another length or text.
        MediaError: a file cannot be written.
    """
    target = folder / case.name
    if target.is_dir():
        _check_same(case, target)
        return target
    staging_dir = folder / f".{case.name}.partial"
    shutil.rmtree(staging_dir, ignore_errors=True)
    staging_dir.mkdir(parents=True)
    if case.video is None:
        options = ClipFormat(size=case.size, fps=FPS)
        write_clip(staging_dir / "source.mp4", case.source, case.source_utterance, renderer, options)
        (staging_dir / "source.wav").unlink()
    else:
        shutil.copyfile(case.video, staging_dir / "source.mp4")
        truth = ground_truth(case.source, case.source_utterance, renderer, ClipFormat(size=case.size, fps=FPS))
        (staging_dir / "source.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")
    options = ClipFormat(size=case.size, fps=FPS, writer=WriterOptions(crf=_TRUTH_CRF))
    write_clip(staging_dir / "truth.mp4", case.dubbed, case.driving_utterance, renderer, options)
    os.replace(staging_dir, target)
    return target


def _check_same(case: DubCase, target: Path) -> None:
    """Raise ConfigError if the existing folder ``target`` holds another case."""
    existing = json.loads((target / "truth.json").read_text(encoding="utf-8"))
    num_frames, text = len(existing["mouth"]), existing["text"]
    if (num_frames, text) != (case.dubbed.num_frames, case.driving_utterance.text):
        raise ConfigError(
            f"{target} holds a case of {num_frames} frames with the text {text!r}; requested were "
            f"{case.dubbed.num_frames} frames with {case.driving_utterance.text!r}. Give another folder, or the "
            "options this one was created with"
        )
