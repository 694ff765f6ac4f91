"""The only caller of Git: one argv list per call, never a shell, its exit code checked and its stderr kept apart.

Plumbing commands with NUL-separated output; no object, index or ref format is read here, so SHA-256 repositories, split
indexes, worktrees and partial clones need no special case (docs/design/002-calling-git.md).
"""

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta.errors import RepositoryError

__all__ = ["IndexEntry", "Repository", "discover", "run"]


def run(
    arguments: Sequence[str], *, cwd: Path | None = None, stdin: bytes = b"", accept: Sequence[int] = (0,)
) -> bytes:
    """What `git <arguments>` prints; raises RepositoryError with Git's own last line unless it exits with `accept`."""
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, input=stdin, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise RepositoryError("git is not on the PATH; install Git 2.25 or newer") from error
    if done.returncode not in accept:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise RepositoryError(
            f"git {' '.join(arguments[:3])} failed: {said[-1] if said else f'exit {done.returncode}'}"
        )
    return done.stdout


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A file in the index at stage 0: `path` in the repository, `mode` such as "100644", `oid` of its blob."""

    path: bytes
    mode: str
    oid: str


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository: `worktree` is None in a bare one; `common_dir` is shared by linked worktrees, `git_dir` is not."""

    worktree: Path | None
    git_dir: Path
    common_dir: Path

    @property
    def theta_dir(self) -> Path:
        """Where Git-Theta keeps its objects and its catalogue."""
        return self.common_dir / "theta"

    def top(self) -> Path:
        """The worktree's root; raises RepositoryError in a bare repository."""
        if self.worktree is None:
            raise RepositoryError(f"{self.git_dir}: a bare repository has no files; run this in a worktree")
        return self.worktree

    def git(self, *arguments: str, stdin: bytes = b"", accept: Sequence[int] = (0,)) -> bytes:
        """`run` from the worktree's root, so that paths are the repository's."""
        return run(["--literal-pathspecs", *arguments], cwd=self.worktree, stdin=stdin, accept=accept)

    def config(self, prefix: str) -> dict[str, str | None]:
        """Every setting below `prefix` ("theta"), keys in lower case; the last value wins, None means no "="."""
        listing = self.git("config", "-z", "--get-regexp", rf"^{prefix}\.", accept=(0, 1))
        values: dict[str, str | None] = {}
        for item in listing.split(b"\0")[:-1]:
            key, equals, value = item.decode("utf-8", "surrogateescape").partition("\n")
            values[key.lower()] = value if equals else None
        return values

    def index(self, paths: Iterable[bytes] = ()) -> list[IndexEntry]:
        """The entries of the index at or below `paths`, or all; unmerged ones are left out."""
        listing = self.git("ls-files", "-s", "-z", "--", *map(os.fsdecode, paths))
        entries = []
        for row in listing.split(b"\0")[:-1]:
            head, _, path = row.partition(b"\t")
            mode, oid, stage = head.decode().split(" ")
            if stage == "0":
                entries.append(IndexEntry(path, mode, oid))
        return entries

    def blob_at(self, revision: str, path: bytes) -> str | None:
        """The oid of the blob at a path of a revision; None where there is none, or no such revision."""
        row = self.git("ls-tree", "-z", revision, "--", os.fsdecode(path), accept=(0, 128))
        head = row.partition(b"\t")[0].decode().split(" ")
        return head[2] if len(head) == 3 and head[1] == "blob" else None

    def blobs(self, oids: Sequence[str], max_bytes: int) -> dict[str, bytes]:
        """The contents of those of the blobs that are here and at most `max_bytes` long."""
        asked = "".join(f"{oid}\n" for oid in dict.fromkeys(oids)).encode()
        if not asked:
            return {}
        checked = [row.split(" ") for row in self.git("cat-file", "--batch-check", stdin=asked).decode().splitlines()]
        small = [row[0] for row in checked if len(row) == 3 and row[1] == "blob" and int(row[2]) <= max_bytes]
        output = self.git("cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in small).encode())
        contents: dict[str, bytes] = {}
        start = 0
        for oid in small:
            end = output.index(b"\n", start)
            size = int(output[start:end].split(b" ")[2])
            contents[oid] = output[end + 1 : end + 1 + size]
            start = end + 2 + size
        return contents

    def attributes(self, paths: Sequence[bytes], attribute: str) -> dict[bytes, str]:
        """The value of an attribute for each path: "unspecified", "set", "unset" or a word."""
        listing = self.git("check-attr", "-z", "--stdin", attribute, stdin=b"".join(path + b"\0" for path in paths))
        fields = listing.split(b"\0")[:-1]
        return {fields[i]: fields[i + 2].decode("utf-8", "replace") for i in range(0, len(fields), 3)}


def discover(cwd: Path | None = None) -> Repository:
    """The repository around `cwd`; raises RepositoryError where there is none."""
    output = run(["rev-parse", "--git-dir", "--git-common-dir", "--is-bare-repository"], cwd=cwd)
    git_dir, common_dir, bare = os.fsdecode(output).splitlines()
    start = (cwd or Path.cwd()).resolve()
    worktree = None
    if bare != "true":
        top = os.fsdecode(run(["rev-parse", "--show-toplevel"], cwd=cwd, accept=(0, 128))).rstrip("\r\n")
        worktree = Path(top) if top else None
    return Repository(worktree, (start / git_dir).resolve(), (start / common_dir).resolve())
