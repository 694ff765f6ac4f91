"""Which Git command started this process: `git diff` has both sides of a file smudged, only to name what changed.

Git does not say what it wants the content for, nor what it does next, nor tell a driver of `--color`; the command line
of the nearest Git among our ancestors does. Where it cannot be known (Windows; no `ps`) the answer is that nothing is
known, and the slow and right way is taken.

Source: proc_pid_cmdline(5); ps(1) in POSIX; git(1) for the options before the command.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePath

__all__ = [
    "colours",
    "compares",
    "is_diff",
    "merges_again",
    "started_by",
    "subcommand",
    "wants_colours",
]

_COMPARING = frozenset({"diff", "show", "log"})
_WITH_VALUE = frozenset({"-C", "-c", "--git-dir", "--work-tree", "--namespace", "--config-env", "--super-prefix"})
_COLOURS = {
    **dict.fromkeys(("--color", "--color=always"), True),
    **dict.fromkeys(("--no-color", "--color=never"), False),
    "--color=auto": None,
}
_CHECKING_OUT = frozenset({"checkout", "restore", "switch"})
_MERGING = re.compile(r"-[a-zA-Z]*m|--m(?:e(?:r(?:g(?:e)?)?)?)?\Z|--conflict")
_MOST_ANCESTORS = 6
_MAX_BYTES = 2**16


def started_by() -> list[str]:
    """The command line of the nearest Git among our ancestors; empty where it cannot be known."""
    pid = os.getppid()
    for _ in range(_MOST_ANCESTORS):
        line, parent = _process(pid)
        if not line or subcommand(line) is not None:
            return line
        pid = parent
    return []


def merges_again(line: Sequence[str]) -> bool:
    """Whether a command line is that of a `git checkout -m`, or one with the same meaning."""
    return subcommand(line) in _CHECKING_OUT and any(_MERGING.match(word) for word in line[1:])


def is_diff() -> bool:
    """Whether a `git diff`, `git show` or `git log` started this process."""
    return compares(started_by())


def wants_colours() -> bool | None:
    """Whether the Git that started this process was told to use colours; None where it was not told, or not known."""
    return colours(started_by())


def colours(line: Sequence[str]) -> bool | None:
    """What a command line says of colours, the last word counting; None for nothing, or for "auto"."""
    said = None
    for word in line[1:]:
        if word == "--":
            break
        if word in _COLOURS:
            said = _COLOURS[word]
    return said


def compares(line: Sequence[str]) -> bool:
    """Whether a command line is that of a `git diff`, `git show` or `git log`."""
    return subcommand(line) in _COMPARING


def subcommand(line: Sequence[str]) -> str | None:
    """The command of Git's that a command line starts, "" for none; None where it starts something else."""
    name = PurePath(line[0]).name.removesuffix(".exe") if line else ""
    if name.startswith("git-"):
        return name.removeprefix("git-")
    if name != "git":
        return None
    words = iter(line[1:])
    for word in words:
        if not word.startswith("-"):
            return word
        if word in _WITH_VALUE:
            next(words, None)
    return ""


def _process(pid: int) -> tuple[list[str], int]:
    """The command line of a process, and its parent's id; nothing where that cannot be known."""
    if os.name == "nt":
        return [], 0
    folder = Path("/proc") / str(pid)
    try:
        with (folder / "cmdline").open("rb") as file:
            words = os.fsdecode(file.read(_MAX_BYTES)).split("\0")[:-1]
        with (folder / "stat").open("rb") as file:
            # The second field is a name in brackets, which may hold anything.
            parent = int(file.read(_MAX_BYTES).rpartition(b") ")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return _asked(pid)
    return words, parent


def _asked(pid: int) -> tuple[list[str], int]:
    """The same as ps tells it, which does not keep words with spaces in them together: a Git's that has any is lost."""
    try:
        done = subprocess.run(
            ["ps", "-o", "ppid=,args=", "-p", str(pid)], capture_output=True, check=False, timeout=5, text=True
        )
        parent, *words = done.stdout.split()
        is_told = subcommand(words) is None or not _WITH_VALUE.intersection(words)
        return words if is_told else [], int(parent)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return [], 0
