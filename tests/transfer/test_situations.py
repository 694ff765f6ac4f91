"""What people do with Git between a clone and a push: whoever clones next has the true bytes."""

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.repositories import Repo, model
from tests.sites import A, B, Site, bare, only, stored

ODD = ("a b.safetensors", "über/模型 🎲.safetensors", "-o'$(x)\"\t\\.safetensors", "[a-c]*?.safetensors")


def diverge(site: Site) -> Repo:
    """A clone with a commit on B, of a remote that has got one on A since."""
    clone = site.clone()
    site.repo.write(A, model(20))
    site.repo.commit("theirs")
    site.repo.git("push", "--quiet")
    clone.write(B, model(30))
    clone.commit("ours")
    clone.git("fetch", "--quiet")
    return clone


def commit_of(repo: Repo, name: str, content: bytes) -> None:
    repo.write(name, content)
    repo.commit(name)


def grow(site: Site) -> None:
    """Push two more versions of a checkpoint."""
    for seed in (20, 21):
        commit_of(site.repo, A, model(seed))
    site.repo.git("push", "--quiet")


def pushed_to_topic(site: Site, repo: Repo, name: str = "fresh", branch: str = "topic") -> Repo:
    """A new clone of what a repository pushes to a branch; that repository lacks nothing and has nothing to say."""
    repo.git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
    assert repo.git("status", "--porcelain") == ""
    fresh = site.clone(name, "--branch", branch)
    assert fresh.git("status", "--porcelain") == ""
    assert fresh.theta("fsck").code == 0
    return fresh


@pytest.mark.parametrize(
    "command",
    [
        ("rebase", "--quiet", "origin/main"),
        ("cherry-pick", "origin/main"),
        ("merge", "--quiet", "--no-edit", "origin/main"),
        ("merge", "--quiet", "--squash", "origin/main"),
        ("pull", "--quiet", "--rebase", "--autostash"),
    ],
    ids=["rebase", "cherry-pick", "merge", "squash", "pull --rebase"],
)
def test_work_of_two_comes_together(published: Site, command: tuple[str, ...]) -> None:
    clone = diverge(published)
    clone.git(*command)
    if "--squash" in command:
        clone.commit("squashed")
    fresh = pushed_to_topic(published, clone)
    assert (fresh.read(A), fresh.read(B)) == (model(20), model(30))


def test_revert_amend_move_and_stash(published: Site) -> None:
    clone = diverge(published)
    clone.git("reset", "--quiet", "--hard", "origin/main")
    clone.git("revert", "--no-edit", "HEAD")
    assert clone.read(A) == model(0)
    clone.write(B, model(41))
    clone.git("stash", "--quiet")
    clone.git("mv", A, "moved.safetensors")
    clone.git("commit", "--quiet", "--amend", "--no-edit")
    clone.git("stash", "pop", "--quiet")
    clone.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    fresh = pushed_to_topic(published, clone)
    assert (fresh.read("moved.safetensors"), fresh.read(B)) == (model(0), model(41))


def test_version_that_only_a_stash_had_is_sent_with_the_commit_made_of_it(published: Site) -> None:
    clone = published.clone()
    clone.write(A, model(40))
    clone.git("stash", "--quiet")
    clone.git("switch", "--quiet", "--create", "later")
    clone.git("push", "--quiet", "origin", "later")
    clone.git("stash", "pop", "--quiet")
    clone.commit()
    assert pushed_to_topic(published, clone).read(A) == model(40)


def test_bisect_run_fetches_what_it_needs(published: Site) -> None:
    for seed in range(1, 5):
        commit_of(published.repo, A, model(seed))
    published.repo.git("push", "--quiet")
    clone = published.clone()
    before = stored(clone)
    good = published.folder / "good"
    good.mkdir()
    for seed in range(2):
        (good / str(seed)).write_bytes(model(seed))
    test = f"cmp -s {A} {good}/0 || cmp -s {A} {good}/1"
    clone.git("bisect", "start", "HEAD", "HEAD~4")
    assert "is the first bad commit" in clone.git("bisect", "run", "sh", "-c", test)
    assert clone.git("rev-parse", "refs/bisect/bad") == clone.git("rev-parse", "main~2")
    clone.git("bisect", "reset")
    assert clone.read(A) == model(4)
    assert stored(clone) > before


def test_renormalising_and_line_ends_change_nothing(published: Site) -> None:
    clone = published.clone("clone", "-c", "core.autocrlf=true", "-c", "core.safecrlf=true")
    assert (clone.read(A), clone.read(B)) == (model(0), model(100))
    clone.git("add", "--renormalize", ".")
    assert clone.git("status", "--porcelain") == ""
    commit_of(clone, A, model(20))
    assert pushed_to_topic(published, clone).read(A) == model(20)


@pytest.mark.parametrize("cone", [True, False], ids=["cone", "no cone"])
def test_sparse_checkout_fetches_what_it_writes(published: Site, cone: bool) -> None:
    clone = published.clone("clone", "--no-checkout")
    clone.git("sparse-checkout", "set", *(("--cone", "other") if cone else ("--no-cone", f"/{A}")))
    clone.git("checkout", "--quiet", "main")
    assert clone.read(A) == model(0)
    assert not (clone.path / B).exists()
    few = stored(clone)
    assert few < stored(published.repo)
    assert clone.ok("pull") == "nothing to check out: every file is in place\n"
    assert stored(clone) == few
    assert clone.ok("doctor") == "all is well\n"
    commit_of(clone, A, model(20))
    fresh = pushed_to_topic(published, clone)
    assert (fresh.read(A), fresh.read(B)) == (model(20), model(100))
    clone.git("sparse-checkout", "disable")
    assert clone.read(B) == model(100)


def test_worktree_of_a_clone_fetches_into_the_store_of_both(published: Site) -> None:
    commit_of(published.repo, A, model(20))
    published.repo.git("push", "--quiet")
    clone = published.clone()
    clone.git("worktree", "add", "--quiet", "--detach", str(published.folder / "old"), "HEAD~1")
    linked = Repo(published.folder / "old")
    assert linked.read(A) == model(0)
    assert stored(clone) == published.kept()
    commit_of(linked, A, model(21))
    assert pushed_to_topic(published, linked).read(A) == model(21)


def test_submodule_has_its_own_hook_and_remote(published: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (("COUNT", "1"), ("KEY_0", "protocol.file.allow"), ("VALUE_0", "always")):
        monkeypatch.setenv(f"GIT_CONFIG_{key}", value)
    outer, remote = Repo.init(published.folder / "outer"), bare(published.folder / "outer.git")
    outer.git("submodule", "add", "--quiet", str(published.remote.path), "models/inner")
    outer.git("remote", "add", "origin", str(remote.path))
    outer.commit()
    inner = Repo(outer.path / "models" / "inner")
    assert inner.read(A) == model(0)
    commit_of(inner, A, model(20))
    outer.commit()
    outer.git("push", "--quiet", "--recurse-submodules=on-demand", "origin", "main")
    assert (outer.path / ".git" / "modules" / "models" / "inner" / "hooks" / "pre-push").exists()
    assert len(published.kept()) == 12
    Repo(published.folder).git("clone", "--quiet", "--recurse-submodules", str(remote.path), "fresh")
    assert Repo(published.folder / "fresh" / "models" / "inner").read(A) == model(20)


def test_shallow_clone(published: Site) -> None:
    grow(published)
    url = f"file://{published.remote.path}"
    Repo(published.folder).git("clone", "--quiet", "--depth=1", url, "shallow")
    clone = Repo(published.folder / "shallow")
    assert clone.read(A) == model(21)
    assert clone.ok("fsck").startswith("2 checkpoints: 9 of 9")
    commit_of(clone, B, model(30))
    fresh = pushed_to_topic(published, clone)
    assert (fresh.read(A), fresh.read(B)) == (model(21), model(30))
    clone.git("fetch", "--quiet", "--unshallow")
    assert clone.theta("fsck").code == 0
    clone.git("checkout", "--quiet", "main~3")
    assert clone.read(A) == model(0)
    clone.ok("fetch", "--all")
    assert stored(clone) == published.kept()


@pytest.mark.parametrize("option", ["blob:none", "tree:0", "blob:limit=200"])
def test_partial_clone(published: Site, option: str) -> None:
    grow(published)
    published.remote.git("config", "uploadpack.allowFilter", "true")
    published.remote.git("config", "uploadpack.allowAnySHA1InWant", "true")
    url = f"file://{published.remote.path}"
    Repo(published.folder).git("clone", "--quiet", f"--filter={option}", url, "partial")
    clone = Repo(published.folder / "partial")
    assert clone.read(A) == model(21)
    assert clone.ok("fsck").startswith("2 checkpoints: 9 of 9")
    commit_of(clone, B, model(30))
    fresh = pushed_to_topic(published, clone)
    assert (fresh.read(A), fresh.read(B)) == (model(21), model(30))
    clone.git("checkout", "--quiet", "main~2")
    assert clone.read(A) == model(20)
    assert clone.theta("doctor").code == 0


def test_archive_of_a_clone_that_left_manifests(published: Site) -> None:
    clone = published.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    done = subprocess.run(["git", "archive", "HEAD"], cwd=clone.path, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        for name, content in ((A, model(0)), (B, model(100))):
            member = archive.extractfile(name)
            assert member is not None
            assert member.read() == content


def test_detached_head(published: Site) -> None:
    clone = published.clone()
    clone.git("switch", "--quiet", "--detach")
    commit_of(clone, A, model(20))
    assert clone.ok("push").startswith("4 objects")
    assert clone.ok("status")
    assert pushed_to_topic(published, clone).read(A) == model(20)


def test_no_commit_yet(repo: Repo, tmp_path: Path) -> None:
    remote = bare(tmp_path / "remote.git")
    repo.git("remote", "add", "origin", str(remote.path))
    for command in ("fetch", "pull", "status", "ls-files", "checkout", "fsck", "doctor", "env", "prune"):
        repo.ok(command)
    repo.fails(7, "push")
    repo.track("*.safetensors")
    repo.write(A, model(0))
    repo.git("add", "--all")
    for command in ("fetch", "pull", "status", "ls-files", "checkout", "fsck", "doctor", "env", "prune"):
        repo.ok(command)
    clone = Site(tmp_path, repo, remote).clone()
    clone.ok("pull")
    assert clone.ok("fsck").startswith("0 checkpoints")


def test_odd_names_travel(published: Site) -> None:
    for number, name in enumerate(ODD):
        published.repo.write(name, model(number))
    published.repo.commit()
    published.repo.git("push", "--quiet")
    clone = published.clone("clone", GIT_THETA_SKIP_SMUDGE="1")
    clone.ok("pull", "--", *ODD)
    assert [clone.read(name) for name in ODD] == [model(number) for number in range(len(ODD))]
    assert clone.read(B) != model(100)
    fresh = published.clone("a clone's [odd] folder")
    assert [fresh.read(name) for name in (*ODD, B)] == [*map(model, range(len(ODD))), model(100)]


def test_pull_ends_a_clone_that_had_no_git_lfs(published: Site) -> None:
    published.repo.write("readme", b"read me")
    published.repo.write("zz/last", b"the last")
    published.repo.commit()
    published.repo.git("push", "--quiet")
    done = published.try_clone("clone", PATH=only(published.folder / "bin"))
    assert done.code == 128
    clone = Repo(published.folder / "clone")
    clone.ok("pull")
    assert [clone.read(name) for name in (A, B, "readme", "zz/last")] == [model(0), model(100), b"read me", b"the last"]
    assert clone.git("status", "--porcelain") == ""


def test_pull_without_an_index_keeps_what_lies_in_the_worktree(published: Site) -> None:
    clone = published.clone("clone", "--no-checkout")
    clone.write(A, b"mine")
    clone.write(".gitattributes", b"*.safetensors filter=theta\n")
    clone.theta("pull")
    assert (clone.read(A), clone.read(B)) == (b"mine", model(100))
    assert clone.read(".gitattributes") == b"*.safetensors filter=theta\n"
    assert clone.git("diff", "--name-only").splitlines() == [".gitattributes", A]


def test_pull_without_an_index_leaves_out_what_a_sparse_checkout_leaves_out(published: Site) -> None:
    clone = published.clone("clone", "--no-checkout")
    clone.git("sparse-checkout", "set", "--cone", "other")
    assert clone.ok("pull").startswith("checked out 1 file (")
    assert clone.read(A) == model(0)
    assert not (clone.path / B).exists()
    assert clone.git("status", "--porcelain") == ""


def test_clone_of_someone_without_git_theta(published: Site) -> None:
    published.repo.ok("uninstall")
    clone = published.clone()
    assert b"to get it: pip install git-theta; git theta install; git theta pull" in clone.read(A)
    assert clone.git("status", "--porcelain") == ""
    clone.ok("install")
    clone.ok("pull")
    assert (clone.read(A), clone.read(B)) == (model(0), model(100))
    assert clone.git("status", "--porcelain") == ""
    commit_of(clone, A, model(20))
    assert pushed_to_topic(published, clone).read(A) == model(20)


def test_git_lfs_looks_after_its_files_and_leaves_ours_alone(published: Site) -> None:
    repo = published.repo
    repo.git("lfs", "install", "--skip-repo")
    repo.git("lfs", "track", "*.png")
    for picture in (b"a picture", b"another picture"):
        repo.write("picture.png", picture)
        repo.commit()
    repo.git("push", "--quiet")
    for where in (repo, published.clone()):
        before, attributes = stored(where), where.read(".gitattributes")
        where.git("lfs", "fetch", "--all")
        where.git("lfs", "fsck")
        where.git("lfs", "prune", "--force", "--verify-remote")
        where.git("lfs", "migrate", "info", "--everything")
        where.git("lfs", "checkout")
        where.git("lfs", "pull")
        assert stored(where) == before
        assert where.read(".gitattributes") == attributes
        assert (where.read("picture.png"), where.read(A)) == (b"another picture", model(0))
        assert where.git("status", "--porcelain") == ""
        assert where.theta("fsck").code == 0
