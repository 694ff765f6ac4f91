"""`git push`: objects go first, or nothing goes."""

from pathlib import Path

import pytest

from git_theta import manifest
from tests.checkpoints import safetensors, trained, weights
from tests.repositories import Repo, model
from tests.sites import POINTERS, A, B, Site, bare, stored
from tests.transfer.conftest import use
from tests.transfer.servers import Fault, FaultyServer


def test_push_sends_objects_and_keeps_pointers_of_them(site: Site) -> None:
    site.repo.git("push", "origin", "main")
    assert stored(site.remote) == site.kept() == stored(site.repo)
    assert set(site.refs()) == {"refs/heads/main", "refs/theta/pointers"}


def test_clone_has_every_byte(published: Site) -> None:
    clone = published.clone()
    assert (clone.read(A), clone.read(B)) == (model(0), model(100))
    assert clone.git("status", "--porcelain") == ""


def test_giftless(site: Site, home: Path, giftless_url: str) -> None:
    use(home, giftless_url)
    site.repo.git("push", "origin", "main")
    assert stored(site.remote) == set()
    assert site.clone().read(A) == model(0)


def test_http(site: Site, server: FaultyServer) -> None:
    site.repo.git("push", "origin", "main")
    assert set(server.objects) == stored(site.repo)
    clone = site.clone()
    assert (clone.read(A), clone.read(B)) == (model(0), model(100))
    assert server.counts["batch"] == 2


def test_linked_worktree(site: Site, tmp_path: Path) -> None:
    site.repo.git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "linked"))
    linked = Repo(tmp_path / "linked")
    linked.write(A, model(3))
    linked.commit()
    linked.git("push", "origin", "other")
    assert site.clone("clone", "--branch", "other").read(A) == model(3)


def test_only_objects_of_new_commits_are_looked_at(published: Site) -> None:
    old = stored(published.repo)
    published.repo.write(A, model(7))
    published.repo.commit()
    for path in published.repo.objects():
        if path.name in old:
            path.unlink()
    published.repo.git("push")
    assert stored(published.remote) == published.kept() == old | stored(published.repo)


def test_new_branch_of_a_clone_sends_only_its_own(published: Site) -> None:
    clone, old = published.clone(), published.kept()
    clone.git("switch", "--quiet", "-c", "topic")
    clone.write("c.safetensors", model(40))
    clone.git("add", "c.safetensors")
    clone.git("commit", "--quiet", "--message", "a third")
    for path in clone.objects():
        if path.name in old:
            path.unlink()
    clone.git("push", "origin", "topic")
    assert published.kept() == old | stored(clone)
    assert published.clone("other", "--branch", "topic").read("c.safetensors") == model(40)


def test_deleted_branch_sends_nothing(published: Site) -> None:
    published.repo.git("push", "origin", "main:topic")
    before = published.refs()["refs/theta/pointers"]
    published.repo.git("push", "origin", ":topic")
    assert published.refs().keys() == {"refs/heads/main", "refs/theta/pointers"}
    assert published.refs()["refs/theta/pointers"] == before


def test_deletion_needs_no_objects_and_no_git_lfs(published: Site) -> None:
    published.repo.git("push", "origin", "main:topic")
    for path in published.repo.objects():
        path.unlink()
    published.repo.git("push", "origin", "--delete", "topic")
    assert "refs/heads/topic" not in published.refs()


def test_force_push_of_rewritten_history(published: Site) -> None:
    published.repo.write(A, model(8))
    published.repo.git("commit", "--all", "--quiet", "--amend", "--message", "rewritten")
    published.repo.git("push", "--force")
    assert published.clone().read(A) == model(8)


def test_force_push_over_a_commit_that_is_unknown_here(published: Site) -> None:
    other = published.clone("other")
    other.write(A, model(9))
    other.commit()
    other.git("push")
    published.repo.write(A, model(10))
    published.repo.commit()
    published.repo.git("push", "--force")
    assert published.clone().read(A) == model(10)


def test_refused_update_harms_nothing(published: Site) -> None:
    other = published.clone("other")
    other.write(A, model(9))
    other.commit()
    other.git("push")
    published.repo.write(A, model(10))
    published.repo.commit()
    published.repo.git("push", accept=(1,))
    assert published.clone().read(A) == model(9)


def test_tags(published: Site) -> None:
    published.repo.git("switch", "--quiet", "--detach")
    published.repo.write(A, model(11))
    published.repo.commit()
    published.repo.git("tag", "light")
    published.repo.git("tag", "--annotate", "--message", "heavy", "heavy")
    published.repo.git("push", "origin", "--tags")
    assert published.clone("clone", "--branch", "heavy").read(A) == model(11)


def test_merge_commits(published: Site) -> None:
    repo = published.repo
    repo.git("switch", "--quiet", "-c", "topic")
    repo.write(A, model(12))
    repo.commit()
    repo.git("switch", "--quiet", "main")
    repo.write(B, model(13))
    repo.commit()
    repo.git("merge", "--quiet", "--no-edit", "topic")
    repo.git("push", "origin", "main")
    clone = published.clone()
    assert (clone.read(A), clone.read(B)) == (model(12), model(13))
    clone.git("checkout", "--quiet", "main^1")
    assert clone.read(A) == model(0)


def test_a_mean_that_is_a_recipe_brings_what_it_is_made_of(site: Site) -> None:
    """A clone without the history of the sides has the objects of both, and pruning leaves them."""
    repo, data = site.repo, weights(40_000)

    def version(seed: int) -> bytes:
        return safetensors({"a": ("F32", (40_000,), trained(data, seed, 1e-7) if seed else data)})

    for branch, seed in (("main", 0), ("topic", 1), ("main", 2)):
        repo.git("checkout", "--quiet", "-B" if seed == 1 else "--quiet", branch)
        repo.write(A, version(seed))
        repo.commit()
    before = stored(repo)
    repo.git("merge", "--quiet", "--no-edit", "topic")
    merged = repo.read(A)
    assert stored(repo) == before
    assert [step.update for step in manifest.parse(repo.blob(A)).parameters["a"].store][-1] == "average"
    repo.git("push", "origin", "main")
    clone = site.clone("shallow", "--depth=1", "--no-local")
    assert clone.read(A) == merged
    clone.ok("prune")
    (clone.path / A).unlink()
    clone.git("checkout", "--", A)
    assert clone.read(A) == merged
    clone.ok("fsck")


def test_several_remotes_each_get_all(published: Site) -> None:
    second = bare(published.folder / "second.git")
    published.repo.git("remote", "add", "second", str(second.path))
    published.repo.git("push", "second", "main")
    assert stored(second) == stored(published.repo)


def test_remote_of_several_urls_fills_each(published: Site) -> None:
    second = bare(published.folder / "second.git")
    published.repo.git("remote", "set-url", "--add", "origin", str(second.path))
    published.repo.write(A, model(14))
    published.repo.commit()
    published.repo.git("push", "origin", "main")
    assert stored(published.remote) == stored(second) == stored(published.repo)


def test_remote_that_is_pushed_to_elsewhere(published: Site) -> None:
    fork = bare(published.folder / "fork.git")
    published.repo.git("remote", "set-url", "--push", "origin", str(fork.path))
    published.repo.write(A, model(15))
    published.repo.commit()
    published.repo.git("push", "origin", "main")
    assert stored(fork) == stored(published.repo)


def test_push_by_url(published: Site) -> None:
    second = bare(published.folder / "second.git")
    published.repo.git("push", str(second.path), "main")
    assert stored(second) == stored(published.repo)


@pytest.mark.parametrize("remote", ["url", "fork"])
def test_new_branch_for_a_remote_that_was_never_fetched_from_sends_only_its_own(published: Site, remote: str) -> None:
    repo, old = published.repo, published.kept()
    url = str(published.remote.path)
    repo.git("remote", "rename", "origin", "upstream")
    repo.git("remote", "set-url", "upstream", str(published.folder / "elsewhere.git"))
    repo.git("remote", "add", "fork", url)
    repo.write(A, model(19))
    repo.commit()
    for path in repo.objects():
        if path.name in old:
            path.unlink()
    repo.git("push", url if remote == "url" else remote, "HEAD:topic")
    assert published.kept() == stored(published.remote) == old | stored(repo)


def test_remote_that_keeps_no_pointers_is_sent_everything(site: Site) -> None:
    url = str(site.remote.path)
    site.repo.git("push", "--no-verify", url, "main")
    site.repo.git("push", url, "main:topic")
    assert stored(site.remote) == site.kept() == stored(site.repo)


def test_push_to_a_file_url(published: Site) -> None:
    second = bare(published.folder / "second.git")
    published.repo.git("push", f"file://{second.path}", "main")
    assert stored(second) == stored(published.repo)


def test_nothing_to_push(published: Site) -> None:
    before = published.refs()
    published.repo.git("push")
    published.repo.git("push", "origin", "main:topic")
    assert published.refs() == before | {"refs/heads/topic": before["refs/heads/main"]}


def test_nothing_to_push_does_not_start_git_theta(published: Site) -> None:
    trace = published.folder / "trace"
    published.repo.git("push", GIT_TRACE=str(trace))
    assert "run_command: .git/hooks/pre-push" in trace.read_text()
    assert "--is-bare-repository" not in trace.read_text()
    published.repo.git("push", "origin", "main:topic", GIT_TRACE=str(trace))
    assert "--is-bare-repository" in trace.read_text()


def test_push_without_checkpoints_needs_no_git_lfs(repo: Repo, tmp_path: Path) -> None:
    repo.track("*.pt")
    remote = bare(tmp_path / "remote.git")
    repo.commit()
    repo.git("push", str(remote.path), "main")
    assert remote.git("for-each-ref", "--format=%(refname)") == "refs/heads/main\n"


def test_missing_object_fails_the_push_before_any_ref_moves(site: Site) -> None:
    site.repo.objects()[0].unlink()
    done = site.repo.run_git("push", "origin", "main")
    assert done.code == 1
    assert "1 of the 8 objects to be sent are not on this machine" in done.err
    assert site.refs() == {}
    assert stored(site.remote) == set()


def test_damaged_object_fails_the_push_before_any_ref_moves(site: Site) -> None:
    victim = site.repo.objects()[3]
    content = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    done = site.repo.run_git("push", "origin", "main")
    assert done.code == 1
    assert f"object {victim.name} is damaged and was not sent" in done.err
    assert site.refs() == {}
    assert stored(site.remote) == set()


def test_no_verify_pushes_without_objects(site: Site) -> None:
    site.repo.objects()[0].unlink()
    site.repo.git("push", "--no-verify", "origin", "main")
    assert set(site.refs()) == {"refs/heads/main"}
    assert stored(site.remote) == set()


def test_dry_run_moves_no_branch_and_without_the_hook_sends_nothing(site: Site) -> None:
    """Git tells the hook nothing of --dry-run: git-lfs sends its objects as well."""
    site.repo.git("push", "--dry-run", "--no-verify", "origin", "main")
    assert (site.refs(), stored(site.remote)) == ({}, set())
    site.repo.git("push", "--dry-run", "origin", "main")
    assert set(site.refs()) == {POINTERS}
    assert stored(site.remote) == stored(site.repo)


def test_push_of_a_broken_manifest_sends_the_others(published: Site) -> None:
    blob = published.repo.blob(A)
    published.repo.stage_blob("broken.txt", blob.replace(b'"git-theta": 1', b'"git-theta": 99'))
    published.repo.write(B, model(16))
    published.repo.commit()
    published.repo.git("push")
    assert published.clone().read(B) == model(16)


def test_ordinary_lfs_files_travel_with_ours(published: Site) -> None:
    repo = published.repo
    repo.git("lfs", "install", "--local", "--skip-repo")
    repo.git("lfs", "track", "*.png")
    repo.write("picture.png", b"a picture")
    repo.write(A, model(17))
    repo.commit()
    repo.git("push")
    assert list((published.remote.path / "lfs" / "objects").rglob("*"))
    clone = published.clone(
        "clone", "-c", "filter.lfs.process=git-lfs filter-process", "-c", "filter.lfs.required=true"
    )
    assert (clone.read("picture.png"), clone.read(A)) == (b"a picture", model(17))


def test_user_without_git_theta_gets_manifests_that_say_what_to_do(published: Site, home: Path) -> None:
    published.repo.ok("uninstall")
    assert b"git theta pull" in published.clone().read(A)


def test_mirror_is_sent_objects_and_its_pointers_can_be_made_again(site: Site) -> None:
    """Git tells no hook of what `git push --mirror` deletes."""
    site.repo.git("config", "remote.origin.mirror", "true")
    site.repo.git("push")
    before = site.refs()
    assert site.kept() == stored(site.repo)
    site.repo.git("push")
    assert site.kept() == set()
    site.repo.ok("push", "--all", "origin")
    assert site.refs().keys() >= before.keys()
    assert site.kept() == stored(site.repo)


def test_side_ref_is_deleted_only_on_purpose(published: Site) -> None:
    done = published.repo.run_git("push", "origin", ":refs/theta/pointers")
    assert done.code == 1
    assert "this push deletes refs/theta/pointers" in done.err
    assert "git theta push --all origin" in done.err
    assert published.kept() == stored(published.repo)
    published.repo.git("push", "--no-verify", "origin", ":refs/theta/pointers")
    assert published.kept() == set()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("batch", 403), "403"),
        (Fault("batch", 507), "507"),
        (Fault("batch", object_error=422), "422"),
        (Fault("put", 413), "413"),
        (Fault("put", 500), "500"),
        (Fault("put", cut=1000), ""),
    ],
    ids=["no right", "quota", "object refused", "too large", "server", "cut"],
)
def test_objects_that_cannot_be_sent_fail_the_push_before_any_ref_moves(
    site: Site, server: FaultyServer, fault: Fault, words: str
) -> None:
    server.faults.append(fault)
    done = site.repo.run_git("push", "origin", "main")
    assert done.code == 1
    said = [line for line in done.err.splitlines() if line.startswith("git-theta: ")]
    assert len(said) == 1
    assert said[0].startswith("git-theta: origin: ")
    assert words in said[0]
    assert site.refs() == {}


@pytest.mark.parametrize(
    "fault",
    [
        Fault("put", 503, times=2),
        Fault("put", 429, {"Retry-After": "1"}, times=1),
        Fault("put", cut=1000, times=1),
        Fault("batch", expired=True, times=1),
    ],
    ids=["503", "429", "cut", "expired"],
)
def test_fault_that_passes_does_not_fail_the_push(site: Site, server: FaultyServer, fault: Fault) -> None:
    server.faults.append(fault)
    site.repo.git("push", "origin", "main")
    assert set(server.objects) == stored(site.repo)


def test_push_that_failed_half_way_goes_on(site: Site, server: FaultyServer) -> None:
    server.faults.extend([Fault("put", times=4), Fault("put", 413)])
    site.repo.git("push", "origin", "main", accept=(1,))
    assert len(server.objects) == 4
    server.faults.clear()
    server.counts.clear()
    site.repo.git("push", "origin", "main")
    assert server.counts["put"] == 4
    assert set(server.objects) == stored(site.repo)
