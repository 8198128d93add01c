"""The people of a corpus: random identities, speakers and settings, split into training and held-out.

Held-out people have base faces that never occur in training and proportions from a region of the shape space that
training leaves out. Voices and words are disjoint as well.
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
"""Voice variants used by held-out clips only."""

HELD_OUT_FACES: tuple[str, ...] = ("collins_50", "hopper_25")
"""Base faces used by held-out clips only."""

_ENGLISH_PROB = 0.7


@dataclass(frozen=True)
class Speaker:
    """How a person talks.

    Attributes:
        voice: espeak-ng language and variant.
        speed: words per minute.
        pitch: 0 to 100.
        style: scale of the mouth opening, 1 = normal.
    """

    voice: str
    speed: int
    pitch: int
    style: float


@dataclass(frozen=True)
class Setting:
    """Everything that the takes of one scene have in common.

    Attributes:
        identity: the person.
        scene: light, background and camera.
        motion: (t, 9) head motion.
        jitter: standard deviation of the alignment error in pixels of the 768-pixel frame.
    """

    identity: Identity
    scene: Scene
    motion: FloatArray
    jitter: float


def sample_speaker(generator: random.Random, split: Split) -> Speaker:
    """Sample a random speaker of ``split``."""
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
    """Synthesize at least ``seconds`` of a speaker's speech, with random pauses.

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
    """Whether the proportions are held out from training: long faces with wide noses, a quarter of all people."""
    deviations = [identity.shape.get(name, 0.0) / shape_spread(name) for name in ("face_length", "nose_width")]
    return sum(deviations) > 1.0


def sample_person(generator: random.Random, split: Split) -> Identity:
    """Sample a random person of ``split``; fine texture, which no network can predict, is kept weak."""
    held_out = split == "held_out"
    while True:
        person = sample_identity(generator)
        if is_held_out_shape(person) == held_out:
            break
    faces = HELD_OUT_FACES if held_out else tuple(name for name in BLENDS if name not in HELD_OUT_FACES)
    face = generator.choice(faces)
    # Under a cap, little hair is visible and most of it is in shadow: a bright hair color would make the shadow glow.
    hair = person.hair if face.startswith("collins") else _darken(person.hair)
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


def _darken(color: Color | None) -> Color | None:
    """Scale a color so that no channel exceeds 0.3."""
    if color is None:
        return None
    scale = min(1.0, 0.3 / max(color))
    return color[0] * scale, color[1] * scale, color[2] * scale


def _sample_mixing(generator: random.Random) -> tuple[Color, Color, Color]:
    """Sample a color matrix near the identity that maps grey to itself."""
    rows = []
    for channel in range(3):
        row = [generator.gauss(0, 0.025) for _ in range(3)]
        row[channel] += 1 - sum(row)
        rows.append((row[0], row[1], row[2]))
    return rows[0], rows[1], rows[2]


def sample_person_scene(generator: random.Random, person: Identity) -> Scene:
    """Sample light, background and camera, with the exposure matched to the skin; camera noise is rare and weak."""
    skin = sum(person.skin) / 3 if person.skin else 0.6
    exposure = generator.uniform(0.8, 1.0) * math.sqrt(0.6 / max(0.25, skin))
    return replace(
        sample_scene(generator),
        exposure=min(exposure, 1.4),
        tone=generator.uniform(-0.25, 0.25),
        mixing=_sample_mixing(generator),
        blur=generator.uniform(0.3, 0.8) if generator.random() < 0.3 else 0.0,
        noise=generator.uniform(0.0, 0.01) if generator.random() < 0.2 else 0.0,
    )


def sample_setting(generator: random.Random, split: Split, num_frames: int, fps: float) -> Setting:
    """Sample a random person of ``split`` in a random scene, with head motion."""
    person = sample_person(generator, split)
    return Setting(
        identity=person,
        scene=sample_person_scene(generator, person),
        motion=sample_motion(num_frames, fps, generator, liveliness=generator.uniform(0.2, 1.1)),
        jitter=generator.uniform(0.0, 2.5),
    )
