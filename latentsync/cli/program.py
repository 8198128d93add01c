"""The name under which the running program was called, for usage lines."""

import os
import sys


def set_program_name(name: str) -> None:
    """Have parsers that are built from here on call the program `name`.

    A shell script that starts Python exports its own name as ``LATENTSYNC_PROGRAM``, which wins.
    """
    # argparse takes the last component of this path where no name is given.
    sys.argv[0] = os.environ.pop("LATENTSYNC_PROGRAM", "") or name
