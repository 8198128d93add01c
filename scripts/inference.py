"""Lip-sync a video from the command line.

    python -m scripts.inference --video_path assets/demo_video.mp4 --audio_path assets/demo_speech.wav \
        --video_out_path outputs/demo.mp4

All options: ``python -m scripts.inference --help``, explained in docs/inference.md.
"""

import sys

from latentsync.cli.inference import run_inference
from latentsync.cli.program import set_program_name

if __name__ == "__main__":
    set_program_name("python -m scripts.inference")
    sys.exit(run_inference())
