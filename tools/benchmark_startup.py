"""Measure how long commands take to start: wall-clock and CPU time, medians of several processes.

    python -m tools.benchmark_startup --repeats 5

CPU time (user and system, all threads) is what to compare on a machine that does other work meanwhile.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from latentsync.runtime.resources import REPOSITORY

_LOAD = """
from latentsync.cli.inference import inference_parser, load_pipeline, select_files
options = inference_parser().parse_args(["--preset", "demo", "--device", "cpu"])
load_pipeline(options, select_files(options))
"""
_MISSING = ("--video_path", "gone.mp4", "--audio_path", "gone.wav", "--video_out_path", "out.mp4")
_PYTHON = (sys.executable, "-m")
COMMANDS = {
    "--help": (*_PYTHON, "scripts.inference", "--help"),
    "refusing a missing file": (*_PYTHON, "scripts.inference", *_MISSING),
    "doctor": (*_PYTHON, "scripts.doctor"),
    "import torch (for comparison)": (sys.executable, "-c", "import torch"),
    "demo model loaded": (sys.executable, "-c", _LOAD),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a Markdown table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed processes per command (%(default)s)")
    options = parser.parse_args(argv)
    print("| command | wall-clock | CPU |\n|---|---|---|")
    for name, command in COMMANDS.items():
        measure(command)  # fills the caches of the file system
        runs = [measure(command) for _ in range(options.repeats)]
        wall, cpu = (statistics.median(each) for each in zip(*runs))
        print(f"| {name} | {wall:.2f} s | {cpu:.2f} s |", flush=True)
    return 0


def measure(command: Sequence[str]) -> tuple[float, float]:
    """Seconds of wall-clock time and of CPU time that one process of a command takes."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        subprocess.run(command, cwd=Path(folder), env=environment, capture_output=True, check=False)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main())
