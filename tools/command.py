"""What the command lines of this folder share."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from latentsync.cli.inference import inference_parser
from latentsync.errors import LatentSyncError


def exit_code(work: Callable[[], object]) -> int:
    """Do the work of a command line: 0, or 1 with a line on standard error after a mistake that a user can mend."""
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
    """Do the work of a command that has its own options beside those of inference; both are handed to it."""
    tool_args, rest = parser.parse_known_args(argv)
    options = inference_parser().parse_args(rest)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return exit_code(lambda: work(tool_args, options))
