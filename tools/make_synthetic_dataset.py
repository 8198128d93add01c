"""Generate a corpus of synthetic talking heads: aligned face clips with audio and ground truth.

    python -m tools.make_synthetic_dataset --out data/synthetic --scenes 2000 --val-scenes 64 --device cuda

Running it again with the same options resumes an interrupted run. docs/data.md describes the folder.
"""

import argparse
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from latentsync.errors import LatentSyncError
from latentsync.synthetic.corpus import CorpusOptions, make_corpus


def main() -> int:
    """Parse the command line and generate the corpus; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--scenes", type=int, required=True, help="training scenes, two clips each")
    parser.add_argument("--val-scenes", "--val_scenes", type=int, default=0, help="validation scenes, with held-out "
                        "people, words and voices")  # fmt: skip
    parser.add_argument("--resolution", type=int, default=256, help="side of the aligned crops in pixels")
    parser.add_argument("--seconds", type=float, default=3.2, help="duration of a clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="number of processes; 0 = one per core")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or several: cuda:0,cuda:1")
    parser.add_argument("--whole_frames", "--whole-frames", type=int, metavar="SIZE", help="also write full, uncropped "
                        "frames with this side in pixels")  # fmt: skip
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        options = CorpusOptions(
            out=arguments.out,
            scenes=arguments.scenes,
            val_scenes=arguments.val_scenes,
            resolution=arguments.resolution,
            seconds=arguments.seconds,
            seed=arguments.seed,
            workers=arguments.workers,
            devices=tuple(arguments.device.split(",")),
            whole_frames=arguments.whole_frames,
        )
        with tqdm(total=options.scenes + options.val_scenes, unit="scene") as bar:
            report = make_corpus(options, lambda done, _: bar.update(done - bar.n))
    except LatentSyncError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for split in ("train", "val"):
        totals = report[split]
        print(f"{split}: {totals['clips']} clips, {totals['seconds']:.0f} s, {len(totals['voices'])} voices")
    return 0


if __name__ == "__main__":
    sys.exit(main())
