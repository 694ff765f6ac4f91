"""A merge computed by torch, where `theta.merge.device` says so."""

from tests.git.test_merge import MERGED, NAME, OURS, THEIRS, branched, content
from tests.repositories import Repo


def test_torch_merges_as_numpy_does(repo: Repo) -> None:
    branched(repo, content(), OURS, THEIRS)
    repo.git("config", "theta.merge.device", "cpu")
    repo.git("merge", "--quiet", "--no-edit", "other")
    assert repo.read(NAME) == MERGED


def test_a_device_that_is_not_there_is_a_conflict_that_keeps_ours(repo: Repo) -> None:
    branched(repo, content(), OURS, THEIRS)
    repo.git("config", "theta.merge.device", "cuda:99")
    done = repo.run_git("merge", "--no-edit", "other")
    assert done.code == 1
    assert "torch cannot merge on 'cuda:99'" in done.err
    assert repo.read(NAME) == OURS
