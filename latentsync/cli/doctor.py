"""Command line of the diagnostics."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from latentsync.diagnostics import can_run, diagnose, format_json, format_text


def doctor_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(description="Check what this machine can run and name what is missing.")
    parser.add_argument("--checkpoints", type=Path, help="checkpoint folder (default: the standard ones)")
    parser.add_argument("--output", type=Path, help="folder that results will be written to (default: outputs)")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    return parser


def run_doctor(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; returns the exit code: 0 if lip-sync can run with at least one set of weights, else 1."""
    options = doctor_parser().parse_args(arguments)
    findings = diagnose(options.checkpoints, options.output)
    sys.stdout.write((format_json(findings) if options.json else format_text(findings)) + "\n")
    return 0 if can_run(findings) else 1
