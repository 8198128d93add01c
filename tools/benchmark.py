"""Measure the end-to-end speed of a model from file to file, and compare it with an earlier measurement.

    python -m tools.benchmark --preset demo --out outputs/before.json
    python -m tools.benchmark --preset demo --compare outputs/before.json

All options: ``python -m tools.benchmark --help``, explained in docs/benchmarks.md.
"""

import sys

from latentsync.cli.bench import run_benchmark
from latentsync.cli.program import set_program_name

if __name__ == "__main__":
    set_program_name("python -m tools.benchmark")
    sys.exit(run_benchmark())
