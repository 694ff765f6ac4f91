"""A disk that is full or cannot be written to, while objects are fetched and files are written."""

import pytest

from git_theta.errors import RepositoryError, SpaceError
from tests.checkpoints import leftovers, linux_only
from tests.confined import NO_OVERRIDE, SMALL_FILES, TINY_FILES, run_confined
from tests.sites import A, B
from tests.transfer.histories import THETA, History
from tests.transfer.kills import whole
from tests.transfer.servers import FaultyServer


@linux_only
@pytest.mark.parametrize(
    ("verb", "limit", "where"),
    [("fetch", TINY_FILES, ".git/theta"), ("pull", TINY_FILES, ".git/theta"), ("pull", SMALL_FILES, "")],
    ids=["fetch", "pull", "checkout"],
)
def test_full_disk(history: History, server: FaultyServer, verb: str, limit: str, where: str) -> None:
    """Either the objects do not fit, or the files."""
    server.objects.update({path.name: path.read_bytes() for path in history.repo.objects()})
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    code, stderr, lines = run_confined(repo, limit, THETA, verb)
    assert code == SpaceError.exit_code
    assert f"{repo.path / where}: no space left (" in lines[0], stderr
    assert lines[0].endswith("free some and try again")
    here = whole(repo.path / ".git" / "theta")
    assert here == history.objects(2) if limit == SMALL_FILES else here < history.objects(2)
    assert leftovers(repo.path / ".git" / "theta") == []
    assert [repo.read(name) for name in (A, B)] == [history.texts[name, 2] for name in (A, B)]
    repo.ok("pull")
    history.assert_true(repo, 2)


@linux_only
@pytest.mark.parametrize("verb", ["fetch", "pull"])
@pytest.mark.parametrize("what", ["theta", "theta/objects", "theta/tmp"])
def test_read_only_store(history: History, verb: str, what: str) -> None:
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    folder = repo.path / ".git" / what
    folder.mkdir(exist_ok=True)
    folder.chmod(0o555)
    code, stderr, lines = run_confined(repo, NO_OVERRIDE, THETA, verb)
    folder.chmod(0o755)
    assert code == RepositoryError.exit_code
    assert lines[0] == f"git-theta: {folder}: it cannot be written to; check its owner and permissions", stderr
    assert whole(repo.path / ".git" / "theta") == set()
    assert [repo.read(name) for name in (A, B)] == [history.texts[name, 2] for name in (A, B)]
    repo.ok("pull")
    history.assert_true(repo, 2)


@linux_only
def test_checkout_needs_no_folder_for_temporary_files(history: History) -> None:
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    repo.ok("fetch")
    folder = repo.path / ".git" / "theta" / "tmp"
    folder.chmod(0o555)
    code, stderr, _ = run_confined(repo, NO_OVERRIDE, THETA, "pull")
    folder.chmod(0o755)
    assert code == 0, stderr
    history.assert_true(repo, 2)
