"""`git theta prune`: what anything needs stays, and what only this machine has."""

import os
from pathlib import Path

import pytest

from tests.repositories import Repo, model
from tests.sites import A, B, Site, stored

OLD = (1_000_000_000, 1_000_000_000)


def age(repo: Repo) -> None:
    """Make every object older than prune's hour."""
    for path in repo.objects():
        os.utime(path, OLD)


def forget(repo: Repo) -> None:
    """Have no reflog speak for anything."""
    repo.git("reflog", "expire", "--expire=all", "--all")


def change(repo: Repo, name: str, seed: int) -> set[str]:
    """Stage a new model; the objects that are new with it."""
    before = stored(repo)
    repo.write(name, model(seed))
    repo.git("add", name)
    new = stored(repo) - before
    assert new
    return new


def test_nothing_to_remove(tracked: Repo) -> None:
    age(tracked)
    before = stored(tracked)
    assert tracked.ok("prune", "--force") == "removed 0 objects (0 B)\n"
    assert stored(tracked) == before


def test_what_nothing_needs_and_no_remote_has_takes_force(tracked: Repo) -> None:
    spare = change(tracked, A, 20)
    tracked.git("reset", "--quiet", "--hard")
    age(tracked)
    said = tracked.ok("prune")
    assert said.startswith("removed 0 objects")
    assert f"kept {len(spare)} objects" in said
    assert "that no remote is known to have: --force removes them" in said
    assert tracked.ok("prune", "--force", "--dry-run").startswith(f"would remove {len(spare)} objects")
    assert spare < stored(tracked)
    assert tracked.ok("prune", "--force").startswith(f"removed {len(spare)} objects")
    assert not spare & stored(tracked)


def pushed_and_forgotten(repo: Repo) -> set[str]:
    """The objects of a branch "topic", which only the remote remembers."""
    repo.git("switch", "--quiet", "-c", "topic")
    spare = change(repo, A, 20)
    repo.commit()
    repo.git("push", "--quiet", "origin", "topic")
    repo.git("switch", "--quiet", "main")
    for ref in ("refs/heads/topic", "refs/remotes/origin/topic"):
        repo.git("update-ref", "-d", ref)
    forget(repo)
    age(repo)
    return spare


def test_what_a_remote_has_goes_without_force(published: Site) -> None:
    repo, spare = published.repo, pushed_and_forgotten(published.repo)
    assert repo.ok("prune").startswith(f"removed {len(spare)} objects")
    assert not spare & stored(repo)
    assert published.clone("clone", "--branch", "topic").read(A) == model(20)


def test_what_a_remote_is_said_to_have_and_has_not_takes_force(published: Site) -> None:
    repo, spare = published.repo, pushed_and_forgotten(published.repo)
    for path in (published.remote.path / "theta" / "objects").rglob("*"):
        if path.name in spare:
            path.unlink()
    said = repo.ok("prune")
    assert said.startswith("removed 0 objects")
    assert f"kept {len(spare)} objects" in said
    assert spare < stored(repo)


def test_remote_that_cannot_be_asked_vouches_for_nothing(published: Site) -> None:
    spare = change(published.repo, A, 20)
    published.repo.git("reset", "--quiet", "--hard")
    age(published.repo)
    published.remote.path.rename(published.folder / "moved.git")
    assert published.repo.ok("prune").startswith("removed 0 objects")
    assert spare < stored(published.repo)


@pytest.mark.parametrize(
    "holder", ["branch", "tag", "stash", "reflog", "index", "worktree", "its index", "merge", "autostash"]
)
def test_what_is_reachable_stays(tracked: Repo, tmp_path: Path, holder: str) -> None:
    repo = tracked
    if holder in ("worktree", "its index"):
        repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
        linked = Repo(tmp_path / "linked")
        before = stored(repo)
        linked.write(A, model(20))
        linked.git("add", A)
        kept = stored(repo) - before
        if holder == "worktree":
            linked.git("commit", "--quiet", "--message", "detached")
    elif holder == "merge":
        # A commit that only MERGE_HEAD names.
        kept = change(repo, A, 20)
        commit = repo.git("commit-tree", "-p", "HEAD", "-m", "theirs", repo.git("write-tree").strip()).strip()
        repo.git("reset", "--quiet", "--hard")
        (repo.path / ".git" / "MERGE_HEAD").write_text(f"{commit}\n")
    elif holder == "autostash":
        kept = change(repo, A, 20)
        commit = repo.git("stash", "create").strip()
        repo.git("reset", "--quiet", "--hard")
        (repo.path / ".git" / "rebase-merge").mkdir()
        (repo.path / ".git" / "rebase-merge" / "autostash").write_text(f"{commit}\n")
    else:
        repo.git("switch", "--quiet", "-c", "topic")
        kept = change(repo, A, 20)
        if holder == "stash":
            repo.git("stash")
        elif holder != "index":
            repo.commit()
        if holder == "tag":
            repo.git("tag", "--annotate", "--message", "kept", "kept")
        if holder in ("tag", "reflog"):
            repo.git("reset", "--quiet", "--hard", "HEAD~1")
            repo.git("switch", "--quiet", "main")
            repo.git("branch", "--quiet", "-D", "topic")
    if holder not in ("reflog", "stash"):
        forget(repo)
    age(repo)
    assert repo.ok("prune", "--force").startswith("removed 0 objects")
    assert kept < stored(repo)


def test_young_objects_stay(tracked: Repo) -> None:
    spare = change(tracked, A, 20)
    tracked.git("reset", "--quiet", "--hard")
    assert f"kept {len(spare)} objects younger than an hour" in tracked.ok("prune", "--force")
    assert spare < stored(tracked)


def test_old_object_that_is_used_again_is_young(tracked: Repo) -> None:
    """Another process may be about to stage it: what it relies on must not be pruned under its hands."""
    spare = change(tracked, A, 20)
    tracked.git("reset", "--quiet", "--hard")
    age(tracked)
    tracked.write("again.bin", model(20))
    tracked.git("hash-object", "--path=x.safetensors", "again.bin")  # cleaned, and in no index
    assert "removed 0 objects" in tracked.ok("prune", "--force")
    assert spare < stored(tracked)


def test_nothing_is_removed_while_a_manifest_cannot_be_read(tracked: Repo) -> None:
    change(tracked, A, 20)
    tracked.git("reset", "--quiet", "--hard")
    tracked.stage_blob("later.txt", tracked.blob(B).replace(b'"git-theta": 1', b'"git-theta": 99'))
    age(tracked)
    before = stored(tracked)
    assert "nothing was removed" in tracked.fails(3, "prune", "--force")
    assert stored(tracked) == before


def test_files_that_are_no_objects_stay(tracked: Repo) -> None:
    stranger = tracked.path / ".git" / "theta" / "objects" / "aa" / "bb" / "readme"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    os.utime(stranger, OLD)
    age(tracked)
    tracked.ok("prune", "--force")
    assert stranger.read_text() == "mine"
