"""Matching stderr lines are suppressed, all other output passes through."""

import os
import re
import subprocess
import sys

import pytest

from latentsync.face.detection.quiet_stderr import suppress_stderr_lines

CHATTER = re.compile(rb"chatter[^\n]*\n")


def write_stderr(text: str) -> None:
    os.write(2, text.encode())


def test_only_matching_lines_are_dropped(capfd):
    with suppress_stderr_lines(CHATTER):
        write_stderr("chatter 1\nreal trouble\nbar: 10%chatter 2\n")
    write_stderr("after\n")
    assert capfd.readouterr().err == "real trouble\nbar: 10%after\n"


def test_output_is_kept_when_the_block_raises(capfd):
    with pytest.raises(RuntimeError), suppress_stderr_lines(CHATTER):
        write_stderr("cause\nchatter\n")
        raise RuntimeError
    write_stderr("after\n")
    assert capfd.readouterr().err == "cause\nafter\n"


def test_works_without_stderr():
    code = "import re, os; from latentsync.face.detection.quiet_stderr import suppress_stderr_lines\nos.close(2)\n"
    code += "with suppress_stderr_lines(re.compile(b'x')): print('ran')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ran\n"
