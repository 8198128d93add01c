"""``python -m latentsync.checkpoints``: fetch, list and verify weights files."""

import sys

from latentsync.checkpoints.command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m latentsync.checkpoints"))
