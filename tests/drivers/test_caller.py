"""Which command of Git's a command line is."""

import ast
import os
import subprocess
import sys

import pytest

from git_theta.drivers import caller
from tests.git.test_interruption import posix_only
from tests.repositories import Repo


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (["git", "diff", "HEAD"], "diff"),
        (["/usr/bin/git", "-C", "a b", "-c", "x=diff", "--no-pager", "log", "-p"], "log"),
        (["git", "--git-dir=/diff", "show"], "show"),
        (["git", "--git-dir", "diff", "archive"], "archive"),
        (["/usr/lib/git-core/git-show", "x"], "show"),
        (["C:\\git.exe"], None),
        (["git.exe", "diff"], "diff"),
        (["git"], ""),
        (["git", "-C"], ""),
        (["sh", "-c", "git diff"], None),
        ([], None),
    ],
)
def test_the_command_of_a_command_line(line: list[str], command: str | None) -> None:
    assert caller.subcommand(line) == command
    assert caller.compares(line) == (command in {"diff", "show", "log"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["git", "diff"], None),
        (["git", "diff", "--color"], True),
        (["git", "log", "-p", "--no-color", "--color=always"], True),
        (["git", "diff", "--color=never"], False),
        (["git", "diff", "--no-color", "--color=auto"], None),
        (["git", "diff", "--", "--color"], None),
        ([], None),
    ],
)
def test_what_a_command_line_says_of_colours(line: list[str], said: bool | None) -> None:
    assert caller.colours(line) is said


@pytest.mark.parametrize(
    ("line", "is_said"),
    [
        (["git", "checkout", "-m", "--", "a.st"], True),
        (["git", "switch", "-qm", "other"], True),
        (["git", "restore", "--merge", "a.st"], True),
        (["git", "checkout", "--me", "a.st"], True),
        (["git", "checkout", "--conflict=diff3", "a.st"], True),
        (["git", "checkout", "--ours", "a.st"], False),
        (["git", "restore", "--overlay", "a.st"], False),
        (["git", "merge", "-m", "a message", "other"], False),
        ([], False),
    ],
)
def test_what_a_command_line_says_of_merging_again(line: list[str], is_said: bool) -> None:
    assert caller.merges_again(line) == is_said


@posix_only
def test_the_nearest_git_started_a_process() -> None:
    script = f"{sys.executable} -c 'from git_theta.drivers import caller; print(caller.started_by())'"
    words = ["git", "-c", f"alias.said=!{script}", "said"]
    done = subprocess.run(words, capture_output=True, check=True, text=True)
    assert ast.literal_eval(done.stdout) == words


@posix_only
@pytest.mark.parametrize(("words", "is_known"), [(("--no-pager",), True), (("-C", "."), False)])
def test_a_line_of_which_ps_may_have_lost_what_belongs_together(repo: Repo, words: list[str], is_known: bool) -> None:
    line = ["git", *words, "cat-file", "--batch"]  # waits for what it is to say
    with subprocess.Popen(line, cwd=repo.path, stdin=subprocess.PIPE) as process:
        assert caller._asked(process.pid) == (line if is_known else [], os.getpid())
