"""`git theta fsck`: what is missing, damaged or cannot be read, and who suffers."""

import os
import shutil
from pathlib import Path

import pytest

from git_theta import manifest
from tests.repositories import Repo, model
from tests.sites import A, B, Site, stored


def object_of(repo: Repo, name: str, parameter: str) -> Path:
    """The file of the object that holds a parameter of its own."""
    oid = manifest.parse(repo.blob(name)).parameters[parameter].store[-1].pieces[0].oid
    return next(path for path in repo.objects() if path.name == oid)


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_all_is_well(tracked: Repo) -> None:
    assert tracked.ok("fsck").startswith("2 checkpoints: 8 of 8 objects are whole (")


def test_empty_repository(repo: Repo) -> None:
    assert repo.ok("fsck") == "0 checkpoints: 0 of 0 objects are whole (0 B)\n"


def test_missing_object_names_its_parameter_and_commit(tracked: Repo) -> None:
    victim = object_of(tracked, A, "layers.1.weight")
    victim.unlink()
    done = tracked.theta("fsck")
    commit = tracked.git("rev-parse", "--short", "HEAD").strip()
    lines = done.out.splitlines()
    assert done.code == 4
    assert lines[0] == f"{commit}:{A}: parameter 'layers.1.weight': object {victim.name} is missing"
    assert lines[1].startswith("2 checkpoints: 7 of 8 objects are whole")
    assert "git theta fetch --all" in lines[2]


@pytest.mark.parametrize("how", ["a bit", "its length", "to nothing"])
def test_damaged_object_is_moved_aside_and_can_be_added_again(tracked: Repo, how: str) -> None:
    victim = object_of(tracked, B, "layers.0.weight")
    damage(victim)
    if how != "a bit":
        os.truncate(victim, 100 if how == "its length" else 0)
    done = tracked.theta("fsck")
    assert done.code == 5
    assert f"{B}: parameter 'layers.0.weight': object {victim.name} is damaged" in done.out
    assert not victim.exists()
    assert (tracked.path / ".git" / "theta" / "damaged" / victim.name).exists()
    (tracked.path / B).touch()
    tracked.git("add", B)
    assert tracked.ok("fsck").startswith("2 checkpoints: 8 of 8")


def test_dry_run_moves_nothing(tracked: Repo) -> None:
    victim = object_of(tracked, B, "layers.0.weight")
    damage(victim)
    assert tracked.theta("fsck", "--dry-run").code == 5
    assert victim.exists()


def test_damaged_object_comes_back_from_the_remote(published: Site) -> None:
    damage(object_of(published.repo, A, "layers.0.weight"))
    assert published.repo.theta("fsck").code == 5
    published.repo.ok("fetch", "--all")
    assert published.repo.ok("fsck").startswith("2 checkpoints: 8 of 8")


def test_layout_suffers_too(tracked: Repo) -> None:
    oid = manifest.parse(tracked.blob(A)).layout.store[-1].pieces[0].oid
    next(path for path in tracked.objects() if path.name == oid).unlink()
    done = tracked.theta("fsck")
    assert done.code == 4
    assert f"the layout: object {oid} is missing" in done.out


@pytest.mark.parametrize("where", ["commit", "index", "stash", "reflog"])
def test_manifest_that_cannot_be_used_is_found_anywhere(tracked: Repo, where: str) -> None:
    text = tracked.blob(A).replace(b'"git-theta": 1', b'"git-theta": 99')
    tracked.stage_blob("broken.txt", text)
    blob = tracked.git("rev-parse", ":broken.txt").strip()
    if where in ("commit", "reflog"):
        tracked.git("commit", "--quiet", "--message", "broken")
        tracked.git("rm", "--quiet", "--cached", "broken.txt")
        tracked.commit("mended")
    if where == "reflog":
        tracked.git("reset", "--quiet", "--hard", "HEAD~2")
    if where == "stash":
        tracked.git("update-ref", "refs/stash", tracked.git("stash", "create").strip())
        tracked.git("reset", "--quiet", "--hard")
    done = tracked.theta("fsck")
    assert done.code == 3
    assert f"blob {blob}: its manifest cannot be used: " in done.err


def test_old_versions_are_checked(tracked: Repo) -> None:
    victim = object_of(tracked, A, "layers.2.weight")
    tracked.write(A, model(30))
    tracked.commit()
    victim.unlink()
    done = tracked.theta("fsck")
    assert done.code == 4
    assert f"{tracked.git('rev-parse', '--short', 'HEAD~1').strip()}:{A}: " in done.out


def test_many_sufferers_are_cut_short(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write(A, model(0, layers=30))
    repo.commit()
    shutil.rmtree(repo.path / ".git" / "theta" / "objects")
    done = repo.theta("fsck")
    assert done.code == 4
    assert done.out.count(" is missing\n") == 20
    assert "... and others\n" in done.out


def test_remote_that_has_all(published: Site) -> None:
    said = "origin: 8 of 8 objects of what was pushed are kept there\n"
    assert published.repo.ok("fsck", "--remote") == published.repo.ok("fsck", "--remote", "origin") == said


def test_remote_that_lacks_some(site: Site) -> None:
    site.repo.git("push", "--quiet", "--no-verify", "origin", "main")
    done = site.repo.theta("fsck", "--remote")
    assert done.code == 4
    assert " of what was pushed is not there, nor may others be\n" in done.out
    assert "git theta push --all origin" in done.out
    assert site.repo.ok("push", "--all", "origin").startswith("8 objects")
    assert site.repo.ok("fsck", "--remote").startswith("origin: 8 of 8")
    assert stored(site.remote) == stored(site.repo)


def test_no_remote_is_one_line(tracked: Repo) -> None:
    assert "git remote add origin URL" in tracked.fails(7, "fsck", "--remote")
    assert "nowhere" in tracked.fails(9, "fsck", "--remote", "nowhere")


@pytest.fixture
def clone(published: Site) -> Repo:
    """A clone of a remote with two versions of A, of which only the second is checked out."""
    published.repo.write(A, model(30))
    published.repo.commit()
    published.repo.git("push", "--quiet")
    return published.clone()


def test_versions_that_were_never_checked_out_are_no_fault(clone: Repo) -> None:
    said = clone.ok("fsck").splitlines()
    assert said[0].startswith("3 checkpoints: 9 of 12 objects are whole (")
    assert said[1].startswith("not on this machine: 3 objects (")
    assert said[1].endswith(" of 1 other version; to bring them: git theta fetch --all")
    clone.ok("fetch", "--all")
    assert clone.ok("fsck").startswith("3 checkpoints: 12 of 12")


@pytest.mark.parametrize("where", ["index", "commit", "stash"])
def test_missing_object_of_what_lies_here_or_was_never_pushed_is_a_fault(clone: Repo, where: str) -> None:
    if where != "index":
        clone.write(A, model(40))
        if where == "commit":
            clone.commit()
    victim = object_of(clone, A, "layers.1.weight")
    if where == "stash":
        clone.git("add", A)
        victim = object_of(clone, A, "layers.1.weight")
        clone.git("stash", "--quiet")
    if where == "commit":
        clone.git("checkout", "--quiet", "--detach", "HEAD~1")
    victim.unlink()
    done = clone.theta("fsck")
    assert done.code == 4
    assert f"object {victim.name} is missing" in done.out
    assert done.out.count(" is missing") == 1


def test_version_that_a_branch_of_the_remote_had_is_no_fault(published: Site, clone: Repo) -> None:
    """Git keeps what others have overwritten in the reflog of the remote-tracking branch."""
    published.repo.write(A, model(50))
    published.repo.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    published.repo.git("push", "--quiet", "--force")
    clone.git("fetch", "--quiet")
    published.repo.write(A, model(60))
    published.repo.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    published.repo.git("push", "--quiet", "--force")
    clone.git("fetch", "--quiet")
    assert "not on this machine: 11 objects" in clone.ok("fsck")


def test_sparse_checkout_need_not_have_what_it_leaves_out(published: Site) -> None:
    clone = published.clone("clone", "--sparse")
    assert (clone.read(A), (clone.path / B).exists()) == (model(0), False)
    assert "not on this machine: 4 objects" in clone.ok("fsck")
    clone.git("sparse-checkout", "disable")
    assert clone.read(B) == model(100)
    assert clone.ok("fsck").startswith("2 checkpoints: 8 of 8")


def test_bare_clone_is_to_have_everything(published: Site) -> None:
    mirror = published.clone("clone", "--mirror")
    assert mirror.theta("fsck").code == 4
    mirror.ok("fetch", "--all")
    assert mirror.ok("fsck").startswith("2 checkpoints: 8 of 8")


def test_bare_repository(published: Site) -> None:
    """A host's: its store is the one that clones push to."""
    assert published.remote.ok("fsck").startswith("2 checkpoints: 8 of 8")
