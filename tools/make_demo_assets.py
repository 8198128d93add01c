"""Generate the demo clip and its driving speech: assets/demo_video.mp4 and assets/demo_speech.wav.

Run from the repository root; needs espeakng-loader (a minute on two cores):

    python -m tools.make_demo_assets
"""

import argparse
import tempfile
from pathlib import Path

from latentsync.media.video_writer import WriterOptions
from latentsync.synthetic.clip import ClipFormat, write_clip, write_wav
from latentsync.synthetic.demo_scene import FPS, SIZE, demo_speech, demo_video
from latentsync.synthetic.head.renderer import HeadRenderer


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("assets"))
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    state, spoken = demo_video()
    options = ClipFormat(size=SIZE, fps=FPS, writer=WriterOptions(crf=18, preset="slow"))
    target: Path = arguments.folder / "demo_video.mp4"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / target.name
        write_clip(path, state, spoken, HeadRenderer(arguments.device), options)
        target.write_bytes(path.read_bytes())
    write_wav(arguments.folder / "demo_speech.wav", demo_speech().waveform)


if __name__ == "__main__":
    main()
