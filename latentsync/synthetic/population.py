"""Who appears in a corpus: people, voices and words of training, and others that only validation has.

A person of the held-out split has a base face that training never shows, and proportions from a part of the shape space
that training leaves out; voices and words are apart too.
"""

import math
import random
from dataclasses import dataclass, replace

from latentsync.synthetic.head.appearance import (
    Color,
    FloatArray,
    Identity,
    Scene,
    sample_identity,
    sample_motion,
    sample_scene,
    shape_spread,
)
from latentsync.synthetic.head.blend import BLENDS
from latentsync.synthetic.speech.text import Split, passage
from latentsync.synthetic.speech.tts import LANGUAGES, VARIANTS, Utterance, join, silence, synthesize

HELD_OUT_VARIANTS: tuple[str, ...] = VARIANTS[4::7]
"""Voice variants that only held-out clips have."""

HELD_OUT_FACES: tuple[str, ...] = ("collins_50", "hopper_25")
"""Base faces that only held-out clips have."""

_ENGLISH_PROB = 0.7


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
    language = generator.choice(english if generator.random() < _ENGLISH_PROB else LANGUAGES)
    return Speaker(
        voice=f"{language}+{generator.choice(variants)}",
        speed=round(generator.triangular(115, 220, 165)),
        pitch=generator.randint(15, 85),
        style=generator.uniform(0.85, 1.15),
    )


def sample_speaker_utterance(generator: random.Random, speaker: Speaker, split: Split, seconds: float) -> Utterance:
    """At least ``seconds`` of a speaker's talk, with a pause here and there.

    Raises:
        DependencyError: espeakng-loader is missing.
    """
    language = speaker.voice.split("+")[0]
    parts = [silence(0.02 + 0.5 * generator.random() ** 2)]
    while sum(part.seconds for part in parts) < seconds:
        text = passage(generator, language, split, 1)
        parts += [synthesize(text, speaker.voice, speaker.speed, speaker.pitch), silence(generator.uniform(0.02, 0.4))]
    return join(parts)


def is_held_out_shape(identity: Identity) -> bool:
    """Whether the proportions are of those (a quarter of all) that training leaves out: long faces with wide noses."""
    parts = [identity.shape.get(name, 0.0) / shape_spread(name) for name in ("face_length", "nose_width")]
    return sum(parts) > 1.0


def sample_person(generator: random.Random, split: Split) -> Identity:
    """A random person of ``split``. Fine texture, which no network can foresee, is weak."""
    held_out = split == "held_out"
    while True:
        person = sample_identity(generator)
        if is_held_out_shape(person) == held_out:
            break
    faces = HELD_OUT_FACES if held_out else tuple(name for name in BLENDS if name not in HELD_OUT_FACES)
    face = generator.choice(faces)
    # Under a cap there is little hair and much shade: bright hair would make the shade glow.
    hair = person.hair if face.startswith("collins") else _darker(person.hair)
    return replace(
        person,
        portrait=face,
        hair=hair,
        smoothness=generator.uniform(0.1, 0.8),
        skin_contrast=generator.uniform(0.5, 0.8),
        beard=0.7 * person.beard,
        beard_grain=0.3,
        grain=generator.uniform(0.0, 0.015),
    )


def _darker(colour: Color | None) -> Color | None:
    if colour is None:
        return None
    scale = min(1.0, 0.3 / max(colour))
    return colour[0] * scale, colour[1] * scale, colour[2] * scale


def _mixing(generator: random.Random) -> tuple[Color, Color, Color]:
    """A matrix near the identity that keeps grey grey."""
    rows = []
    for place in range(3):
        row = [generator.gauss(0, 0.025) for _ in range(3)]
        row[place] += 1 - sum(row)
        rows.append((row[0], row[1], row[2]))
    return rows[0], rows[1], rows[2]


def sample_person_scene(generator: random.Random, person: Identity) -> Scene:
    """Random light, background and camera, exposed for the person; camera noise is rare and weak."""
    skin = sum(person.skin) / 3 if person.skin else 0.6
    exposure = generator.uniform(0.8, 1.0) * math.sqrt(0.6 / max(0.25, skin))
    return replace(
        sample_scene(generator),
        exposure=min(exposure, 1.4),
        tone=generator.uniform(-0.25, 0.25),
        mixing=_mixing(generator),
        blur=generator.uniform(0.3, 0.8) if generator.random() < 0.3 else 0.0,
        noise=generator.uniform(0.0, 0.01) if generator.random() < 0.2 else 0.0,
    )


def sample_setting(generator: random.Random, split: Split, num_frames: int, fps: float) -> Setting:
    """A random person of ``split`` in a random place, moving."""
    person = sample_person(generator, split)
    return Setting(
        identity=person,
        scene=sample_person_scene(generator, person),
        motion=sample_motion(num_frames, fps, generator, liveliness=generator.uniform(0.2, 1.1)),
        jitter=generator.uniform(0.0, 2.5),
    )
