"""Say what this machine can run and what is missing, with what to do about each thing.

    python -m scripts.doctor
    python -m scripts.doctor --json --checkpoints /data/checkpoints

Ends with exit code 0 when lip-sync can run with at least one set of weights, else 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from latentsync.diagnostics import can_run, diagnose, format_json, format_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description="Say what this machine can run and what is missing.")
    parser.add_argument("--checkpoints", type=Path, help="checkpoint folder (default: that of this repository)")
    parser.add_argument("--output", type=Path, help="folder results will be written into (default: outputs)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    options = parser.parse_args(arguments)
    findings = diagnose(options.checkpoints, options.output)
    print(format_json(findings) if options.json else format_text(findings))
    return 0 if can_run(findings) else 1


if __name__ == "__main__":
    sys.exit(main())
