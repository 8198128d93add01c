"""Draw the images of the documentation into docs/images.

    python -m tools.draw_docs_images                       # all diagrams, in seconds
    python -m tools.draw_docs_images architecture          # after a package was added or imports changed
    python -m tools.draw_docs_images walkthrough           # runs one window through the bundled model
    python -m tools.draw_docs_images animation --side_by_side outputs/demo.mp4

The animation is made from a finished video: ./inference.sh --preset demo --side_by_side
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from latentsync.errors import ConfigError
from latentsync.runtime.resources import REPOSITORY
from tools.command import exit_code
from tools.docs_images.architecture import draw_architecture
from tools.docs_images.diagrams import draw_pipeline, draw_training, draw_windows
from tools.docs_images.speed import draw_speed

_FACE = (225, 150, 320, 370)  # left, top, width and height of the bundled clip's face
_WINDOW, _SHOWN = 48, 7  # the source's mouth is open there, the speech's is nearly closed

DIAGRAMS: dict[str, Callable[[Path], None]] = {
    "architecture": lambda out: draw_architecture(REPOSITORY / "pyproject.toml", out / "architecture.svg"),
    "pipeline": lambda out: draw_pipeline(out / "pipeline.svg"),
    "windows": lambda out: draw_windows(out / "windows.svg"),
    "training": lambda out: draw_training(out / "training_stages.svg"),
    "speed": lambda out: draw_speed(REPOSITORY / "docs", out / "speed_quality.svg"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and draw; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*DIAGRAMS, "walkthrough", "animation"]
    parser.add_argument("images", nargs="*", help=f"any of {', '.join(names)}; default: all diagrams")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "images", help="folder (%(default)s)")
    parser.add_argument("--side_by_side", type=Path, help="for the animation: a result made with --side_by_side")
    parser.add_argument("--checkpoints", type=Path, default=REPOSITORY / "checkpoints", help="folder (%(default)s)")
    options = parser.parse_args(argv)

    def work() -> None:
        chosen = options.images or list(DIAGRAMS)
        unknown = sorted(set(chosen).difference(names))
        if unknown:
            raise ConfigError(f"There is no image called {', '.join(unknown)}; choose from {', '.join(names)}")
        if "animation" in chosen and options.side_by_side is None:
            raise ConfigError("The animation is made from a finished video: give it with --side_by_side PATH")
        options.out.mkdir(parents=True, exist_ok=True)
        for name in chosen:
            if name in DIAGRAMS:
                DIAGRAMS[name](options.out)
            else:
                _draw_from_video(name, options)

    return exit_code(work)


def _draw_from_video(name: str, options: argparse.Namespace) -> None:
    from tools.docs_images.walkthrough import draw_animation, draw_walkthrough, walk  # loads torch and the detector

    if name == "animation":
        draw_animation(options.side_by_side, options.out / "demo.gif", _FACE)
        return
    assets = REPOSITORY / "assets"
    steps = walk(assets / "demo_video.mp4", assets / "demo_speech.wav", options.checkpoints, _WINDOW, _SHOWN)
    draw_walkthrough(steps, options.out / "walkthrough.jpg")


if __name__ == "__main__":
    sys.exit(main())
