"""Make the demo clip and the other speech that drives it: assets/demo_video.mp4 and assets/demo_speech.wav.

Run from the repository root, where espeakng-loader is installed (a minute on two cores):

    python -m tools.make_demo_assets
"""

import argparse
import random
import tempfile
from fractions import Fraction
from pathlib import Path

from latentsync.media.video_writer import WriterOptions
from latentsync.synthetic.clip import ClipOptions, write_clip, write_wav
from latentsync.synthetic.head import HeadRenderer, HeadState
from latentsync.synthetic.identity import Identity, Scene, sample_motion
from latentsync.synthetic.speech import Utterance, join, silence, synthesize
from latentsync.synthetic.visemes import mouth_curve

FPS = Fraction(25)
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


def _fitted(utterance: Utterance, seconds: Fraction) -> Utterance:
    """Silence before and after so that the sound lasts ``seconds``."""
    spare = float(seconds) - utterance.seconds
    if spare < 0.1:
        raise SystemExit(f"The text takes {utterance.seconds:.2f} s, which leaves no pause within {float(seconds)} s.")
    return join([silence(0.4 * spare), utterance, silence(0.6 * spare)])


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("assets"))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    spoken = _fitted(synthesize(VIDEO_TEXT, "en-us+Alicia", 215, 55), VIDEO_SECONDS)
    frames = int(VIDEO_SECONDS * FPS)
    state = HeadState(
        mouth=mouth_curve(spoken.phonemes, frames, FPS),
        motion=sample_motion(frames, float(FPS), random.Random(11), 0.9, smile=0.2),
        identity=IDENTITY,
        scene=SCENE,
    )
    options = ClipOptions(size=768, fps=FPS, writer=WriterOptions(crf=18, preset="slow"))
    target: Path = arguments.folder / "demo_video.mp4"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / target.name
        write_clip(path, state, spoken, HeadRenderer(arguments.device), options)
        target.write_bytes(path.read_bytes())
    speech = _fitted(synthesize(SPEECH_TEXT, "en+Michael", 175, 40), SPEECH_SECONDS)
    write_wav(arguments.folder / "demo_speech.wav", speech.waveform)


if __name__ == "__main__":
    main()
