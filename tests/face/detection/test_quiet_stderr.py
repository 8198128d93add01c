"""Native chatter is kept off the terminal, everything else comes through."""

import os
import re
import subprocess
import sys

import pytest

from latentsync.face.detection.quiet_stderr import suppress_stderr_lines

CHATTER = re.compile(rb"chatter[^\n]*\n")


def say(text: str) -> None:
    os.write(2, text.encode())


def test_only_matching_lines_are_dropped(capfd):
    with suppress_stderr_lines(CHATTER):
        say("chatter 1\nreal trouble\nbar: 10%chatter 2\n")
    say("after\n")
    assert capfd.readouterr().err == "real trouble\nbar: 10%after\n"


def test_errors_do_not_hide_what_was_said(capfd):
    with pytest.raises(RuntimeError), suppress_stderr_lines(CHATTER):
        say("cause\nchatter\n")
        raise RuntimeError
    say("after\n")
    assert capfd.readouterr().err == "cause\nafter\n"


def test_programs_without_standard_error_run_too():
    code = "import re, os; from latentsync.face.detection.quiet_stderr import suppress_stderr_lines\nos.close(2)\n"
    code += "with suppress_stderr_lines(re.compile(b'x')): print('ran')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ran\n"
