"""Commands killed at random moments: no weight is lost, none is wrong, and the same command completes.

A few kills each; GIT_THETA_KILLS=200 makes it so many, and `-rP` shows what they hit.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.repositories import Repo
from tests.sites import POINTERS, A, B, bare, stored
from tests.transfer.histories import LAYERS, OLD, THETA, Far, History, Spare, content, differing
from tests.transfer.kills import Command, amount, kill_often, named_missing, unlock, whole

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to kill")


@pytest.mark.parametrize("paths", [(A,), (A, B)], ids=["one", "several"])
def test_add(history: History, tmp_path: Path, paths: tuple[str, ...]) -> None:
    repo, index = history.repo, history.repo.path / ".git" / "index"
    repo.git("reset", "--quiet", "--hard", "v1")
    history.forget_later()
    spare = history.objects(2) - history.objects(1)
    shutil.copyfile(index, tmp_path / "index")
    for name in (A, B):
        # The copy of the index is newer than the file, and Git heeds only whole seconds.
        os.utime(repo.write(name, content(name, 2)), OLD)
    before = {name: repo.blob(name) for name in (A, B)}

    def prepare() -> None:
        shutil.copyfile(tmp_path / "index", index)
        for path in repo.objects():
            if path.name in spare:
                path.unlink()

    def check() -> str:
        new = len(spare & whole(history.theta))
        locked = unlock(repo.path / ".git")
        staged = {name for name in (A, B) if repo.blob(name) != before[name]}
        assert staged in (set(), set(paths))
        assert named_missing(repo) == set()
        for name in staged:
            assert repo.blob(name) == history.texts[name, 2]
        repo.git("add", *paths)
        for name in paths:
            assert repo.blob(name) == history.texts[name, 2]
        assert named_missing(repo) == set()
        state = "staged" if staged else f"{amount(new, LAYERS * len(paths))} objects"
        return f"{state}{', locked' * locked}"

    kill_often(repo, ["git", "add", *paths], prepare, check)
    repo.git("add", ".")
    for name in (A, B):
        (repo.path / name).unlink()
    repo.git("checkout", "--quiet", "--", ".")
    history.assert_true(repo, 2)


def test_checkout(history: History) -> None:
    """Git itself writes in place, so that a kill may cut a file short; it then says that the file differs."""
    kill_checkouts(history, history.repo, lambda: None)


def test_checkout_that_fetches(history: History, far: Far) -> None:
    repo = history.site.clone()
    theta = repo.path / ".git" / "theta"
    kill_checkouts(history, repo, lambda: shutil.rmtree(theta / "objects"))
    assert whole(theta) <= far.objects()


def kill_checkouts(history: History, repo: Repo, forget: Callable[[], None]) -> None:
    """`git checkout` of the one version and the other, after something is forgotten each time."""
    goal = 2

    def prepare() -> None:
        nonlocal goal
        goal = 3 - goal
        argv[-1] = f"v{goal}"
        forget()

    def check() -> str:
        locked = unlock(repo.path / ".git")
        whole(repo.path / ".git" / "theta")
        seen = set()
        for name in (A, B):
            lies = repo.read(name) if (repo.path / name).exists() else b""
            true = next(number for number in (1, 2) if repo.blob(name) == history.texts[name, number])
            # Git must say so of every wrong file, and of no other.
            assert (lies != content(name, true)) == (name in differing(repo))
            assert content(name, goal).startswith(lies) or lies == content(name, 3 - goal)
            states = {b"": "none", content(name, goal): "new", content(name, 3 - goal): "old"}
            seen.add(states.get(lies, "cut"))
        repo.git(*argv[1:])
        assert named_missing(repo) == set()
        history.assert_true(repo, goal)
        return f"{' and '.join(sorted(seen))}{', locked' * locked}"

    argv = ["git", "checkout", "--quiet", "--force", ""]
    kill_often(repo, argv, prepare, check)


@pytest.mark.parametrize("before", ["missing", "manifests", "contents"])
def test_theta_checkout(history: History, before: str) -> None:
    """Ours writes beside the place and renames: no file is ever anything but old or new."""
    repo = history.repo
    there = {
        name: {"missing": None, "manifests": history.texts[name, 2], "contents": content(name, 1)}[before]
        for name in (A, B)
    }
    argv = [THETA, "checkout", *(["--force", A, B] if before == "contents" else [])]

    def prepare() -> None:
        for name, old in there.items():
            (repo.path / name).unlink()
            if old is not None:
                repo.write(name, old)

    def check() -> str:
        locked = unlock(repo.path / ".git")
        lies = {name: repo.read(name) if (repo.path / name).exists() else None for name in (A, B)}
        new = [name for name in (A, B) if lies[name] == content(name, 2)]
        assert all(lies[name] == there[name] for name in (A, B) if name not in new)
        assert differing(repo) == ({A, B} - set(new) if before != "manifests" else set())
        code, said = Command(repo, argv).end()
        assert code == 0, said
        history.assert_true(repo, 2)
        return f"{len(new)} new{', locked' * locked}"

    kill_often(repo, argv, prepare, check)
    assert [path for path in repo.path.iterdir() if path.name not in (".git", ".gitattributes", A, "sub")] == []


@pytest.mark.parametrize("verb", ["fetch", "pull"])
def test_fetch_and_pull(history: History, far: Far, verb: str) -> None:
    repo = history.site.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    theta = repo.path / ".git" / "theta"
    argv = [THETA, *(["fetch", "--all"] if verb == "fetch" else ["pull"])]
    needed = history.objects(1, 2)
    wanted = needed if verb == "fetch" else history.objects(2)

    def prepare() -> None:
        shutil.rmtree(theta / "objects", ignore_errors=True)
        for name in (A, B):
            if repo.read(name) != history.texts[name, 2]:
                repo.write(name, history.texts[name, 2])

    def check() -> str:
        here = whole(theta)
        locked = unlock(repo.path / ".git")
        assert here <= wanted
        # What only an older version needs may stay with the remote.
        assert named_missing(repo) == history.objects(2) - here
        new = [name for name in (A, B) if repo.read(name) == content(name, 2)]
        assert all(repo.read(name) == history.texts[name, 2] for name in (A, B) if name not in new)
        assert differing(repo) == set()
        code, said = Command(repo, argv).end()
        assert code == 0, said
        assert whole(theta) == wanted
        if verb == "pull":
            history.assert_true(repo, 2)
        return f"{amount(len(here), len(wanted))} objects, {len(new)} new files{', locked' * locked}"

    kill_often(repo, argv, prepare, check)
    assert far.objects() == needed


def test_push(history: History, far: Far) -> None:
    """The remote has a branch only if it has all of its objects; the pointers come in between."""
    repo, remote, needed = history.repo, history.site.remote.path, history.objects(1, 2)
    empty = bare(history.site.folder / "empty.git").path

    def prepare() -> None:
        shutil.rmtree(remote)
        shutil.copytree(empty, remote)
        repo.git("update-ref", "-d", "refs/remotes/origin/main")
        far.clear()

    def check() -> str:
        locked = unlock(repo.path / ".git", remote)
        there, refs = far.objects(), history.site.refs()
        assert "refs/heads/main" not in refs or there == needed
        assert history.site.kept() <= there
        assert named_missing(repo) == set()
        repo.git("push", "--quiet", "origin", "main")
        assert far.objects() == history.site.kept() == needed
        assert set(history.site.refs()) == {"refs/heads/main", POINTERS}
        return f"{amount(len(there), len(needed))} objects, {len(refs)} refs{', locked' * locked}"

    kill_often(repo, ["git", "push", "--quiet", "origin", "main"], prepare, check)
    history.assert_true(history.site.clone(), 2)


def test_prune(spare: Spare) -> None:
    history, repo, needed = spare.history, spare.history.repo, spare.history.objects(1)
    repo.ok("prune", "--force")
    for oid in history.objects(2) - needed:
        (history.theta / "objects" / oid[:2] / oid[2:4] / oid).unlink()

    def check() -> str:
        here = stored(repo)
        assert needed <= here
        assert named_missing(repo) == set()
        assert repo.ok("prune", "--force").startswith(f"removed {len(here - needed)} objects")
        assert whole(history.theta) == needed
        return f"{amount(len(here - needed), len(spare.paths))} of the others"

    kill_often(repo, [THETA, "prune", "--force"], spare.make, check)
    found = ""
    while found != "some of the others":
        spare.make()
        spare.wait_for_prune().kill()
        found = check()
    history.assert_true(repo, 1)
