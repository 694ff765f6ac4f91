"""Ctrl-C while a program is still being imported."""

import signal
import subprocess
import sys

import pytest

from tests.checkpoints import linux_only

CODE = """
import os, signal, sys
sys.argv = [{name!r}]
signal.signal(signal.SIGINT, {before})
from git_theta import quiet
if {over}:
    quiet.over()
try:
    os.kill(os.getpid(), signal.SIGINT)
    print("went on")
except KeyboardInterrupt:
    print("KeyboardInterrupt")
"""
OURS = "/usr/bin/git-theta"
PYTHONS = "signal.default_int_handler"


@linux_only
@pytest.mark.parametrize(
    ("name", "before", "over", "code", "said"),
    [
        (OURS, PYTHONS, False, -signal.SIGINT, ""),
        ("git-theta-filter", PYTHONS, False, -signal.SIGINT, ""),
        (OURS, PYTHONS, True, 0, "KeyboardInterrupt"),
        (OURS, "signal.SIG_IGN", False, 0, "went on"),
        (OURS, "signal.SIG_IGN", True, 0, "went on"),
        ("pytest", PYTHONS, False, 0, "KeyboardInterrupt"),
    ],
)
def test_an_interrupt_ends_a_program_quietly(name: str, before: str, over: bool, code: int, said: str) -> None:
    source = CODE.format(name=name, before=before, over=over)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (code, said, "")
