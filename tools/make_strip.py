"""Make a film strip: frames of a source video, and below them the same frames of its lip-synced version.

    python -m tools.make_strip --source me.mp4 --result outputs/me_lipsync.mp4 --out strip.jpg --crop 230 160 310 350

The crop is given in pixels of the videos. docs/evaluation.md has the command for the strip in README.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from latentsync.metrics.film_strip import StripLayout, make_strip, save_image
from tools.command import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and write the image; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="the source video")
    parser.add_argument("--truth", type=Path, help="the ground-truth video, if known; adds a row in between")
    parser.add_argument("--result", type=Path, required=True, help="the lip-synced video")
    parser.add_argument("--out", type=Path, required=True, help="the image to write (.jpg, .png)")
    parser.add_argument("--crop", type=int, nargs=4, metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"), help="in pixels")
    parser.add_argument("--columns", type=int, default=8, help="number of frames per row (%(default)s)")
    parser.add_argument("--width", type=int, default=160, help="width of a column in pixels (%(default)s)")
    parser.add_argument("--labels", action="store_true", help="label the rows")
    parser.add_argument("--quality", type=int, default=88, help="JPEG quality, 1 to 95 (%(default)s)")
    options = parser.parse_args(argv)
    rows = {"source": options.source, "truth": options.truth, "result": options.result}
    videos = {name: path for name, path in rows.items() if path is not None}

    def work() -> None:
        crop = tuple(options.crop) if options.crop else None
        layout = StripLayout(crop, options.columns, options.width, tuple(videos) if options.labels else ())
        save_image(make_strip(list(videos.values()), layout), options.out, options.quality)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
