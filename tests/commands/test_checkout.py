"""`git theta checkout`: true bytes or what was there before, whatever the manifest, the store and the disk are like."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from git_theta import checkouts, git, manifest, rebuild, worktree
from git_theta.errors import (
    EXIT_BUG,
    ChangedError,
    DamagedObjectError,
    InputError,
    ManifestError,
    MissingObjectError,
    RepositoryError,
    SpaceError,
)
from git_theta.git import Repository
from git_theta.manifest import Manifest
from git_theta.source import Stamp
from git_theta.tracked import entries as tracked_entries
from tests.checkpoints import opened
from tests.repositories import Repo, model

HOSTILE: Mapping[str, Callable[[bytes], bytes]] = {
    "path-in-oid": lambda text: text.replace(b'["dense", [["', b'["dense", [["../../../../etc/passwd', 1),
    "absurd-size": lambda text: text.replace(b'"size": ', b'"size": 9999999999999999999999', 1),
    "later-version": lambda text: text.replace(b'{"git-theta": 1', b'{"git-theta": 2', 1),
    "cut-short": lambda text: text[: len(text) // 2],
    "conflict": lambda text: b"<<<<<<< ours\n" + text + b"=======\n" + text + b">>>>>>> theirs\n",
    "not-json": lambda text: text.replace(b"}}", b"}]", 1),
    "nested": lambda text: b'{"git-theta": ' + b"[" * 100_000,
    "unknown-key": lambda text: text.replace(b'"about"', b'"run": "rm -rf /", "about"', 1),
}


def left_behind(repo: Repo) -> list[Path]:
    return [path for path in repo.path.rglob("*git-theta-*") if ".git/" not in path.as_posix()]


def test_missing_and_unmaterialised_files_get_their_bytes(tracked: Repo) -> None:
    tracked.dematerialise("a.safetensors")
    shutil.rmtree(tracked.path / "sub")
    assert tracked.ok("checkout").startswith("checked out 2 files (")
    assert tracked.read("a.safetensors") == model(0)
    assert tracked.read("sub/b.safetensors") == model(100)
    assert tracked.git("status", "--porcelain") == ""
    assert left_behind(tracked) == []


def test_checkout_again_has_nothing_to_do(tracked: Repo) -> None:
    before = (tracked.path / "a.safetensors").stat()
    assert tracked.ok("checkout").startswith("nothing to check out")
    assert tracked.ok("checkout", ".").startswith("nothing to check out")
    assert (tracked.path / "a.safetensors").stat().st_ino == before.st_ino


def test_force_writes_what_git_was_told_not_to_look_at(tracked: Repo) -> None:
    tracked.git("update-index", "--assume-unchanged", "a.safetensors")
    tracked.write("a.safetensors", b"changed")
    assert tracked.ok("checkout", "a.safetensors").startswith("nothing to check out")
    assert tracked.ok("checkout", "--force", "a.safetensors").startswith("checked out 1 file")
    assert tracked.read("a.safetensors") == model(0)


def test_what_is_saved_or_staged_after_the_plan_is_left_alone(tracked: Repo) -> None:
    names = (b"a.safetensors", b"sub/b.safetensors")
    tracked.dematerialise("a.safetensors", "sub/b.safetensors")
    repository = git.discover(tracked.path)
    with opened(repository.theta_dir) as depot:
        plan = checkouts.plan(repository, tracked_entries(repository), depot, named=False)
        assert sorted(write.path for write in plan.writes) == sorted(names)
        tracked.write("a.safetensors", b"saved meanwhile")
        tracked.write("sub/b.safetensors", model(7))
        tracked.git("add", "sub/b.safetensors")
        index = tracked.git("ls-files", "-s")
        failures = checkouts.carry_out(repository, plan.writes, depot, lambda write: lambda size_bytes: None)
    assert {failure.path for failure in failures} == set(names)
    assert all(isinstance(failure.error, ChangedError) for failure in failures)
    assert tracked.read("a.safetensors") == b"saved meanwhile"
    assert tracked.read("sub/b.safetensors") == model(7)
    assert tracked.git("ls-files", "-s") == index


def test_path_is_a_file_or_a_directory_seen_from_where_one_is(tracked: Repo) -> None:
    tracked.dematerialise("a.safetensors", "sub/b.safetensors")
    tracked.ok("checkout", "b.safetensors", cwd="sub")
    assert tracked.read("sub/b.safetensors") == model(100)
    assert tracked.read("a.safetensors").startswith(b'{"git-theta": 1')
    tracked.ok("checkout", "..", cwd="sub")
    assert tracked.read("a.safetensors") == model(0)


def test_absolute_path_and_path_through_a_link_to_the_worktree(tracked: Repo, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tracked.path)
    for spelling in (tracked.path / "a.safetensors", tmp_path / "link" / "a.safetensors"):
        (tracked.path / "a.safetensors").unlink()
        tracked.ok("checkout", str(spelling))
        assert tracked.read("a.safetensors") == model(0)


@pytest.mark.parametrize("path", ["none.safetensors", "none/", ".gitattributes", "../home", "/"])
def test_path_without_a_tracked_file_is_one_line(tracked: Repo, path: str) -> None:
    tracked.fails(InputError.exit_code, "checkout", path)


def test_file_with_changes_is_kept_without_force(tracked: Repo) -> None:
    tracked.write("a.safetensors", b"mine" * 1000)
    assert "--force" in tracked.fails(InputError.exit_code, "checkout", "a.safetensors")
    assert tracked.read("a.safetensors") == b"mine" * 1000
    assert tracked.ok("checkout") == "nothing to check out: every file is in place\n"
    tracked.ok("checkout", "--force", "a.safetensors")
    assert tracked.read("a.safetensors") == model(0)


def test_manifest_of_another_version_is_kept_without_force(tracked: Repo) -> None:
    other = tracked.blob("sub/b.safetensors")
    tracked.write("a.safetensors", other)
    assert "--force" in tracked.fails(InputError.exit_code, "checkout")
    assert tracked.read("a.safetensors") == other
    tracked.ok("checkout", "-f")
    assert tracked.read("a.safetensors") == model(0)


def test_file_that_was_only_touched_is_in_place(tracked: Repo) -> None:
    os.utime(tracked.path / "a.safetensors", (1, 1))
    assert tracked.ok("checkout", "a.safetensors").startswith("nothing")


def test_index_is_checked_out_not_the_last_commit(tracked: Repo) -> None:
    tracked.write("a.safetensors", model(7))
    tracked.git("add", "a.safetensors")
    (tracked.path / "a.safetensors").unlink()
    tracked.ok("checkout")
    assert tracked.read("a.safetensors") == model(7)


def test_before_the_first_commit(repo: Repo) -> None:
    repo.track("*.safetensors")
    repo.write("a.safetensors", model())
    repo.git("add", "--all")
    (repo.path / "a.safetensors").unlink()
    repo.ok("checkout")
    assert repo.read("a.safetensors") == model()


def test_empty_repository_has_nothing_to_check_out(repo: Repo) -> None:
    assert repo.ok("checkout").startswith("nothing")


@pytest.mark.parametrize("option", [(), ("--intent-to-add",)], ids=["added", "intended"])
def test_empty_files_are_left_to_git(repo: Repo, option: tuple[str, ...]) -> None:
    repo.track("*.pt")
    repo.write("a.pt", b"")
    repo.git("add", *option, "a.pt")
    (repo.path / "a.pt").unlink()
    assert repo.ok("checkout").startswith("nothing")
    assert "git checkout" in repo.fails(InputError.exit_code, "checkout", "a.pt")
    assert not (repo.path / "a.pt").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_mode_is_that_of_the_index_under_the_umask(tracked: Repo, umask: int) -> None:
    tracked.git("update-index", "--chmod=+x", "a.safetensors")
    old = os.umask(umask)
    try:
        for name in ("a.safetensors", "sub/b.safetensors"):
            (tracked.path / name).unlink()
        tracked.ok("checkout")
    finally:
        os.umask(old)
    assert (tracked.path / "a.safetensors").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tracked.path / "sub/b.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_what_was_written_is_vouched_for(tracked: Repo) -> None:
    (tracked.path / ".git" / "theta" / "catalogue.sqlite").unlink()
    before = tracked.objects()
    tracked.dematerialise("a.safetensors")
    tracked.ok("checkout")
    stamps = [path.stat().st_mtime_ns for path in before]
    tracked.write("copy.safetensors", model(0))
    tracked.git("add", "copy.safetensors")
    assert tracked.objects() == before
    assert [path.stat().st_mtime_ns for path in before] == stamps


def test_missing_object_is_named_and_the_worktree_keeps_what_it_had(tracked: Repo) -> None:
    text = tracked.blob("a.safetensors")
    record = manifest.parse(text).parameters["layers.1.weight"]
    oid = record.store[0].pieces[0].oid
    next(path for path in tracked.objects() if path.name == oid).unlink()
    tracked.dematerialise("a.safetensors", "sub/b.safetensors")
    said = tracked.fails(MissingObjectError.exit_code, "checkout")
    assert "a.safetensors: parameter 'layers.1.weight' needs object " + oid in said
    assert tracked.read("a.safetensors") == text
    assert tracked.read("sub/b.safetensors") == model(100)
    assert left_behind(tracked) == []


@pytest.mark.parametrize("damage", ["flipped", "short", "empty"])
def test_damaged_object_is_named_and_the_worktree_keeps_what_it_had(tracked: Repo, damage: str) -> None:
    text = tracked.blob("a.safetensors")
    oid = manifest.parse(text).parameters["layers.1.weight"].store[0].pieces[0].oid
    path = next(path for path in tracked.objects() if path.name == oid)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes({"flipped": bytes(content), "short": bytes(content[:-1]), "empty": b""}[damage])
    tracked.write("a.safetensors", b"mine")
    done = tracked.theta("checkout", "--force", "a.safetensors")
    assert done.code == (DamagedObjectError if damage == "flipped" else MissingObjectError).exit_code
    assert done.err.count("\n") == 1
    assert "layers.1.weight" in done.err
    assert oid in done.err
    assert tracked.read("a.safetensors") == b"mine"
    assert left_behind(tracked) == []


def test_objects_of_a_lying_manifest_are_never_written_as_the_checkpoint(tracked: Repo) -> None:
    ours, theirs = (manifest.parse(tracked.blob(name)) for name in ("a.safetensors", "sub/b.safetensors"))
    record, other = (side.parameters["layers.0.weight"] for side in (ours, theirs))
    text = tracked.blob("a.safetensors").replace(
        record.store[0].pieces[0].oid.encode(), other.store[0].pieces[0].oid.encode()
    )
    text = text.replace(b"%d]]]]}" % record.store[0].pieces[0].size, b"%d]]]]}" % other.store[0].pieces[0].size, 1)
    tracked.stage_blob("a.safetensors", text)
    (tracked.path / "a.safetensors").unlink()
    tracked.fails(DamagedObjectError.exit_code, "checkout", "a.safetensors")
    assert not (tracked.path / "a.safetensors").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_manifest_is_one_line_and_nothing_is_written(tracked: Repo, kind: str) -> None:
    tracked.stage_blob("bad.safetensors", HOSTILE[kind](tracked.blob("a.safetensors")))
    said = tracked.fails(ManifestError.exit_code, "checkout", "bad.safetensors")
    assert said.startswith("git-theta: bad.safetensors: ")
    assert len(said) < 500
    assert not (tracked.path / "bad.safetensors").exists()
    tracked.dematerialise("a.safetensors")
    tracked.fails(ManifestError.exit_code, "checkout")
    assert tracked.read("a.safetensors") == model(0)


def test_file_that_git_has_as_it_is_is_left_to_git(tracked: Repo) -> None:
    tracked.stage_blob("plain.safetensors", b"plain bytes\0")
    assert "git checkout" in tracked.fails(InputError.exit_code, "checkout", "plain.safetensors")
    assert tracked.ok("checkout").startswith("nothing")


def test_blob_that_is_not_in_the_repository_is_one_line(tracked: Repo) -> None:
    oid = tracked.git("rev-parse", ":a.safetensors").strip()
    (tracked.path / "a.safetensors").unlink()
    path = tracked.path / ".git" / "objects" / oid[:2] / oid[2:]
    path.chmod(0o600)
    path.unlink()
    assert oid in tracked.fails(ManifestError.exit_code, "checkout")


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory"])
def test_what_is_no_file_is_neither_followed_nor_replaced(tracked: Repo, tmp_path: Path, kind: str) -> None:
    path = tracked.path / "a.safetensors"
    path.unlink()
    target = tmp_path / "target"
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            target.write_bytes(b"theirs")
    for arguments in (("a.safetensors",), ("--force", "a.safetensors")):
        tracked.fails(RepositoryError.exit_code, "checkout", *arguments)
    assert path.is_dir() if kind == "directory" else path.is_symlink()
    assert target.exists() == (kind == "link")


@pytest.mark.parametrize("kind", ["link", "file"])
def test_parents_that_are_no_directories_are_not_followed(tracked: Repo, tmp_path: Path, kind: str) -> None:
    shutil.rmtree(tracked.path / "sub")
    (tmp_path / "target").mkdir()
    if kind == "link":
        (tracked.path / "sub").symlink_to(tmp_path / "target")
    else:
        tracked.write("sub", b"a file")
    assert "'sub'" in tracked.fails(RepositoryError.exit_code, "checkout")
    assert list((tmp_path / "target").iterdir()) == []


def test_disk_that_is_too_small_is_noticed_before_anything_is_written(
    tracked: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked.dematerialise("a.safetensors", "sub/b.safetensors")
    usage = shutil.disk_usage(tracked.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=len(model()) + 100))
    said = tracked.fails(SpaceError.exit_code, "checkout")
    assert f"bytes are needed and {len(model()) + 100} are free; nothing was written" in said
    assert tracked.read("a.safetensors").startswith(b'{"git-theta": 1')
    assert left_behind(tracked) == []


def test_file_in_place_of_another_needs_room_for_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    (tmp_path / "a").write_bytes(b"0" * 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    worktree.check_space([(tmp_path / "a", 100), (tmp_path / "no" / "b", 100)])
    with pytest.raises(SpaceError, match="101 bytes are needed and 100 are free"):
        worktree.check_space([(tmp_path / "a", 100), (tmp_path / "b", 101)])


def test_what_a_killed_process_left_goes_once_it_is_old(tracked: Repo) -> None:
    old = tracked.write(".a.safetensors.git-theta-0123456789abcdef", b"")
    young = tracked.write(".a.safetensors.git-theta-1123456789abcdef", b"")
    theirs = tracked.write(".a.safetensors.git-theta-notes", b"")
    for path in (old, theirs):
        os.utime(path, (1, 1))
    (tracked.path / "a.safetensors").unlink()
    tracked.ok("checkout")
    assert (old.exists(), young.exists(), theirs.exists()) == (False, True, True)


def test_names_of_every_kind_come_back(repo: Repo) -> None:
    names = [
        "m o d e l.pt",
        "модель.pt",
        "new\nline.pt",
        "-rf.pt",
        "x" * 250 + ".pt",
        "ж" * 120 + ".pt",
        ":(top).pt",
        "*.pt",
    ]
    repo.track("*.pt")
    for seed, name in enumerate(names):
        repo.write(name, model(seed))
    repo.commit()
    repo.dematerialise(*names)
    repo.ok("checkout", "--", *names)
    assert [repo.read(name) for name in names] == [model(seed) for seed, _ in enumerate(names)]
    assert repo.git("status", "--porcelain") == ""


def test_sparse_checkout_stays_sparse(tracked: Repo) -> None:
    tracked.git("sparse-checkout", "set", "--no-cone", "/a.safetensors", "/.gitattributes")
    assert tracked.ok("checkout").startswith("nothing")
    assert not (tracked.path / "sub").exists()
    tracked.ok("checkout", "sub/b.safetensors")
    assert tracked.read("sub/b.safetensors") == model(100)


def test_linked_worktrees_share_the_objects(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("worktree", "add", "--quiet", str(tmp_path / "linked"), GIT_THETA_SKIP_SMUDGE="1")
    linked = Repo(tmp_path / "linked")
    assert linked.read("a.safetensors").startswith(b'{"git-theta": 1')
    linked.ok("checkout")
    assert linked.read("a.safetensors") == model(0)
    assert linked.git("status", "--porcelain") == ""


def test_sha256_repositories(home: Path, tmp_path: Path) -> None:
    repo = Repo.init(tmp_path / "sha256", "--object-format=sha256")
    repo.ok("install")
    repo.track("*.pt")
    repo.write("a.pt", model())
    repo.commit()
    (repo.path / "a.pt").unlink()
    repo.ok("checkout")
    assert repo.read("a.pt") == model()


def test_index_that_another_process_holds_is_one_line_and_nothing_is_written(tracked: Repo) -> None:
    tracked.dematerialise("a.safetensors")
    tracked.write(".git/index.lock", b"")
    assert "index.lock" in tracked.fails(RepositoryError.exit_code, "checkout")
    assert tracked.read("a.safetensors").startswith(b'{"git-theta": 1')


def test_status_is_right_even_if_the_last_step_does_not_happen(tracked: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked.dematerialise("a.safetensors")
    monkeypatch.setattr(Repository, "note_stat", lambda *_: True)
    tracked.ok("checkout")
    assert tracked.git("status", "--porcelain") == ""


@pytest.mark.parametrize("split", [False, True], ids=["noted by us", "split index, noted by Git"])
def test_status_after_a_checkout_need_not_look_at_contents(tracked: Repo, split: bool) -> None:
    tracked.git("update-index", "--split-index" if split else "--no-split-index")
    tracked.dematerialise("a.safetensors")
    tracked.ok("checkout")
    later_s = time.time() + 5
    for index in (tracked.path / ".git").glob("*index*"):  # or Git would look at a file as new as its index
        os.utime(index, (later_s, later_s))
    assert "git-theta-filter" not in tracked.run_git("status", GIT_TRACE="1").err
    assert tracked.git("status", "--porcelain") == ""


def test_file_that_is_changed_when_it_has_just_been_written_is_modified(
    tracked: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked.dematerialise("a.safetensors")

    def put(found: Manifest, path: Path, *arguments: Any, **options: Any) -> Stamp:
        stamp = put_before(found, path, *arguments, **options)
        path.write_bytes(model(9))  # as long as before
        return stamp

    put_before = worktree.put
    monkeypatch.setattr(worktree, "put", put)
    tracked.ok("checkout")
    assert tracked.git("status", "--porcelain") == " M a.safetensors\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), MemoryError()])
def test_interruption_leaves_what_was_there(
    tracked: Repo, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise error

    tracked.dematerialise("a.safetensors")
    monkeypatch.setattr(rebuild, "write", interrupt)
    expected = {KeyboardInterrupt: 130, OSError: SpaceError.exit_code, MemoryError: EXIT_BUG}
    assert tracked.theta("checkout").code == expected[type(error)]
    assert tracked.read("a.safetensors").startswith(b'{"git-theta": 1')
    assert left_behind(tracked) == []
    assert tracked.git("status", "--porcelain") == ""


def test_file_in_conflict_is_one_line(tracked: Repo) -> None:
    oid = tracked.git("rev-parse", ":a.safetensors").strip()
    tracked.git("update-index", "--force-remove", "a.safetensors")
    for stage in "123":
        rows = f"100644 {oid} {stage}\ta.safetensors\n"
        subprocess.run(["git", "update-index", "--index-info"], cwd=tracked.path, input=rows.encode(), check=True)
    said = tracked.fails(InputError.exit_code, "checkout", "../a.safetensors", cwd="sub")
    assert "git checkout --ours (or --theirs) -- ../a.safetensors" in said


def test_setting_that_means_nothing_is_one_line(tracked: Repo) -> None:
    tracked.git("config", "theta.threads", "many")
    assert "theta.threads" in tracked.fails(3, "checkout")


@pytest.mark.parametrize("arguments", [("checkout",), ("checkout", "a"), ("status",), ("ls-files",)])
def test_bare_repositories_and_none_are_one_line(home: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert "not a git repository" in Repo(home).fails(RepositoryError.exit_code, *arguments)
    Repo(home).git("init", "--quiet", "--bare", str(tmp_path / "bare"))
    assert "bare" in Repo(tmp_path / "bare").fails(RepositoryError.exit_code, *arguments)
