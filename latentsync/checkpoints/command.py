"""Command line of the weights registry: fetch, verify and list checkpoints."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from latentsync.checkpoints.folders import default_root
from latentsync.checkpoints.registry import BUNDLED, CHECKPOINTS, GROUPS, VAE_FOLDERS, fetch, find, verify
from latentsync.errors import CheckpointError

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the command line and return its exit code: 0, or 1 after a failed download or check.

    Args:
        arguments: ``fetch``, ``verify`` or ``list`` and its options; None takes those of the process.
        prog: program name for usage lines; None takes the name of the process.
    """
    options = checkpoints_parser(prog).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("latentsync").setLevel(logging.INFO)
    try:
        return _run(options)
    except CheckpointError as error:
        logger.error("%s", error)
        return 1


def checkpoints_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of all three commands."""
    parser = argparse.ArgumentParser(prog=prog, description="Fetch, verify and list weights files.")
    _add_folder(parser, default_root())
    commands = parser.add_subparsers(dest="command", required=True)
    files = f"groups ({', '.join(GROUPS)}) or files, see the command list"
    fetching = commands.add_parser("fetch", help="download missing files", description="Download missing files.")
    fetching.add_argument("names", nargs="+", help=files)
    fetching.add_argument("--endpoint", help="address of the Hugging Face hub or a mirror (HF_ENDPOINT)")
    fetching.add_argument("--unverified", action="store_true", help="accept files whose checksum differs")
    checking = commands.add_parser("verify", help="compare checksums", description="Compare checksums.")
    checking.add_argument("names", nargs="+", help=files)
    listing = commands.add_parser("list", help="show every file and its location", description="Show every file.")
    for command in (fetching, checking, listing):
        _add_folder(command, argparse.SUPPRESS)
    return parser


def _add_folder(parser: argparse.ArgumentParser, default: Path | str) -> None:
    """The option of the checkpoint folder, which may stand before and after the command."""
    text = f"checkpoint folder; default: the standard folders, downloads go to {default_root()}"
    parser.add_argument("--checkpoints", "--root", dest="root", type=Path, default=default, metavar="FOLDER", help=text)


def _run(options: argparse.Namespace) -> int:
    if options.command == "fetch":
        from latentsync.checkpoints.download import DownloadOptions

        fetch(options.names, options.root, options.endpoint, DownloadOptions(verify=not options.unverified))
        return 0
    if options.command == "list":
        _list_all(options.root)
        return 0
    problems = verify(options.names, options.root)
    for problem in problems:
        logger.error("%s", problem)
    return int(bool(problems))


def _list_all(root: Path) -> None:
    for group, members in GROUPS.items():
        logger.info("%s: %s", group, ", ".join(members))
    for name in (*CHECKPOINTS, *VAE_FOLDERS, *BUNDLED):
        details = f"{CHECKPOINTS[name].purpose}; licence: {CHECKPOINTS[name].licence}" if name in CHECKPOINTS else ""
        logger.info("%-20s %s  %s", name, find(name, root) or "missing", details)
