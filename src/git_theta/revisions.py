"""Which files differ between two of these: a commit, the index, the worktree.

Git's plumbing tells, without a filter being started: a file of the worktree that Git would have to look into counts as
different, and its content tells whether it is.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from git_theta import tracked
from git_theta.git import Repository, raw_row
from git_theta.manifest import MAX_MANIFEST_BYTES

__all__ = ["Difference", "Side", "checkpoints", "differing", "is_revision"]

_SHORTEST = 150
_FILES = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class Side:
    """A file of one version: its path in the repository, and the oid of its blob, "" for what the worktree has."""

    path: bytes
    oid: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that differs; a side that has no such file is None. `unmerged`: it is in conflict."""

    before: Side | None
    after: Side | None
    unmerged: bool = False

    @property
    def path(self) -> bytes:
        """Its path, the new one if it has two."""
        side = self.after or self.before
        return side.path if side else b""


def is_revision(repository: Repository, word: str) -> bool:
    """Whether a word names a commit or a tree."""
    if word.startswith("-"):
        return False
    # In two steps: "HEAD:sub^{tree}" would be a file of that name.
    for suffix in ("", "^{tree}"):
        asked = ("rev-parse", "--verify", "--quiet", f"{word}{suffix}")
        word = repository.git(*asked, accept=(0, 1, 128)).decode("utf-8", "replace").strip()
        if not word:
            return False
    return True


def differing(
    repository: Repository, revisions: Sequence[str], paths: Sequence[bytes], *, cached: bool
) -> list[Difference]:
    """The files, checkpoints or not, that differ, by path, at or below `paths`, or anywhere.

    Of two revisions, the second from the first; of one, the worktree or (`cached`) the index from it; without one, the
    worktree from the index, or the index from HEAD.
    """
    options = ("--raw", "-z", "--no-abbrev", "--ignore-submodules=all")
    words: tuple[str, ...]
    if len(revisions) > 1:
        words = ("diff-tree", "-r", "-M", *options, *revisions)
    elif cached:
        words = ("diff-index", "--cached", "-M", *options, *(revisions or [_head(repository)]))
    elif revisions:
        words = ("diff-index", *options, *revisions)
    else:
        words = ("diff-files", *options)
    listing = repository.git(*words, "--", *map(os.fsdecode, paths))
    found: dict[bytes, Difference] = {}
    for item in _parsed(listing.split(b"\0")[:-1]):
        # A file in conflict has a second row, for what lies in the worktree.
        if not (item.path in found and found[item.path].unmerged):
            found[item.path] = item
    return [found[path] for path in sorted(found)]


def checkpoints(repository: Repository, differences: Sequence[Difference]) -> list[Difference]:
    """Those of the differences that are of a checkpoint: a manifest on one side, or a tracked file in the worktree."""
    oids = [side.oid for item in differences for side in (item.before, item.after) if side and side.oid]
    fitting = [oid for oid, size in repository.blob_sizes(oids).items() if _SHORTEST <= size <= MAX_MANIFEST_BYTES]
    manifests = {oid for oid, content in repository.stream_blobs(fitting) if tracked.means_manifest(content)}
    here = [item.path for item in differences if item.unmerged or (item.after and not item.after.oid)]
    filters = repository.attributes(here, "filter") if here else {}
    return [
        item
        for item in differences
        if any(side.oid in manifests for side in (item.before, item.after) if side)
        or filters.get(item.path) == tracked.FILTER
    ]


def _head(repository: Repository) -> str:
    """HEAD, or the empty tree where there is no commit yet."""
    return "HEAD" if repository.head() else repository.git("hash-object", "-t", "tree", "--stdin").decode().strip()


def _parsed(fields: Sequence[bytes]) -> Iterator[Difference]:
    """The files in the rows of Git's raw format."""
    words = iter(fields)
    for head in words:
        if not head.startswith(b":"):
            continue  # with one tree, diff-tree names it first
        row = raw_row(head, words)
        if row.status == "U":
            yield Difference(None, Side(row.path, ""), unmerged=True)
        else:
            yield Difference(_side(row.old_path, row.old_mode, row.before), _side(row.path, row.mode, row.after))


def _side(path: bytes, mode: str, oid: str) -> Side | None:
    """A side's file; None where there is none, or a link or a submodule."""
    return Side(path, oid) if mode in _FILES else None
