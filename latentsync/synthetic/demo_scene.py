"""The scene of the bundled clip and the speech that drives it, so that both can be made again and judged."""

import random
from fractions import Fraction

from latentsync.errors import ConfigError
from latentsync.synthetic.head.appearance import Identity, Scene, sample_motion
from latentsync.synthetic.head.renderer import HeadState
from latentsync.synthetic.speech.tts import Utterance, join, silence, synthesize
from latentsync.synthetic.speech.visemes import mouth_curve

FPS = Fraction(25)
SIZE = 768
VIDEO_SECONDS = Fraction(24, 5)
SPEECH_SECONDS = Fraction(22, 5)
VIDEO_TEXT = "Hello! Nobody filmed me. A program made my picture, and a machine my voice."
SPEECH_TEXT = "Good morning, everybody! My mouth now moves with the words of a man."
IDENTITY = Identity(
    portrait="collins",
    shape={
        "face_width": -0.03,
        "chin": 0.02,
        "lip_upper": 0.45,
        "lip_lower": 0.3,
        "eye_size": 0.06,
        "nose_width": -0.1,
    },
    skin=(0.77, 0.59, 0.50),
    lips=(0.74, 0.47, 0.43),
    hair=(0.24, 0.15, 0.10),
    clothes=(0.95, 0.95, 0.95),
    grain=0.015,
)
SCENE = Scene(
    light=(0.6, -0.2),
    light_strength=0.18,
    background="plain",
    background_colours=((0.55, 0.60, 0.62), (0.78, 0.78, 0.74)),
    noise=0.004,
    seed=5,
)


def demo_video() -> tuple[HeadState, Utterance]:
    """What ``assets/demo_video.mp4`` shows, 120 frames, and says. Raises DependencyError without espeakng-loader."""
    spoken = _fitted(synthesize(VIDEO_TEXT, "en-us+Alicia", 215, 55), VIDEO_SECONDS)
    frames = int(VIDEO_SECONDS * FPS)
    state = HeadState(
        mouth=mouth_curve(spoken.phonemes, frames, FPS),
        motion=sample_motion(frames, float(FPS), random.Random(11), 0.9, smile=0.2),
        identity=IDENTITY,
        scene=SCENE,
    )
    return state, spoken


def demo_speech() -> Utterance:
    """What ``assets/demo_speech.wav`` says. Raises DependencyError without espeakng-loader."""
    return _fitted(synthesize(SPEECH_TEXT, "en+Michael", 175, 40), SPEECH_SECONDS)


def _fitted(utterance: Utterance, seconds: Fraction) -> Utterance:
    """Silence before and after so that the sound lasts ``seconds``."""
    spare = float(seconds) - utterance.seconds
    if spare < 0.1:
        raise ConfigError(f"The text takes {utterance.seconds:.2f} s, which leaves no pause within {float(seconds)} s.")
    return join([silence(0.4 * spare), utterance, silence(0.6 * spare)])
