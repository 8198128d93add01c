"""Write a clip of the synthetic head: video with audio, the audio alone, and a JSON sidecar with the ground truth."""

import json
import random
import wave
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from einops import rearrange

from latentsync.media.video_writer import AudioTrack, VideoWriter, WriterOptions
from latentsync.synthetic.head.appearance import MOTION_COLUMNS, sample_identity, sample_motion, sample_scene
from latentsync.synthetic.head.renderer import HeadRenderer, HeadState
from latentsync.synthetic.speech.text import Split, passage
from latentsync.synthetic.speech.tts import LANGUAGES, SAMPLE_RATE, VARIANTS, Utterance, join, silence, synthesize
from latentsync.synthetic.speech.visemes import MOUTH_PARAMETERS, mouth_curve

_RENDER_BATCH_SIZE = 8


@dataclass(frozen=True)
class ClipFormat:
    """Format of a clip: square frames with a side of ``size`` pixels at ``fps``; ``zoom`` > 1 magnifies the head."""

    size: int = 768
    fps: Fraction = Fraction(25)
    zoom: float = 1.0
    writer: WriterOptions = WriterOptions()


def write_wav(path: Path, waveform: npt.NDArray[np.float32], sample_rate: int = SAMPLE_RATE) -> None:
    """Write mono audio (n,) float32 in [-1, 1] as 16-bit PCM."""
    samples = np.rint(np.clip(waveform, -1, 1) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.tobytes())


def sample_utterance(generator: random.Random, split: Split = "train", sentences: int = 2) -> Utterance:
    """Synthesize random sentences with a random voice, speed and pitch, padded with a little silence at both ends."""
    language = generator.choice(LANGUAGES) if generator.random() < 0.5 else "en-us"
    voice = f"{language}+{generator.choice(VARIANTS)}"
    text = passage(generator, language, split, sentences)
    spoken = synthesize(text, voice, generator.randint(125, 215), generator.randint(20, 80))
    return join([silence(generator.uniform(0.05, 0.4)), spoken, silence(generator.uniform(0.05, 0.4))])


def sample_state(
    utterance: Utterance, generator: random.Random, num_frames: int | None = None, fps: Fraction = Fraction(25)
) -> HeadState:
    """Sample a random person in a random scene speaking ``utterance``; ``num_frames`` defaults to its duration."""
    count = num_frames or max(1, round(utterance.seconds * fps))
    return HeadState(
        mouth=mouth_curve(utterance.phonemes, count, fps),
        motion=sample_motion(count, float(fps), generator),
        identity=sample_identity(generator),
        scene=sample_scene(generator),
    )


def write_clip(
    path: Path, state: HeadState, utterance: Utterance, renderer: HeadRenderer, options: ClipFormat | None = None
) -> dict[str, Any]:
    """Write ``path`` (.mp4) and, beside it, ``.wav`` and ``.json`` of the same name.

    Args:
        path: video to write; its folder must exist.
        state: visual content; its number of frames determines the length of all files.
        utterance: audio content; trimmed or padded with silence to the length of the video.
        renderer: renders the frames.
        options: clip format.

    Returns:
        The content of the sidecar: ``phonemes`` (symbol, start, end in seconds), ``mouth`` (t, 7) with the names of
        its columns, ``mouth_opening`` (t,) relative to the eye distance, ``control_points`` (t, 3, 2) in frame pixels,
        ``identity`` and ``scene``.

    Raises:
        MediaError: a file cannot be written, or exists and ``options.writer.overwrite`` is not set.
    """
    options = options or ClipFormat()
    length = round(state.num_frames / options.fps * SAMPLE_RATE)
    waveform = np.zeros(length, np.float32)
    waveform[: min(length, len(utterance.waveform))] = utterance.waveform[:length]
    audio_path = path.with_suffix(".wav")
    write_wav(audio_path, waveform)
    with VideoWriter(path, options.size, options.size, options.fps, AudioTrack(audio_path), options.writer) as writer:
        for start in range(0, state.num_frames, _RENDER_BATCH_SIZE):
            frames = renderer.render(state.frames(start, start + _RENDER_BATCH_SIZE), options.size, options.zoom)
            for image in rearrange((frames * 255).round().byte(), "t c h w -> t h w c").cpu().numpy():
                writer.write(np.ascontiguousarray(image))
    truth = ground_truth(state, utterance, renderer, options)
    path.with_suffix(".json").write_text(json.dumps(truth) + "\n", encoding="utf-8")
    return truth


def ground_truth(state: HeadState, utterance: Utterance, renderer: HeadRenderer, options: ClipFormat) -> dict[str, Any]:
    """Ground truth of a clip as JSON-serializable values; see `write_clip`."""
    frame_size = renderer.frame_size(state)
    scale = (options.size - 1) / (frame_size - 1) * options.zoom
    controls = (renderer.control_points(state) - (frame_size - 1) / 2) * scale + (options.size - 1) / 2
    return {
        "fps": str(options.fps),
        "text": utterance.text,
        "voice": utterance.voice,
        "phonemes": [[p.symbol, round(p.start, 4), round(p.end, 4)] for p in utterance.phonemes],
        "mouth_columns": list(MOUTH_PARAMETERS),
        "mouth": np.round(state.mouth, 4).tolist(),
        "motion_columns": list(MOTION_COLUMNS),
        "motion": np.round(state.motion, 4).tolist(),
        "mouth_opening": np.round(renderer.mouth_opening(state).cpu().numpy(), 5).tolist(),
        "control_points": np.round(controls.cpu().numpy(), 2).tolist(),
        "identity": asdict(state.identity),
        "scene": asdict(state.scene),
    }
