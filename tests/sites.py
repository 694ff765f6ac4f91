"""What tests of transfer look at: a repository, its remote, clones, and programs that are not on the PATH."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.repositories import Outcome, Repo, scripts_path

__all__ = ["POINTERS", "A", "B", "Site", "bare", "only", "stored"]

A = "a.safetensors"
B = "sub/b.safetensors"
POINTERS = "refs/theta/pointers"


@dataclass(frozen=True, slots=True)
class Site:
    """A repository and the bare one that is its remote "origin", both below `folder`."""

    folder: Path
    repo: Repo
    remote: Repo

    def clone(self, name: str = "clone", *options: str, **variables: str) -> Repo:
        """A clone of the remote."""
        done = self.try_clone(name, *options, **variables)
        assert done.code == 0, done
        return Repo(self.folder / name)

    def try_clone(self, name: str = "clone", *options: str, **variables: str) -> Outcome:
        """`git clone`, whatever comes of it."""
        return Repo(self.folder).run_git("clone", *options, str(self.remote.path), name, **variables)

    def refs(self) -> dict[str, str]:
        """The refs of the remote and what they point at."""
        rows = self.remote.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(row.split(" ") for row in rows)

    def kept(self) -> set[str]:
        """The oids whose pointers the remote keeps."""
        rows = self.remote.git("ls-tree", "-r", "--name-only", POINTERS, accept=(0, 128)).splitlines()
        return {row.replace("/", "") for row in rows}


def bare(path: Path, *options: str) -> Repo:
    """An empty bare repository."""
    return Repo.init(path, "--bare", *options)


def stored(repo: Repo) -> set[str]:
    """The oids in the store of a repository, bare or not."""
    folder = repo.path / ".git"
    root = (folder if folder.is_dir() else repo.path) / "theta" / "objects"
    return {path.name for path in root.rglob("*") if path.is_file()}


def fronted(folder: Path, **scripts: str) -> str:
    """The PATH with a new folder before it that has scripts made of their text; `git_lfs` is `git-lfs`."""
    folder.mkdir()
    for name, text in scripts.items():
        script = folder / name.replace("_", "-")
        script.write_text(text)
        script.chmod(0o755)
    return os.pathsep.join([os.fspath(folder), os.environ["PATH"]])


def logged_git_lfs(log: Path) -> str:
    """The text of a git-lfs that notes how it was called, one line each, is noisy, and then is the real one."""
    real = shutil.which("git-lfs")
    return f'#!/bin/sh\necho "$1" >> "{log}"\n[ "$1" != fetch ] || echo noise; exec "{real}" "$@"\n'


def calls(log: Path) -> list[str]:
    """How often the logged git-lfs was called to move something."""
    return [line for line in log.read_text().splitlines() if line in ("fetch", "push", "smudge", "pull")]


def only(folder: Path, *names: str) -> str:
    """A PATH of one new folder with Git, Git-Theta, a shell, and these programs of the machine."""
    folder.mkdir()
    for name in ("git", "sh", "cat", "dirname", "env", *names):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    for name in ("git-theta", "git-theta-filter"):
        (folder / name).symlink_to(scripts_path() / name)
    return os.fspath(folder)
