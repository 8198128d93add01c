"""Cases for judging a finished lip-sync video: a source clip, other speech, and the true picture of that dub.

A case is a folder: ``source.mp4`` (what to lip-sync), ``truth.mp4`` (the same scene saying the other words) with
``truth.wav`` (their sound), and a JSON sidecar of each clip with its ground truth (see `latentsync.synthetic.clip`).
"""

import json
import os
import random
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from latentsync.errors import ConfigError, MediaError
from latentsync.media.video_writer import WriterOptions
from latentsync.synthetic.clip import ClipFormat, ground_truth, write_clip
from latentsync.synthetic.demo_scene import SIZE, demo_speech, demo_video
from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.population import sample_speaker, sample_speaker_utterance
from latentsync.synthetic.scene_writer import make_scene_script
from latentsync.synthetic.speech.tts import Utterance
from latentsync.synthetic.speech.visemes import mouth_curve

FPS = Fraction(25)
_TRUTH_CRF = 10  # the encoder's own error is to stay far below what is measured


@dataclass(frozen=True)
class DubCase:
    """One case before it is drawn.

    Attributes:
        name: of its folder.
        source: what the clip to lip-sync shows.
        source_utterance: what it says.
        dubbed: the perfect dub, no longer than the source.
        driving_utterance: what the dub says.
        size: side of the frames in pixels.
        video: a file that shows ``source`` already; None draws it.
    """

    name: str
    source: HeadState
    source_utterance: Utterance
    dubbed: HeadState
    driving_utterance: Utterance
    size: int
    video: Path | None = None


def held_out_case(seed: int, number: int, seconds: float, size: int = 512) -> DubCase:
    """A person, voices and words that training does not have; the same arguments give the same case.

    Raises:
        DependencyError: espeakng-loader is missing.
    """
    script = make_scene_script(seed, "val", number, seconds)
    source, dubbed = script.states
    source_utterance, driving_utterance = script.utterances
    return DubCase(f"held_out_{seed}_{number:03d}", source, source_utterance, dubbed, driving_utterance, size)


def bundled_case(video: Path, seed: int, number: int) -> DubCase:
    """The bundled clip: number 0 says the bundled speech, every other one held-out words in a held-out voice.

    Args:
        video: ``assets/demo_video.mp4``.
        seed: of the words and voices.
        number: from 0.

    Raises:
        DependencyError: espeakng-loader is missing.
        MediaError: the video is missing.
    """
    if not video.is_file():
        raise MediaError(f"The bundled clip {video} is missing; make it with: python -m tools.make_demo_assets")
    source, source_utterance = demo_video()
    driving_utterance, style, count = demo_speech(), 1.0, source.num_frames
    if number == 0:
        count = round(driving_utterance.seconds * FPS)
    else:
        generator = random.Random(f"{seed}/bundled/{number}")
        speaker = sample_speaker(generator, "held_out")
        driving_utterance, style = (
            sample_speaker_utterance(generator, speaker, "held_out", float(count / FPS)),
            speaker.style,
        )
    dubbed = source.frames(0, count).speaking(mouth_curve(driving_utterance.phonemes, count, FPS, style))
    return DubCase(f"bundled_{seed}_{number:03d}", source, source_utterance, dubbed, driving_utterance, SIZE, video)


def write_case(case: DubCase, folder: Path, renderer: HeadRenderer) -> Path:
    """Write a case's folder below ``folder``; one that is there already is kept.

    Returns:
        The case's folder.

    Raises:
        ConfigError: the folder holds a case of another length or size.
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
    """Refuse to take an old case for another one."""
    held = json.loads((target / "truth.json").read_text(encoding="utf-8"))
    if (len(held["mouth"]), held["text"]) != (case.dubbed.num_frames, case.driving_utterance.text):
        raise ConfigError(
            f"{target} holds a case of {len(held['mouth'])} frames that says {held['text']!r}, not the "
            f"{case.dubbed.num_frames} frames asked for; give another folder, or the options it was made with"
        )
