"""Check what this machine can run and name what is missing, with a remedy for each finding.

    python -m scripts.doctor
    python -m scripts.doctor --json --checkpoints /data/checkpoints

Exits with 0 if lip-sync can run with at least one set of weights, else with 1.
"""

import sys

from latentsync.cli.doctor import run_doctor
from latentsync.cli.program import set_program_name

if __name__ == "__main__":
    set_program_name("python -m scripts.doctor")
    sys.exit(run_doctor())
