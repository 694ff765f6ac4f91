"""Which command of Git's a command line is."""

import pytest

from git_theta.drivers import caller


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
