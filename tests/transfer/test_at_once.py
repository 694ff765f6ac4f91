"""Two commands at once in one repository: each does its work, or says that the other was faster."""

import os
import signal

import pytest

from git_theta.errors import ChangedError, RepositoryError
from tests.sites import A, B
from tests.transfer.histories import OLD, THETA, Far, History, Spare, content
from tests.transfer.kills import Command, named_missing, whole

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to kill")


@pytest.mark.parametrize(
    ("command", "paths"),
    [("add", (A, A)), ("add", (A, B)), ("hash-object -w", (A, A))],
    ids=["same file", "two files", "same content"],
)
def test_two_adds_at_once(history: History, command: str, paths: tuple[str, str]) -> None:
    """Only one can hold the index; but nothing parts two that clean content for themselves."""
    repo = history.repo
    repo.git("reset", "--quiet", "--hard", "v1")
    for path in repo.objects():
        if path.name not in history.objects(1):
            path.unlink()
    for name in (A, B):
        repo.write(name, content(name, 2))
    running = [Command(repo, ["git", *command.split(), path]) for path in paths]
    ended = [started.end() for started in running]
    assert any(code == 0 for code, _ in ended)
    assert all(command == "add" and "index.lock" in said for code, said in ended if code)
    whole(history.theta)
    repo.git("add", A, B)
    assert whole(history.theta) == history.objects(1, 2)
    for name in (A, B):
        (repo.path / name).unlink()
    repo.git("checkout", "--quiet", "--", ".")
    history.assert_true(repo, 2)


def test_two_fetches_at_once(history: History, far: Far) -> None:
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    for command in [Command(repo, [THETA, "fetch"]), Command(repo, [THETA, "fetch"])]:
        code, said = command.end()
        assert code == 0, said
    assert whole(repo.path / ".git" / "theta") == history.objects(2)


def test_two_pulls_at_once(history: History) -> None:
    """Each file is written by one of them; the other says that it changed, or that the index is locked."""
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    for command in [Command(repo, [THETA, "pull"]), Command(repo, [THETA, "pull"])]:
        code, said = command.end()
        assert code == 0 or "run this again" in said or "index.lock" in said
        assert code in (0, ChangedError.exit_code, RepositoryError.exit_code)
    repo.ok("pull")
    history.assert_true(repo, 2)


def test_two_prunes_at_once(spare: Spare) -> None:
    repo = spare.history.repo
    for command in [Command(repo, [THETA, "prune", "--force"]), Command(repo, [THETA, "prune", "--force"])]:
        code, said = command.end()
        assert code == 0, said
    assert not any(path.exists() for path in spare.paths)
    assert named_missing(repo) == set()


def test_add_during_a_prune_keeps_what_it_takes_into_use(spare: Spare) -> None:
    history, repo = spare.history, spare.history.repo
    for path in repo.objects():
        os.utime(path, OLD)
    for name in (A, B):
        repo.write(name, content(name, 2))
    prune = spare.wait_for_prune()
    prune.signal(signal.SIGSTOP)
    repo.git("add", ".")
    prune.signal(signal.SIGCONT)
    code, said = prune.end()
    assert code == 0, said
    for name in (A, B):
        (repo.path / name).unlink()
    repo.git("checkout", "--quiet", "--", ".")
    assert named_missing(repo) == set()
    history.assert_true(repo, 2)
