"""Measure the throughput of the training data loader by number of workers; prints JSON.

    python -m tools.benchmark_loader --data CORPUS/train --kind unet --batch 8 --workers 0 2 4 8

In the first epoch, the loader also inspects every clip and fills the caches. To measure later epochs, give cache
folders filled by an earlier run.
"""

import argparse
import dataclasses
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from latentsync.data.clip_dataset import ClipDataset, ClipDatasetOptions
from latentsync.data.clips.clip_list import list_clips
from latentsync.data.loader import BatchLoader, LoaderOptions
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.data.unet_dataset import UNetDataset, UNetSampling


def main() -> None:
    """Run the measurement and print the report."""
    arguments = parse_arguments()
    dataset = make_dataset(arguments)
    rows = [measure(dataset, arguments, workers) for workers in arguments.workers]
    report = {
        "kind": arguments.kind,
        "resolution": arguments.resolution,
        "frames": arguments.frames,
        "batch": arguments.batch,
        "clips": len(dataset.clips),
        "processors": len(os.sched_getaffinity(0)),
        "runs": rows,
    }
    print(json.dumps(report, indent=2))


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of aligned clips, searched recursively")
    parser.add_argument("--fileslist", type=Path, help="list of clips, one path per line; takes precedence over --data")
    parser.add_argument("--kind", choices=("unet", "syncnet"), default="unet")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--frames", type=int, default=16, help="frames per window")
    parser.add_argument("--batch", type=int, default=8, help="samples per batch")
    parser.add_argument("--batches", type=int, default=30, help="timed batches for each number of workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="numbers of workers to measure")
    parser.add_argument("--with-mel", action="store_true", help="load the SyncNet mel for the U-Net too")
    parser.add_argument("--paired-takes", action="store_true", help="use the clip's other take as source")
    parser.add_argument("--mel-cache", type=Path)
    parser.add_argument("--clip-info-cache", type=Path)
    return parser.parse_args()


def make_dataset(arguments: argparse.Namespace) -> ClipDataset[Any]:
    """Build the dataset, with epochs long enough for the measurement."""
    clips = list_clips(arguments.fileslist, arguments.data)
    num_samples = arguments.batch * (arguments.batches + 1 + 2 * max(arguments.workers))
    options = ClipDatasetOptions(
        num_frames=arguments.frames,
        resolution=arguments.resolution,
        windows_per_clip=-(-num_samples // len(clips)),
        mel_cache=arguments.mel_cache,
        clip_info_cache=arguments.clip_info_cache,
    )
    if arguments.kind == "syncnet":
        return SyncNetDataset(clips, options)
    return UNetDataset(clips, options, UNetSampling(arguments.with_mel, arguments.paired_takes))


def measure(dataset: ClipDataset[Any], arguments: argparse.Namespace, workers: int) -> dict[str, Any]:
    """Throughput of the running loader, excluding the batches that its workers prefetched."""
    options = LoaderOptions(arguments.batch, workers=workers)
    loader: BatchLoader[Any] = BatchLoader(dataset, options)
    batches = loader.batches(0, 0)
    started = time.perf_counter()
    next(batches)
    first_batch_seconds = time.perf_counter() - started
    for _ in itertools.islice(batches, workers * options.prefetch):
        pass
    started = time.perf_counter()
    count = sum(1 for _ in itertools.islice(batches, arguments.batches))
    seconds = time.perf_counter() - started
    loader.close()
    return {
        **{key: value for key, value in dataclasses.asdict(options).items() if key in ("workers", "prefetch")},
        "first_batch_seconds": round(first_batch_seconds, 3),
        "samples_per_second": round(count * arguments.batch / seconds, 2),
        "milliseconds_per_sample": round(1000 * seconds / (count * arguments.batch), 2),
        "unusable_clips": len(loader.problems()),
    }


if __name__ == "__main__":
    main()
