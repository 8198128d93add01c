"""Make a corpus of talking heads that a program draws and speaks: aligned face clips with sound and ground truth.

    python -m tools.make_synthetic_dataset --out data/synthetic --scenes 2000 --val-scenes 64 --device cuda

Running it again with the same options goes on where it stopped. docs/data.md describes the folder.
"""

import argparse
import logging
import sys
from pathlib import Path

from tqdm import tqdm

from latentsync.errors import LatentSyncError
from latentsync.synthetic.corpus import CorpusOptions, make_corpus


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--scenes", type=int, required=True, help="scenes for training, two clips each")
    parser.add_argument("--val-scenes", "--val_scenes", type=int, default=0, help="scenes of people, words and voices "
                        "that training does not have")  # fmt: skip
    parser.add_argument("--resolution", type=int, default=256, help="side of the aligned crops in pixels")
    parser.add_argument("--seconds", type=float, default=3.2, help="length of a clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 = one for each core")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, or several: cuda:0,cuda:1")
    parser.add_argument("--whole_frames", "--whole-frames", type=int, metavar="SIZE", help="write whole frames of this "
                        "size too, before any face is found")  # fmt: skip
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        options = CorpusOptions(
            out=given.out,
            scenes=given.scenes,
            val_scenes=given.val_scenes,
            resolution=given.resolution,
            seconds=given.seconds,
            seed=given.seed,
            workers=given.workers,
            devices=tuple(given.device.split(",")),
            whole_frames=given.whole_frames,
        )
        with tqdm(total=options.scenes + options.val_scenes, unit="scene") as bar:
            report = make_corpus(options, lambda done, _: bar.update(done - bar.n))
    except LatentSyncError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for split in ("train", "val"):
        found = report[split]
        print(f"{split}: {found['clips']} clips, {found['seconds']:.0f} s, {len(found['voices'])} voices")
    return 0


if __name__ == "__main__":
    sys.exit(main())
