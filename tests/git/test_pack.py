"""Packs that Git reads as its own."""

import os
import subprocess
from pathlib import Path

import pytest

from git_theta import pack
from tests.repositories import Repo


@pytest.mark.parametrize("count", [0, 1, 3000])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_git_reads_what_is_written(home: Path, tmp_path: Path, algorithm: str, count: int) -> None:
    repo = Repo.init(tmp_path / "repo", f"--object-format={algorithm}")
    contents = {"b": b"two\0\n", "a.txt": b"", "a": b"x" * 5000, "again": b"x" * 5000, "large": bytes(2**21)}
    contents |= {f"many-{number}": b"%d" % number for number in range(count)}
    folder = tmp_path / "objects"
    folder.mkdir()
    tree = pack.write_tree(folder, contents, algorithm)
    [index] = (folder / "pack").glob("*.idx")
    repo.git("verify-pack", str(index))
    environ = {"GIT_OBJECT_DIRECTORY": str(folder)}
    listing = repo.git("ls-tree", tree, GIT_OBJECT_DIRECTORY=str(folder)).splitlines()
    assert [row.partition("\t")[2] for row in listing] == sorted(contents)
    for row in listing[:200]:
        head, _, name = row.partition("\t")
        argv = ["git", "cat-file", "blob", head.split(" ")[2]]
        done = subprocess.run(argv, cwd=repo.path, env={**os.environ, **environ}, capture_output=True, check=True)
        assert done.stdout == contents[name]
