"""Who appears in a corpus: people, voices and words of training, and others that only validation has."""

import random
from dataclasses import dataclass, replace

from latentsync.synthetic.head import FloatArray
from latentsync.synthetic.identity import (
    Identity,
    Scene,
    sample_identity,
    sample_motion,
    sample_scene,
)
from latentsync.synthetic.speech import LANGUAGES, VARIANTS, Utterance, join, silence, synthesize
from latentsync.synthetic.text import Split, passage

HELD_OUT_VARIANTS: tuple[str, ...] = VARIANTS[4::7]
"""Voice variants that only held-out clips have."""

_ENGLISH_SHARE = 0.7


@dataclass(frozen=True)
class Speaker:
    """How a person talks.

    Attributes:
        voice: espeak-ng language and variant.
        speed: words a minute.
        pitch: 0 to 100.
        style: how far the mouth opens, 1 = normal.
    """

    voice: str
    speed: int
    pitch: int
    style: float


@dataclass(frozen=True)
class Setting:
    """All that the takes of one scene share.

    Attributes:
        identity: the person.
        scene: light, background and camera.
        motion: (t, 9) movement of the head.
        jitter: standard deviation of the alignment's error in pixels of the 768-pixel frame.
    """

    identity: Identity
    scene: Scene
    motion: FloatArray
    jitter: float


def sample_speaker(generator: random.Random, split: Split) -> Speaker:
    """A random voice of ``split``."""
    variants = HELD_OUT_VARIANTS if split == "held_out" else [v for v in VARIANTS if v not in HELD_OUT_VARIANTS]
    english = [language for language in LANGUAGES if language.startswith("en")]
    language = generator.choice(english if generator.random() < _ENGLISH_SHARE else LANGUAGES)
    return Speaker(
        voice=f"{language}+{generator.choice(variants)}",
        speed=round(generator.triangular(115, 220, 165)),
        pitch=generator.randint(15, 85),
        style=generator.uniform(0.85, 1.15),
    )


def sample_words(generator: random.Random, speaker: Speaker, split: Split, seconds: float) -> Utterance:
    """At least ``seconds`` of a speaker's talk, with a pause here and there."""
    language = speaker.voice.split("+")[0]
    parts = [silence(0.02 + 0.5 * generator.random() ** 2)]
    while sum(part.seconds for part in parts) < seconds:
        text = passage(generator, language, split, 1)
        parts += [synthesize(text, speaker.voice, speaker.speed, speaker.pitch), silence(generator.uniform(0.02, 0.4))]
    return join(parts)


def sample_setting(generator: random.Random, num_frames: int, fps: float) -> Setting:
    """A random person in a random place; fine noise, which no network can foresee, is rare and weak."""
    identity = replace(sample_identity(generator), grain=generator.uniform(0.0, 0.02))
    noise = generator.uniform(0.0, 0.01) if generator.random() < 0.25 else 0.0
    return Setting(
        identity=identity,
        scene=replace(sample_scene(generator), noise=noise),
        motion=sample_motion(num_frames, fps, generator, liveliness=generator.uniform(0.2, 1.1)),
        jitter=generator.uniform(0.0, 2.5),
    )
