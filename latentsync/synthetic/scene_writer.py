"""Write one scene of a corpus, two takes that differ only in the speech, and read its sidecars back."""

import json
import os
import random
import shutil
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from latentsync.errors import ConfigError
from latentsync.media.video_writer import AudioTrack, VideoWriter, WriterOptions
from latentsync.synthetic.clip import write_wav
from latentsync.synthetic.head.appearance import MOTION_COLUMNS, Identity, Scene
from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.population import Setting, Speaker, sample_setting, sample_speaker, sample_speaker_utterance
from latentsync.synthetic.speech.text import Split
from latentsync.synthetic.speech.tts import PAUSE, SAMPLE_RATE, Utterance
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS, mouth_curve

TAKES = ("a", "b")
FPS = Fraction(25)
# A keyframe every eight frames makes it cheap to read a short window from anywhere.
WRITER = WriterOptions(crf=16, preset="superfast", keyframe_interval=8, threads=1, overwrite=True)


@dataclass(frozen=True)
class SceneScript:
    """Complete description of one scene, before rendering.

    Attributes:
        split: "train" or "val".
        number: index of the scene within its split.
        setting: what both takes have in common.
        speakers, utterances: one for each take.
    """

    split: str
    number: int
    setting: Setting
    speakers: tuple[Speaker, ...]
    utterances: tuple[Utterance, ...]

    @cached_property
    def states(self) -> list[HeadState]:
        """Head state of each take."""
        setting, count = self.setting, len(self.setting.motion)
        curves = [
            mouth_curve(utterance.phonemes, count, FPS, speaker.style)
            for speaker, utterance in zip(self.speakers, self.utterances, strict=True)
        ]
        return [HeadState(curve, setting.motion, setting.identity, setting.scene) for curve in curves]

    @property
    def names(self) -> list[str]:
        """File stems of the takes."""
        return take_names(self.number)


def take_names(number: int) -> list[str]:
    """File stems of a scene's takes: ``00012_a``, ``00012_b``."""
    return [f"{number:05d}_{take}" for take in TAKES]


def make_scene_script(seed: int, split: str, number: int, seconds: float) -> SceneScript:
    """Sample everything about a scene; the same arguments give the same people, motion and words.

    Raises:
        DependencyError: espeakng-loader is missing.
    """
    generator = random.Random(f"{seed}/{split}/{number}")
    population: Split = "held_out" if split == "val" else "train"
    setting = sample_setting(generator, population, max(1, round(seconds * FPS)), float(FPS))
    speaker = sample_speaker(generator, population)
    speakers = (speaker, speaker if generator.random() < 0.5 else sample_speaker(generator, population))
    utterances = tuple(sample_speaker_utterance(generator, each, population, seconds) for each in speakers)
    return SceneScript(split, number, setting, speakers, utterances)


def write_scene(script: SceneScript, folder: Path, renderer: HeadRenderer, sizes: tuple[int, int | None]) -> None:
    """Write both takes as aligned crops and, if requested, as full frames.

    The files are written to ``folder/.unfinished`` and moved into place once all of them are complete.

    Args:
        script: the scene.
        folder: root of the corpus; crops go to ``folder/<split>``, full frames to ``folder/whole/<split>``.
        renderer: renders the frames.
        sizes: side of the crops; side of the full frames, or None to skip them.

    Raises:
        MediaError: a file cannot be written.
    """
    resolution, whole = sizes
    staging_dir = folder / ".unfinished" / f"{script.split}_{script.number:05d}"
    staging_dir.mkdir(parents=True, exist_ok=True)
    states = script.states
    with torch.inference_mode():
        _write_takes(script, staging_dir, renderer.render_takes(states, resolution, script.setting.jitter), "")
        if whole is not None:
            _write_takes(
                script, staging_dir, torch.stack([renderer.render(state, whole) for state in states]), "whole_"
            )
    truths = [_sidecar(script, index, renderer, resolution) for index in range(len(TAKES))]
    targets = {"": folder / script.split} | ({} if whole is None else {"whole_": folder / "whole" / script.split})
    for prefix, target in targets.items():
        target.mkdir(parents=True, exist_ok=True)
        for name, truth in zip(script.names, truths, strict=True):
            (staging_dir / f"{name}.json").write_text(json.dumps(truth) + "\n", encoding="utf-8")
            os.replace(staging_dir / f"{name}.json", target / f"{name}.json")
        for name in script.names:
            os.replace(staging_dir / f"{prefix}{name}.mp4", target / f"{name}.mp4")
    shutil.rmtree(staging_dir)


def is_complete(folder: Path, split: str, number: int, with_whole_frames: bool = False) -> bool:
    """Whether all files of a scene exist."""
    targets = [folder / split, *([folder / "whole" / split] if with_whole_frames else [])]
    return all(
        (target / f"{name}{suffix}").is_file()
        for target in targets
        for name in take_names(number)
        for suffix in (".json", ".mp4")
    )


def _write_takes(script: SceneScript, staging_dir: Path, takes: Tensor, prefix: str) -> None:
    """Encode the takes (k, t, 3, h, w) in [0, 1], each with its audio."""
    for name, utterance, frames in zip(script.names, script.utterances, takes, strict=True):
        audio_path = staging_dir / f"{name}.wav"
        write_wav(audio_path, pad_or_trim(utterance.waveform, len(frames)))
        images = rearrange((frames * 255).round().byte(), "t c h w -> t h w c").contiguous().cpu().numpy()
        size, track = images.shape[1], AudioTrack(audio_path)
        with VideoWriter(staging_dir / f"{prefix}{name}.mp4", size, size, FPS, track, WRITER) as writer:
            for image in images:
                writer.write(image)


def pad_or_trim(waveform: npt.NDArray[np.float32], num_frames: int) -> npt.NDArray[np.float32]:
    """Trim 16 kHz audio (n,) to the duration of ``num_frames`` at 25 fps, or pad it with silence."""
    length = round(num_frames / FPS * SAMPLE_RATE)
    return np.pad(waveform[:length], (0, max(0, length - len(waveform))))


def _sidecar(script: SceneScript, index: int, renderer: HeadRenderer, resolution: int) -> dict[str, Any]:
    state, utterance, speaker = script.states[index], script.utterances[index], script.speakers[index]
    seconds = float(state.num_frames / FPS)
    audible_phonemes = [p for p in utterance.phonemes if p.start < seconds]
    return {
        "split": script.split,
        "scene_number": script.number,
        "take": TAKES[index],
        "other_take": f"{script.names[1 - index]}.mp4",
        "fps": str(FPS),
        "resolution": resolution,
        "text": utterance.text,
        "voice": speaker.voice,
        "speaker": asdict(speaker),
        "phonemes": [[p.symbol, round(p.start, 4), round(min(p.end, seconds), 4)] for p in audible_phonemes],
        "has_speech": any(p.symbol != PAUSE for p in audible_phonemes),
        "mouth_columns": list(MOUTH_PARAMETERS),
        "mouth": np.round(state.mouth, 5).tolist(),
        "mouth_opening": np.round(renderer.mouth_opening(state).cpu().numpy(), 5).tolist(),
        "motion_columns": list(MOTION_COLUMNS),
        "motion": np.round(state.motion, 5).tolist(),
        "jitter": script.setting.jitter,
        "identity": asdict(state.identity),
        "scene": asdict(state.scene),
    }


def read_sidecar(path: Path) -> tuple[HeadState, dict[str, Any]]:
    """Read the ground truth of a corpus clip.

    ``HeadRenderer.render_takes([state], resolution, truth["jitter"])`` renders the clip again;
    ``state.with_mouth(mouth_curve(...))`` is the ground truth for dubbing it with other speech.

    Args:
        path: the clip or its sidecar.

    Returns:
        The head state of the clip, and the whole content of the sidecar.

    Raises:
        ConfigError: the sidecar is missing, or is not that of a corpus clip.
    """
    path = path.with_suffix(".json")
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
        state = HeadState(
            np.array(truth["mouth"], np.float32),
            np.array(truth["motion"], np.float32),
            Identity(**_tuples(truth["identity"])),
            Scene(**_tuples(truth["scene"])),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"Cannot read the ground truth {str(path)!r} ({type(error).__name__}: {error}). Expected the sidecar of a "
            "clip written by tools.make_synthetic_dataset; regenerate the corpus."
        ) from error
    return state, truth


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Convert lists to tuples, which JSON cannot represent."""
    return {name: _as_tuple(value) for name, value in values.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
