"""Parameters that sides of a merge moved between the shards of one model: what the commits say of where they were."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from git_theta import shards, tracked
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.shards import MAX_INDEX_BYTES, Index

__all__ = ["Commits", "entries", "kept", "manifests", "places", "under_way"]


@dataclass(frozen=True, slots=True)
class Commits:
    """What is merged: the common ancestors, and the sides, ours first."""

    bases: tuple[str, ...]
    sides: tuple[str, ...]


def under_way(repository: Repository) -> Commits | None:
    """Those of the merge, cherry-pick, revert or rebase that is not concluded; None where there is none."""
    head = repository.head()
    if head is None:
        return None
    if theirs := _commit(repository, "MERGE_HEAD"):
        bases = repository.git("merge-base", "--all", head, theirs, accept=(0, 1)).decode().split()
        return Commits(tuple(bases), (head, theirs))
    # gitrevisions(7): what is picked or reverted is a change from one commit to the next.
    for base, theirs in (
        ("CHERRY_PICK_HEAD^", "CHERRY_PICK_HEAD"),
        ("REBASE_HEAD^", "REBASE_HEAD"),
        ("REVERT_HEAD", "REVERT_HEAD^"),
    ):
        if side := _commit(repository, theirs):
            return Commits(tuple(filter(None, [_commit(repository, base)])), (head, side))
    return None


def _commit(repository: Repository, name: str) -> str:
    return repository.git("rev-parse", "--verify", "--quiet", name, accept=(0, 1, 128)).decode().strip()


def places(path: bytes, indexes: Sequence[Index]) -> dict[str, bytes]:
    """The paths of the shards that indexes at a path speak of."""
    files = dict.fromkeys(file for index in indexes for file in index.files)
    return {file: os.path.join(os.path.dirname(path), os.fsencode(file)) for file in files}  # noqa: PTH118, PTH120


def manifests(repository: Repository, files: Mapping[str, IndexEntry]) -> dict[str, Manifest]:
    """Those of the files that are checkpoints which Git-Theta keeps."""
    blobs = repository.blobs([entry.oid for entry in files.values()], MAX_MANIFEST_BYTES)
    found = {file: tracked.manifest_in(blobs.get(entry.oid)) for file, entry in files.items()}
    return {file: manifest for file, manifest in found.items() if manifest is not None}


def entries(repository: Repository, commit: str, paths: Iterable[bytes]) -> dict[bytes, IndexEntry]:
    """The files of a commit at these paths."""
    listing = repository.git("ls-tree", "-z", "--full-tree", commit, "--", *map(os.fsdecode, paths))
    found = {}
    for row in listing.split(b"\0")[:-1]:
        head, _, path = row.partition(b"\t")
        mode, kind, oid = head.decode().split(" ")
        if kind == "blob":
            found[path] = IndexEntry(path, mode, oid)
    return found


def kept(
    repository: Repository, commits: Commits, path: bytes, indexes: Sequence[Index], there: Mapping[str, Manifest]
) -> dict[str, str]:
    """Which of the shards that are there counts for a parameter that several have: as `shards.kept`, by the commits."""

    def at(commit: str) -> dict[str, Manifest]:
        old = [index for index in [_index(repository, commit, path)] if index is not None]
        known = places(path, [*indexes, *old])
        found = entries(repository, commit, known.values())
        return manifests(repository, {file: found[place] for file, place in known.items() if place in found})

    return shards.kept(there, list(map(at, commits.bases)), list(map(at, commits.sides)), indexes[0])


def _index(repository: Repository, commit: str, path: bytes) -> Index | None:
    """The index of shards at a path of a commit."""
    found = entries(repository, commit, [path]).get(path)
    text = repository.blobs([found.oid], MAX_INDEX_BYTES).get(found.oid) if found else None
    return None if text is None else shards.parse(text)
