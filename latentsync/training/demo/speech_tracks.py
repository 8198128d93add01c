"""Speech that the demo model's audio encoder is trained on: synthesized 30-second tracks with mouth curves.

Synthesized by espeak-ng in parallel processes, and stored as three plain arrays that are memory-mapped.
"""

import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latentsync.errors import ConfigError, MediaError
from latentsync.runtime.worker_pool import run_in_processes
from latentsync.synthetic.population import HELD_OUT_VARIANTS
from latentsync.synthetic.speech.text import Split, passage
from latentsync.synthetic.speech.tts import LANGUAGES, SAMPLE_RATE, VARIANTS, Utterance, join, silence, synthesize
from latentsync.synthetic.speech.visemes import mouth_curve, viseme_classes

logger = logging.getLogger(__name__)

TRACK_SECONDS = 30
ROWS_PER_SECOND = 50
TRACK_ROWS = TRACK_SECONDS * ROWS_PER_SECOND
TRACK_SAMPLES = TRACK_SECONDS * SAMPLE_RATE
_FILES = ("waveforms", "curves", "classes")


@dataclass(frozen=True)
class SpeechTracks:
    """n tracks of 30 s.

    Attributes:
        waveforms: (n, 480000) int16, 16 kHz.
        curves: (n, 1500, 7) float16, the mouth every 20 ms; columns as `MOUTH_PARAMETERS`.
        classes: (n, 1500) int8, index into `latentsync.synthetic.speech.visemes.VISEME_NAMES` every 20 ms.
    """

    waveforms: npt.NDArray[np.int16]
    curves: npt.NDArray[np.float16]
    classes: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.waveforms)

    def save(self, folder: Path) -> None:
        """Write the three arrays into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> "SpeechTracks":
        """Map the arrays that `save` wrote. Raises ConfigError when they are not there."""
        missing = [name for name in _FILES if not (folder / f"{name}.npy").is_file()]
        if missing:
            raise ConfigError(f"No speech in {folder}: {missing} missing; run the stage `speech` first")
        return cls(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _FILES))


def make_track(seed: int, split: Split) -> SpeechTracks:
    """One track: several passages of one or two speakers with pauses between them.

    The seed fixes words and voices; espeak-ng carries state from call to call, so samples differ a little.
    """
    generator = random.Random(seed)
    parts: list[Utterance] = []
    seconds = 0.0
    voice = _voice(generator, split)
    while seconds < TRACK_SECONDS:
        if generator.random() < 0.35:
            voice = _voice(generator, split)
        parts += [silence(generator.uniform(0.02, 0.6) ** 2 * 4), _passage(generator, voice, split)]
        seconds += sum(part.seconds for part in parts[-2:])
    track = join(parts)
    waveform = np.clip(track.waveform[:TRACK_SAMPLES] * 32767.0, -32768, 32767).astype(np.int16)
    curve = mouth_curve(track.phonemes, TRACK_ROWS, ROWS_PER_SECOND)
    classes = viseme_classes(track.phonemes, TRACK_ROWS, ROWS_PER_SECOND)
    return SpeechTracks(waveform[None], curve[None].astype(np.float16), classes[None].astype(np.int8))


def _voice(generator: random.Random, split: Split) -> dict[str, str | int]:
    variants = (
        HELD_OUT_VARIANTS if split == "held_out" else [each for each in VARIANTS if each not in HELD_OUT_VARIANTS]
    )
    language = generator.choice(LANGUAGES[:5]) if generator.random() < 0.8 else generator.choice(LANGUAGES)
    return {
        "voice": f"{language}+{generator.choice(variants)}",
        "speed": round(generator.triangular(105, 240, 165)),
        "pitch": generator.randint(10, 90),
    }


def _passage(generator: random.Random, voice: dict[str, str | int], split: Split) -> Utterance:
    language = str(voice["voice"]).split("+")[0]
    text = passage(generator, language, split, generator.randint(1, 2))
    return synthesize(text, str(voice["voice"]), int(voice["speed"]), int(voice["pitch"]))


def make_tracks(seconds: float, seed: int, split: Split, limit: int, workers: int) -> SpeechTracks:
    """Make tracks in ``workers`` processes until ``seconds`` are over or ``limit`` is reached, at least one.

    Raises:
        MediaError: espeak-ng made nothing.
    """
    tracks = list(run_in_processes(make_track, _seeds(time.monotonic() + seconds, seed, split, limit), workers))
    if not tracks:
        raise MediaError("espeak-ng made no speech within the time limit; give the stage `speech` more seconds")
    return SpeechTracks(*(np.concatenate([getattr(track, name) for track in tracks]) for name in _FILES))


def _seeds(deadline: float, seed: int, split: Split, limit: int) -> Iterator[tuple[int, Split]]:
    for number in range(seed, seed + limit):
        yield number, split
        if time.monotonic() >= deadline:
            return
