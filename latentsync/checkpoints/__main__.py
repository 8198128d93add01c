"""``python -m latentsync.checkpoints``: fetch, list and verify weights files."""

import sys

from latentsync.checkpoints.registry import main

if __name__ == "__main__":
    sys.exit(main())
