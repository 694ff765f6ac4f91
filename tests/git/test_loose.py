"""Loose objects that Git reads as its own."""

import subprocess
from pathlib import Path

import pytest

from git_theta import loose
from tests.repositories import Repo


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_git_reads_what_is_written(home: Path, tmp_path: Path, algorithm: str) -> None:
    repo = Repo.init(tmp_path / "repo", f"--object-format={algorithm}")
    folder = repo.path / ".git" / "objects"
    contents = {"b": b"two\0\n", "a.txt": b"", "a": b"x" * 5000}
    blobs = {name: loose.write_blob(folder, content, algorithm) for name, content in contents.items()}
    tree = loose.write_tree(folder, blobs, algorithm)
    repo.git("fsck", "--strict")
    assert repo.git("ls-tree", tree).splitlines() == [
        f"100644 blob {blobs[name]}\t{name}" for name in ("a", "a.txt", "b")
    ]
    for name, oid in blobs.items():
        argv = ["git", "cat-file", "blob", oid]
        assert subprocess.run(argv, cwd=repo.path, capture_output=True, check=True).stdout == contents[name]
