"""What Git pipes to the filter counts, whatever lies at the path in the worktree."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints import leftovers, noise
from tests.git.kinds import changed_layer, layers
from tests.repositories import Repo, model

PIPED = layers()
BIG = noise(40 * 2**20, 7)


@pytest.fixture
def tracked(repo: Repo) -> Repo:
    repo.track("*.st")
    return repo


def hashed(repo: Repo, content: bytes, path: str = "model.st", cwd: str = ".") -> str:
    """The oid that `git hash-object` writes for content piped in for a path."""
    argv = ["git", "hash-object", "-w", "--stdin", f"--path={path}"]
    done = subprocess.run(argv, cwd=repo.path / cwd, input=content, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode().strip()


def content_of(repo: Repo, oid: str, path: str = "model.st") -> bytes:
    """What Git would check out for a blob at a path."""
    argv = ["git", "cat-file", "--filters", f"--path={path}", oid]
    return subprocess.run(argv, cwd=repo.path, capture_output=True, check=True).stdout


def _file(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def _link(path: Path) -> None:
    (path.parent / "target").write_bytes(PIPED)
    path.symlink_to("target")


WORKTREES: dict[str, Callable[[Path], None]] = {
    "nothing": lambda path: None,
    "the same": _file(PIPED),
    "empty": _file(b""),
    "shorter": _file(PIPED[: 2**21 + 5]),
    "shorter by a byte": _file(PIPED[:-1]),
    "longer": _file(PIPED + b"more"),
    "longer by much": _file(PIPED + bytes(2**22)),
    "first byte another": _file(b"\xff" + PIPED[1:]),
    "byte in the middle another": _file(PIPED[: 2**21 + 7] + bytes([PIPED[2**21 + 7] ^ 1]) + PIPED[2**21 + 8 :]),
    "last byte another": _file(PIPED[:-1] + bytes([PIPED[-1] ^ 1])),
    "another file": _file(changed_layer(0, 50)),
    "a link to the same": _link,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a pipe": lambda path: os.mkfifo(path),
    "a directory": lambda path: path.mkdir(),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes and links")
@pytest.mark.parametrize("worktree", WORKTREES)
def test_the_pipe_counts_whatever_the_worktree_has(tracked: Repo, worktree: str) -> None:
    WORKTREES[worktree](tracked.path / "model.st")
    assert content_of(tracked, hashed(tracked, PIPED)) == PIPED
    assert leftovers(tracked.path / ".git" / "theta") == []


def test_small_content_never_looks_at_the_worktree(tracked: Repo) -> None:
    tracked.write("model.st", b"another")
    assert content_of(tracked, hashed(tracked, b"piped")) == b"piped"
    assert hashed(tracked, b"") == tracked.git("hash-object", "-t", "blob", os.devnull).strip()


def test_same_text_whether_piped_or_added(tracked: Repo) -> None:
    tracked.write("model.st", PIPED)
    tracked.git("add", "model.st")
    added = tracked.git("rev-parse", ":model.st").strip()
    assert hashed(tracked, PIPED) == added
    assert hashed(tracked, PIPED, "other.st") == added
    tracked.write("model.st", model())
    assert hashed(tracked, PIPED) == added


def test_large_file_that_differs_at_its_end(tracked: Repo) -> None:
    """The background's work on the worktree's file is dropped, and the pipe's content stored."""
    tracked.write("model.st", BIG)
    piped = BIG[:-1] + bytes([BIG[-1] ^ 1])
    assert content_of(tracked, hashed(tracked, piped)) == piped


def test_path_is_as_seen_from_the_folder(tracked: Repo) -> None:
    tracked.write("sub/model.st", PIPED)
    tracked.write("model.st", model())
    assert content_of(tracked, hashed(tracked, PIPED, "model.st", cwd="sub")) == PIPED


def test_bare_repositories_have_no_worktree_at_all(tracked: Repo, tmp_path: Path) -> None:
    tracked.git("init", "--quiet", "--bare", str(tmp_path / "bare"))
    bare = Repo(tmp_path / "bare")
    (bare.path / "info" / "attributes").write_text("*.st filter=theta -text\n")
    (bare.path / "model.st").write_bytes(PIPED[:-1])
    assert content_of(bare, hashed(bare, PIPED)) == PIPED


@pytest.mark.parametrize("how", ["-Xrenormalize", "merge.renormalize"])
def test_renormalising_merge_rebuilds_and_cleans_all_sides(tracked: Repo, how: str) -> None:
    """Git pipes the base's, our and their content to clean, one after another, while the worktree has ours."""
    tracked.write("model.st", layers())
    tracked.write("both.st", model(1))
    tracked.commit("base")
    tracked.git("checkout", "--quiet", "-b", "other")
    tracked.write("model.st", changed_layer(2))
    tracked.commit("theirs")
    theirs = tracked.git("rev-parse", "other:model.st")
    tracked.git("checkout", "--quiet", "main")
    tracked.write("both.st", model(2))
    tracked.commit("ours")
    options = [how] if how.startswith("-") else []
    prefix = [] if how.startswith("-") else ["-c", f"{how}=true"]
    tracked.git(*prefix, "merge", "--quiet", "--no-edit", *options, "other")
    assert tracked.read("model.st") == changed_layer(2)
    assert tracked.read("both.st") == model(2)
    assert tracked.git("rev-parse", "HEAD:model.st") == theirs
    assert tracked.git("status", "--porcelain") == ""


def test_renormalising_what_is_normal_changes_nothing(tracked: Repo) -> None:
    tracked.write("model.st", layers())
    tracked.write("small.st", model())
    tracked.commit()
    before = tracked.objects()
    tracked.git("add", "--renormalize", ".")
    assert tracked.git("status", "--porcelain") == ""
    assert tracked.objects() == before
