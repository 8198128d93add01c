"""``python -m latentsync``: the same as the ``latentsync`` command."""

import sys

from latentsync.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
