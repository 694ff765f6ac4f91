"""Git's everyday and less usual commands on tracked files: each gives the true bytes, and a clean status."""

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from git_theta import manifest
from tests.checkpoints import leftovers
from tests.git.kinds import changed_layer, layers
from tests.git.test_round_trip import touched
from tests.repositories import ATTRIBUTES, Repo, model


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    """A repository with a large and a small checkpoint committed."""
    repo.track("*.st")
    repo.write("large.st", layers())
    repo.write("small.st", model())
    repo.commit("base")
    return repo


def assert_clean(repo: Repo, **contents: bytes) -> None:
    """The worktree has these contents, and Git finds nothing to say, even after a look at each."""
    for name, content in contents.items():
        path = repo.path / f"{name}.st"
        assert path.read_bytes() == content, name
        touched(path)
    assert repo.git("status", "--porcelain") == ""


def test_stash_and_pop(tracked: Repo) -> None:
    tracked.write("large.st", changed_layer(1))
    tracked.write("new.st", model(9))
    tracked.git("stash", "push", "--quiet", "--include-untracked")
    assert_clean(tracked, large=layers(), small=model())
    assert not (tracked.path / "new.st").exists()
    tracked.git("stash", "pop", "--quiet")
    assert tracked.read("large.st") == changed_layer(1)
    assert tracked.read("new.st") == model(9)
    assert tracked.git("status", "--porcelain") == " M large.st\n?? new.st\n"


def test_stash_of_manifests_left_in_place(tracked: Repo) -> None:
    tracked.dematerialise("large.st", "small.st")
    tracked.write("small.st", tracked.blob("large.st"))
    tracked.git("stash", "push", "--quiet", GIT_THETA_SKIP_SMUDGE="1")
    assert tracked.read("small.st") == tracked.blob("small.st")
    tracked.git("stash", "pop", "--quiet")
    assert tracked.read("small.st") == layers()
    assert tracked.read("large.st") == tracked.blob("large.st")


def test_move_and_copy_keep_the_text(tracked: Repo) -> None:
    tracked.git("mv", "large.st", "moved.st")
    tracked.git("commit", "--quiet", "-m", "moved")
    assert tracked.git("diff", "--summary", "-M", "HEAD~1") == " rename large.st => moved.st (100%)\n"
    assert_clean(tracked, moved=layers(), small=model())


def _diverge(repo: Repo) -> None:
    """Ours changes the small checkpoint, theirs (`other`) a layer of the large one."""
    repo.git("checkout", "--quiet", "-b", "other")
    repo.write("large.st", changed_layer(3))
    repo.commit("theirs")
    repo.git("checkout", "--quiet", "main")
    repo.write("small.st", model(5))
    repo.commit("ours")


@pytest.mark.parametrize(
    "command",
    [
        ("merge", "--quiet", "--no-edit", "other"),
        ("rebase", "--quiet", "other"),
        ("rebase", "--quiet", "--apply", "other"),
        ("cherry-pick", "other"),
        ("merge", "--quiet", "--squash", "other"),
    ],
    ids=["merge", "rebase", "rebase by patches", "cherry-pick", "squash"],
)
def test_one_sided_changes_are_taken_without_being_looked_at(tracked: Repo, command: tuple[str, ...]) -> None:
    _diverge(tracked)
    before = tracked.objects()
    tracked.git(*command)
    tracked.commit()
    assert_clean(tracked, large=changed_layer(3), small=model(5))
    assert tracked.objects() == before


def test_reset_and_restore(tracked: Repo) -> None:
    tracked.write("large.st", changed_layer(2))
    tracked.commit("second")
    tracked.write("large.st", b"spoiled" * 300_000)
    tracked.git("reset", "--quiet", "--hard")
    assert_clean(tracked, large=changed_layer(2))
    tracked.git("reset", "--quiet", "--hard", "HEAD~1")
    assert_clean(tracked, large=layers())
    tracked.git("restore", "--source=HEAD@{1}", "--staged", "--worktree", "large.st")
    assert tracked.read("large.st") == changed_layer(2)
    tracked.git("revert", "--abort", accept=(128,))
    tracked.git("reset", "--quiet", "--soft", "HEAD@{1}")
    assert_clean(tracked, large=changed_layer(2))


def test_revert_and_bisect_like_jumps(tracked: Repo) -> None:
    for seed in range(1, 4):
        tracked.write("small.st", model(seed))
        tracked.commit(str(seed))
    tracked.git("revert", "--no-edit", "HEAD~1..HEAD")
    assert_clean(tracked, small=model(2))
    for back, seed in ((4, 0), (1, 3), (2, 2)):
        tracked.git("checkout", "--quiet", f"main~{back}")
        assert_clean(tracked, small=model(seed))


def test_checkout_that_merges_keeps_changes_of_other_files(tracked: Repo) -> None:
    _diverge(tracked)
    tracked.write("small.st", model(5))
    tracked.write("new.st", model(8))
    tracked.git("add", "new.st")
    tracked.git("checkout", "--quiet", "--detach")
    tracked.write("new.st", model(9))
    tracked.git("checkout", "--quiet", "-m", "other")
    assert tracked.read("large.st") == changed_layer(3)
    assert tracked.read("small.st") == model()
    assert tracked.read("new.st") == model(9)


@pytest.mark.parametrize(
    ("commands", "ours", "theirs"),
    [
        ((("merge", "--quiet", "other"),), 5, 7),
        ((("rebase", "--quiet", "other"),), 7, 5),
        ((("cherry-pick", "other"),), 5, 7),
    ],
    ids=["merge", "rebase", "cherry-pick"],
)
def test_either_side_of_a_conflict_can_be_taken(
    tracked: Repo, commands: tuple[tuple[str, ...], ...], ours: int, theirs: int
) -> None:
    _diverge(tracked)
    tracked.git("checkout", "--quiet", "other")
    tracked.write("small.st", model(7))
    tracked.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    tracked.git("checkout", "--quiet", "main")
    tracked.git("config", "merge.theta.driver", "false")
    for command in commands:
        tracked.git(*command, accept=(1,))
    assert "UU small.st" in tracked.git("status", "--porcelain").splitlines()
    assert tracked.read("small.st") == model(ours)
    assert tracked.read("large.st") == changed_layer(3)
    tracked.git("checkout", "--theirs", "small.st")
    assert tracked.read("small.st") == model(theirs)
    tracked.git("checkout", "--ours", "small.st")
    assert tracked.read("small.st") == model(ours)
    tracked.git("checkout", "--theirs", "small.st")
    tracked.git("add", "small.st")
    tracked.git("-c", "core.editor=true", command[0], "--continue")
    assert_clean(tracked, small=model(theirs), large=changed_layer(3))


def test_sides_of_a_conflict_can_be_taken_in_turn(tracked: Repo) -> None:
    """Git notes the file's time with the side that it is: with another, it would later take the one for the other."""
    _diverge(tracked)
    tracked.git("checkout", "--quiet", "other")
    tracked.write("small.st", model(7))
    tracked.git("commit", "--quiet", "--all", "--amend", "--no-edit")
    tracked.git("checkout", "--quiet", "main")
    tracked.git("config", "merge.theta.driver", "false")
    tracked.git("merge", "--quiet", "other", accept=(1,))
    for side, stage, seed in (("--theirs", 3, 7), ("--ours", 2, 5), ("--theirs", 3, 7)):
        tracked.git("checkout", side, "small.st")
        assert tracked.read("small.st") == model(seed)
        rows = tracked.git("ls-files", "--stage", "--debug", "small.st").splitlines()
        times = [row.removeprefix("  mtime: ") for row in rows if row.startswith("  mtime: ")]
        seconds, nanoseconds = divmod((tracked.path / "small.st").stat().st_mtime_ns, 10**9)
        assert times[stage - 1] == f"{seconds}:{nanoseconds}"


def test_conflict_marked_text_of_a_merge_without_the_driver_cannot_be_checked_out_or_added(tracked: Repo) -> None:
    """`merge=text` in the attributes, or a machine without the merge driver: Git merges the manifests as text."""
    tracked.git("checkout", "--quiet", "-b", "other")
    tracked.write("small.st", model(7))
    tracked.commit("theirs")
    tracked.git("checkout", "--quiet", "main")
    tracked.write("small.st", model(5))
    tracked.commit("ours")
    (tracked.path / ".git" / "info" / "attributes").write_text("*.st merge=text\n")
    done = tracked.run_git("merge", "--quiet", "other")
    assert done.code != 0
    assert [line for line in done.err.splitlines() if line.startswith("git-theta: ")] == [
        (
            "git-theta: small.st: its manifest has conflict markers; take a side: git checkout --ours (or --theirs) "
            "-- PATH; or, if they were committed, take one from before: git checkout COMMIT -- PATH"
        )
    ]
    path = tracked.path / "small.st"
    assert not path.exists() or path.read_bytes() == model(5)
    assert tracked.read("large.st") == layers()
    assert tracked.git("rev-parse", "HEAD") == tracked.git("rev-parse", "main")
    tracked.git("reset", "--quiet", "--hard")
    assert_clean(tracked, small=model(5))


@pytest.mark.parametrize("treeish", ["HEAD", "HEAD:"])
def test_archive_has_the_true_bytes(tracked: Repo, treeish: str) -> None:
    done = subprocess.run(["git", "archive", treeish], cwd=tracked.path, capture_output=True, check=True)
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        for name, content in (("large.st", layers()), ("small.st", model())):
            member = archive.extractfile(name)
            assert member is not None
            assert member.read() == content


def test_cat_file_gives_either_side(tracked: Repo) -> None:
    def got(option: str) -> bytes:
        argv = ["git", "cat-file", option, "HEAD:large.st"]
        return subprocess.run(argv, cwd=tracked.path, capture_output=True, check=True).stdout

    assert got("--filters") == layers()
    assert got("-p") == tracked.blob("large.st")


def test_checkout_index_to_another_place(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("checkout-index", "--all", f"--prefix={tmp_path}/out/")
    assert (tmp_path / "out" / "large.st").read_bytes() == layers()
    assert (tmp_path / "out" / "small.st").read_bytes() == model()


@pytest.mark.parametrize("bare", [False, True], ids=["linked", "of a bare repository"])
def test_worktrees_share_one_store(tracked: Repo, tmp_path: Path, bare: bool) -> None:
    home, theta = tracked, tracked.path / ".git" / "theta"
    if bare:
        tracked.git("clone", "--quiet", "--bare", str(tracked.path), str(tmp_path / "bare"))
        home = Repo(tmp_path / "bare")
        theta.rename(home.path / "theta")
        theta = home.path / "theta"
    home.git("worktree", "add", "--quiet", "-b", "linked", str(tmp_path / "a linked one"))
    linked = Repo(tmp_path / "a linked one")
    assert_clean(linked, large=layers(), small=model())
    before = set(theta.rglob("objects/*/*/*"))
    linked.write("sub/large.st", changed_layer(1))
    linked.git("add", "large.st", cwd="sub")
    linked.commit()
    assert len(set(theta.rglob("objects/*/*/*")) - before) == 1
    assert not (linked.path / "theta").exists()
    home.git("worktree", "remove", str(linked.path))
    assert before < set(theta.rglob("objects/*/*/*"))


def test_adding_in_two_worktrees_at_once(tracked: Repo, tmp_path: Path) -> None:
    """Both write the same new objects to one store, and each its own."""
    trees = [tracked]
    for number in range(2):
        tracked.git("worktree", "add", "--quiet", "--detach", str(tmp_path / str(number)), GIT_THETA_SKIP_SMUDGE="1")
        trees.append(Repo(tmp_path / str(number)))
    for number, tree in enumerate(trees):
        tree.write("same.st", layers(seed=300))
        tree.write("own.st", layers(2, seed=400 + 10 * number))
    adding = [subprocess.Popen(["git", "add", "same.st", "own.st"], cwd=tree.path) for tree in trees]
    assert [process.wait(timeout=120) for process in adding] == [0, 0, 0]
    assert len({tree.git("rev-parse", ":same.st") for tree in trees}) == 1
    for number, tree in enumerate(trees):
        for name in ("same.st", "own.st"):
            (tree.path / name).unlink()
        tree.git("checkout", "--", "same.st", "own.st")
        assert tree.read("same.st") == layers(seed=300)
        assert tree.read("own.st") == layers(2, seed=400 + 10 * number)
    assert leftovers(tracked.path / ".git" / "theta") == []


def test_another_index(tracked: Repo, tmp_path: Path) -> None:
    """`commit -p`, `commit PATH` and scripts work on an index of their own."""
    tracked.write("large.st", changed_layer(4))
    tracked.write("small.st", model(3))
    other = str(tmp_path / "index")
    tracked.git("read-tree", "HEAD", GIT_INDEX_FILE=other)
    tracked.git("add", "large.st", GIT_INDEX_FILE=other)
    assert tracked.git("diff", "--cached", "--name-only") == ""
    tracked.git("commit", "--quiet", "-m", "one path", "--", "large.st")
    assert tracked.git("status", "--porcelain") == " M small.st\n"
    assert tracked.git("rev-parse", "HEAD:large.st") == tracked.git("rev-parse", ":large.st", GIT_INDEX_FILE=other)


def test_patch_mode_takes_or_leaves_lines_of_the_manifest(tracked: Repo) -> None:
    """All hunks taken, the index is as after `git add`; some, and it has a manifest that is never checked out."""
    tracked.write("large.st", changed_layer(2))
    argv = ["git", "add", "-p", "large.st"]
    subprocess.run(argv, cwd=tracked.path, input=b"n\ny\n", capture_output=True, check=True)
    assert tracked.git("status", "--porcelain") == "MM large.st\n"
    done = tracked.run_git("checkout", "--", "large.st")
    assert done.code == 128
    assert "git-theta: large.st: its digest is not that of its layout and parameters\n" in done.err
    subprocess.run(["git", "reset", "--quiet"], cwd=tracked.path, check=True)
    tracked.write("large.st", changed_layer(2))
    subprocess.run(argv, cwd=tracked.path, input=b"a\n", capture_output=True, check=True)
    tracked.git("commit", "--quiet", "-m", "patched")
    assert_clean(tracked, large=changed_layer(2))


def test_diff_and_log_show_the_changed_lines(tracked: Repo) -> None:
    tracked.write("large.st", changed_layer(2))
    before = tracked.objects()
    rows = tracked.git("diff", "--no-ext-diff", "large.st").splitlines()
    assert len(tracked.objects()) == len(before) + 1
    assert [row[:18] for row in rows if row.startswith(('-"l', '+"l'))] == ['-"layer.2.weight":', '+"layer.2.weight":']
    tracked.commit()
    assert tracked.git("log", "-1", "--format=", "--numstat") == "2\t2\tlarge.st\n"


def test_commands_in_a_folder(tracked: Repo) -> None:
    tracked.write("sub/deep/a.st", layers(seed=7))
    tracked.git("add", "deep/a.st", cwd="sub")
    tracked.git("commit", "--quiet", "-m", "in a folder", cwd="sub/deep")
    (tracked.path / "sub" / "deep" / "a.st").unlink()
    tracked.git("checkout", "--", "deep/a.st", "../small.st", cwd="sub")
    assert tracked.read("sub/deep/a.st") == layers(seed=7)
    assert tracked.git("status", "--porcelain", cwd="sub/deep") == ""


def test_submodules_have_a_store_of_their_own(tracked: Repo, tmp_path: Path) -> None:
    outer = Repo(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "--quiet")
    outer.track("*.st")
    outer.write("outer.st", model(4))
    add = ("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(tracked.path), "inner")
    outer.git(*add, GIT_THETA_SKIP_SMUDGE="1")
    outer.commit()
    inner = Repo(outer.path / "inner")
    assert inner.read("small.st") == tracked.blob("small.st")
    inner.write("small.st", model(6))
    inner.git("add", "small.st")
    inner.git("commit", "--quiet", "-m", "in the submodule")
    store = outer.path / ".git" / "modules" / "inner" / "theta" / "objects"
    assert len([path for path in store.rglob("*") if path.is_file()]) == len(manifest_objects(inner, "small.st"))
    assert outer.git("status", "--porcelain") == " M inner\n"
    (inner.path / "small.st").unlink()
    inner.git("checkout", "--", "small.st")
    assert inner.read("small.st") == model(6)


def manifest_objects(repo: Repo, name: str) -> dict[str, int]:
    return manifest.parse(repo.blob(name)).objects()


def test_repositories_of_sha256(home: Path, tmp_path: Path) -> None:
    repo = Repo(tmp_path / "sha256")
    repo.path.mkdir()
    repo.git("init", "--quiet", "--object-format=sha256")
    repo.ok("install")
    repo.track("*.st")
    repo.write("large.st", layers())
    repo.commit("base")
    repo.write("large.st", changed_layer(0))
    repo.commit("second")
    (repo.path / ".git" / "theta" / "catalogue.sqlite").unlink()
    assert_clean(repo, large=changed_layer(0))
    repo.git("checkout", "--quiet", "HEAD~1")
    assert_clean(repo, large=layers())


def test_intent_to_add_and_assume_unchanged(tracked: Repo) -> None:
    tracked.write("new.st", layers(seed=20))
    tracked.git("add", "--intent-to-add", "new.st")
    assert tracked.git("status", "--porcelain") == " A new.st\n"
    tracked.git("commit", "--quiet", "--all", "-m", "added")
    assert_clean(tracked, new=layers(seed=20))


def test_gits_own_packing_and_pruning_leave_the_objects_alone(tracked: Repo) -> None:
    before = tracked.objects()
    tracked.git("reflog", "expire", "--expire=now", "--all")
    tracked.git("gc", "--quiet", "--prune=now")
    tracked.git("clean", "-ffdx", "--quiet")
    assert tracked.objects() == before
    (tracked.path / "large.st").unlink()
    tracked.git("checkout", "--", "large.st")
    assert_clean(tracked, large=layers(), small=model())


def test_attributes_that_come_with_the_same_checkout(repo: Repo) -> None:
    """Git reads `.gitattributes` from the index during a checkout: the branch that brings both brings true bytes."""
    repo.write("readme", b"nothing tracked here")
    repo.commit("before")
    repo.git("checkout", "--quiet", "-b", "models")
    repo.write(".gitattributes", f"*.st {ATTRIBUTES}\n".encode())
    repo.write("sub/a.st", layers())
    repo.commit("models")
    repo.git("checkout", "--quiet", "main")
    assert not (repo.path / "sub").exists()
    repo.git("checkout", "--quiet", "models")
    assert repo.read("sub/a.st") == layers()
    assert [path.name for path in (repo.path / "sub").iterdir()] == ["a.st"]
