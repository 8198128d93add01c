"""What the command lines of this folder share."""

import sys
from collections.abc import Callable

from latentsync.errors import LatentSyncError


def exit_code(work: Callable[[], object]) -> int:
    """Do the work of a command line: 0, or 1 with a line on standard error after a mistake that a user can mend."""
    try:
        work()
    except LatentSyncError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0
