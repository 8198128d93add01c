"""The scene of the bundled demo clip and its driving speech, so that both can be regenerated and evaluated."""

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
    """Head state (120 frames) and speech of ``assets/demo_video.mp4``.

    Raises:
        DependencyError: espeakng-loader is missing.
    """
    spoken = _pad_to(synthesize(VIDEO_TEXT, "en-us+Alicia", 215, 55), VIDEO_SECONDS)
    num_frames = int(VIDEO_SECONDS * FPS)
    state = HeadState(
        mouth=mouth_curve(spoken.phonemes, num_frames, FPS),
        motion=sample_motion(num_frames, float(FPS), random.Random(11), 0.9, smile=0.2),
        identity=IDENTITY,
        scene=SCENE,
    )
    return state, spoken


def demo_speech() -> Utterance:
    """Speech of ``assets/demo_speech.wav``.

    Raises:
        DependencyError: espeakng-loader is missing.
    """
    return _pad_to(synthesize(SPEECH_TEXT, "en+Michael", 175, 40), SPEECH_SECONDS)


def _pad_to(utterance: Utterance, seconds: Fraction) -> Utterance:
    """Pad with silence at both ends to a duration of ``seconds``."""
    padding = float(seconds) - utterance.seconds
    if padding < 0.1:
        raise ConfigError(
            f"The spoken text lasts {utterance.seconds:.2f} s, which leaves less than 0.1 s of silence within "
            f"{float(seconds)} s; shorten the text or raise its speed."
        )
    return join([silence(0.4 * padding), utterance, silence(0.6 * padding)])
