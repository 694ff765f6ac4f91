"""Stat data in Git's index: the very bytes that Git writes itself, or nothing."""

import os
import time
from pathlib import Path

import pytest

from git_theta import indexfile
from git_theta.errors import RepositoryError
from tests.repositories import Repo

pytestmark = pytest.mark.skipif(os.name == "nt", reason="left to Git on Windows")

NAMES = ["a", "b/c.pt", "b/cc.pt", "b/" + 200 * "x", "b/é", "z"]
OLD_S = 1_600_000_000


def prepared(folder: Path, *options: str, version: int = 2) -> Repo:
    """A repository with a few files, whose index knows an older time of each."""
    repo = Repo.init(folder, *options)
    repo.git("config", "index.version", str(version))
    for name in NAMES:
        os.utime(repo.write(name, name.encode()), (OLD_S, OLD_S))
    repo.git("add", ".")
    repo.git("commit", "--quiet", "--message", "all")
    return repo


def entries(repo: Repo) -> dict[bytes, str]:
    """The oid of each file's blob."""
    rows = [row.split("\t") for row in repo.git("ls-files", "-s", "-z").split("\0")[:-1]]
    return {os.fsencode(name): head.split(" ")[1] for head, name in rows}


def touch(repo: Repo, later_s: int = 5) -> dict[bytes, indexfile.Noted]:
    """Give each file another time, and say how it lies on the disk now."""
    found = {}
    for path, oid in entries(repo).items():
        place = repo.path / os.fsdecode(path)
        os.utime(place, (OLD_S + later_s, OLD_S + later_s))
        found[path] = oid, place.lstat()
    return found


def index_of(repo: Repo) -> Path:
    return repo.path / ".git" / "index"


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_same_bytes_as_git(home: Path, tmp_path: Path, version: int, algorithm: str) -> None:
    repo = prepared(tmp_path / "repo", f"--object-format={algorithm}", version=version)
    files, index = touch(repo), index_of(repo)
    before = index.read_bytes()
    assert indexfile.note(index, files)
    ours = index.read_bytes()
    index.write_bytes(before)
    repo.git("update-index", "--refresh")
    assert index.read_bytes() == ours != before


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_sizes_and_oids_are_those_that_git_notes(home: Path, tmp_path: Path, version: int, algorithm: str) -> None:
    repo = prepared(tmp_path / "repo", f"--object-format={algorithm}", version=version)
    length = len(next(iter(entries(repo).values())))
    seen = {path: (oid, len(path)) for path, oid in entries(repo).items()}
    assert {path: indexfile.blob_oid(path, length) for path in seen} == entries(repo)
    others = {b"a": (seen[b"a"][0], 2), b"z": (seen[b"a"][0], 1), b"none": seen[b"a"]}
    assert indexfile.matching(index_of(repo), seen) == set(seen)
    assert indexfile.matching(index_of(repo), others) == set()
    assert indexfile.matching(index_of(repo), {}) == set()
    index_of(repo).write_bytes(index_of(repo).read_bytes()[:-30])
    with pytest.raises(RepositoryError, match="index cannot be read"):
        indexfile.matching(index_of(repo), seen)


@pytest.mark.parametrize("version", [2, 4])
def test_an_index_that_is_held_forgets_and_notes(home: Path, tmp_path: Path, version: int) -> None:
    repo = prepared(tmp_path / "repo", version=version)
    repo.git("update-index", "--assume-unchanged", "z")
    index, oids = index_of(repo), entries(repo)
    with indexfile.holding(index) as held:
        assert "index.lock" in repo.run_git("add", "a").err
        with pytest.raises(FileExistsError), indexfile.holding(index):
            pass
        assert held.forget({b"a": (oids[b"a"], 1), b"z": (oids[b"z"], 1), b"b/c.pt": (oids[b"a"], 6)}) == {b"a", b"z"}
        assert repo.git("ls-files", "--debug", "a", "z").count("size: 0") == 2
        assert repo.git("status", "--porcelain") == ""
        repo.write("a", b"longer")
        held.note({b"a": (oids[b"a"], (repo.path / "a").lstat())})
    assert "size: 6" in repo.git("ls-files", "--debug", "a")
    assert repo.git("ls-files", "-v", "z") == "h z\n"
    assert sorted(path.name for path in index.parent.glob("index*")) == ["index"]
    repo.git("fsck")


def test_same_bytes_as_git_with_extended_entries(home: Path, tmp_path: Path) -> None:
    repo = prepared(tmp_path / "repo")
    repo.write("new", b"new")
    repo.git("add", "--intent-to-add", "new")
    repo.git("update-index", "--skip-worktree", "a")
    repo.git("update-index", "--assume-unchanged", "z")
    files, index = touch(repo), index_of(repo)
    for path in (b"a", b"z", b"new"):  # Git does not look at these
        del files[path]
    before = index.read_bytes()
    assert indexfile.note(index, files)
    ours = index.read_bytes()
    index.write_bytes(before)
    repo.git("update-index", "--refresh", accept=(0, 1))
    assert index.read_bytes() == ours != before


def test_entries_with_another_blob_or_in_conflict_are_passed_over(home: Path, tmp_path: Path) -> None:
    repo = prepared(tmp_path / "repo")
    files, index = touch(repo), index_of(repo)
    repo.git("switch", "--quiet", "-c", "topic")
    repo.write("z", b"theirs")
    repo.git("commit", "--quiet", "--all", "--message", "theirs")
    repo.git("switch", "--quiet", "main")
    repo.write("z", b"ours")
    repo.git("commit", "--quiet", "--all", "--message", "ours")
    repo.git("merge", "--quiet", "topic", accept=(1,))
    files[b"a"] = files[b"z"]
    before = repo.git("ls-files", "--debug", "a", "z")
    assert indexfile.note(index, {path: files[path] for path in (b"a", b"z")})
    assert repo.git("ls-files", "--debug", "a", "z") == before


def test_file_written_to_in_the_second_of_the_index_is_looked_at_again(home: Path, tmp_path: Path) -> None:
    repo = prepared(tmp_path / "repo")
    index = index_of(repo)
    written_s = int(index.stat().st_mtime)
    os.utime(repo.path / "a", (written_s, written_s))
    repo.git("update-index", "--refresh")
    os.utime(index, (written_s, written_s))
    (repo.path / "a").write_bytes(b"b")  # as long as before
    os.utime(repo.path / "a", (written_s, written_s))
    files = {path: noted for path, noted in touch(repo, 7).items() if path == b"z"}
    os.utime(repo.path / "a", (written_s, written_s))
    assert indexfile.note(index, files)
    later_s = time.time() + 5
    os.utime(index, (later_s, later_s))
    assert "size: 0\t" in repo.git("ls-files", "--debug", "a")
    assert "a\n" in repo.git("diff", "--name-only")


@pytest.mark.parametrize("what", ["locked", "linked", "damaged", "cut", "split", "gone", "later"])
def test_unusual_index_is_left_alone(home: Path, tmp_path: Path, what: str) -> None:
    repo = prepared(tmp_path / "repo")
    files, index = touch(repo), index_of(repo)
    content = index.read_bytes()
    lock = index.with_name("index.lock")
    if what == "locked":
        lock.touch()
    elif what == "linked":
        index.rename(tmp_path / "index")
        index.symlink_to(tmp_path / "index")
    elif what == "damaged":
        index.write_bytes(content[:100] + b"?" + content[101:])
    elif what == "cut":
        index.write_bytes(content[:-30])
    elif what == "split":
        repo.git("update-index", "--split-index")
    elif what == "gone":
        index.unlink()
    else:
        index.write_bytes(content[:7] + b"\5" + content[8:-20] + bytes(20))
    before = index.read_bytes() if what != "gone" else b""
    assert not indexfile.note(index, files)
    assert lock.exists() == (what == "locked")
    assert (index.read_bytes() if index.exists() else b"") == before


def test_index_without_checksum_stays_so(home: Path, tmp_path: Path) -> None:
    repo = prepared(tmp_path / "repo")
    files, index = touch(repo), index_of(repo)
    index.write_bytes(index.read_bytes()[:-20] + bytes(20))  # as Git 2.40 writes it with `index.skipHash`
    assert indexfile.note(index, files)
    assert index.read_bytes()[-20:] == bytes(20)


def test_permissions_of_the_index_are_kept(home: Path, tmp_path: Path) -> None:
    repo = prepared(tmp_path / "repo")
    files, index = touch(repo), index_of(repo)
    index.chmod(0o660)
    assert indexfile.note(index, files)
    assert index.stat().st_mode & 0o777 == 0o660


def test_size_that_git_versions_note_differently_is_left_to_git(home: Path, tmp_path: Path) -> None:
    repo = prepared(tmp_path / "repo")
    files, index = touch(repo), index_of(repo)
    path = repo.path / "a"
    os.truncate(path, 2**32)
    before = index.read_bytes()
    assert not indexfile.note(index, {b"a": (files[b"a"][0], path.lstat())})
    assert index.read_bytes() == before
