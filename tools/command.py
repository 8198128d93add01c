"""Shared helpers of the command-line tools."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from latentsync.cli.inference import inference_parser
from latentsync.errors import LatentSyncError


def exit_code(work: Callable[[], object]) -> int:
    """Run ``work`` and return the exit code: 0, or 1 with a message on standard error for a `LatentSyncError`."""
    try:
        work()
    except LatentSyncError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def with_inference_options(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    work: Callable[[argparse.Namespace, argparse.Namespace], object],
) -> int:
    """Run a tool that accepts the options of inference in addition to its own.

    Args:
        parser: parser of the tool's own options.
        argv: command line; None uses that of the process.
        work: called with the tool's options and the inference options.

    Returns:
        The exit code.
    """
    tool_args, rest = parser.parse_known_args(argv)
    options = inference_parser().parse_args(rest)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return exit_code(lambda: work(tool_args, options))
