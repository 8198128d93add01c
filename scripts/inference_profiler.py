"""Show where the time of one lip-sync goes.

    python -m scripts.inference_profiler --preset demo --preview 1 --out outputs/profile

All options: ``python -m scripts.inference_profiler --help``, explained in docs/profiling.md.
"""

import sys

from latentsync.cli.profile import run_profiler
from latentsync.cli.program import set_program_name

if __name__ == "__main__":
    set_program_name("python -m scripts.inference_profiler")
    sys.exit(run_profiler())
