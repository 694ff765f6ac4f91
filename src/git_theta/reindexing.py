"""Indexes of sharded checkpoints brought up to date once their shards are merged: in the worktree and the index, or in
a tree that several branches become.
"""

import os
from collections.abc import Container, Iterable, Mapping, Sequence

from git_theta import shards, tracked, worktree
from git_theta.errors import ConflictError
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.names import shown_path
from git_theta.shards import MAX_INDEX_BYTES, Index

__all__ = ["reindex", "reindex_tree"]


def reindex(repository: Repository, paths: Iterable[bytes]) -> list[bytes]:
    """Make the indexes anew that lie beside these shards, or are in conflict, and stage them; the paths of those.

    An index one of whose shards is still in conflict is left as it is, and so is one that the user is at work on.
    Raises ConflictError, which names the index, for shards that cannot be put together.
    """
    unmerged = repository.unmerged()
    entries = {entry.path: entry for entry in repository.index()}
    found = _concerned(entries.keys() | unmerged, paths, unmerged)
    return [path for path in found if _reindexed(repository, path, entries, unmerged)]


def reindex_tree(
    repository: Repository,
    entries: Sequence[IndexEntry],
    paths: Iterable[bytes],
    torn: Mapping[bytes, Sequence[str]],
) -> dict[bytes, bytes]:
    """The texts of the indexes, among the files of a tree, that have to be made anew: as `reindex`, for a tree.

    `torn` are the files that Git could not merge, with the blobs of their sides. Raises ConflictError for one that is
    no index of shards which Git-Theta keeps.
    """
    files = {entry.path: entry for entry in entries}
    texts = {}
    for path in _concerned(files, paths, torn):
        oids = list(dict.fromkeys([*torn.get(path, ()), files[path].oid]))
        old = _parsed(repository, oids)
        made = _made_anew(repository, path, old, files) if old else None
        if path in torn and made is None:
            raise ConflictError(f"{shown_path(path)}: the branches changed it in ways that someone must put together")
        if made is not None and (path in torn or made != old[0]):
            texts[path] = shards.format(made)
    return texts


def _concerned(known: Iterable[bytes], paths: Iterable[bytes], torn: Container[bytes]) -> list[bytes]:
    """The indexes that lie beside these shards, or are in conflict."""
    folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120  # bytes
    return [
        path
        for path in sorted(known)
        if path.endswith(shards.SUFFIX) and (path in torn or os.path.dirname(path) in folders)  # noqa: PTH120
    ]


def _parsed(repository: Repository, oids: Sequence[str]) -> list[Index]:
    """The indexes that these blobs are; none where one of them is no index."""
    texts = repository.blobs(oids, MAX_INDEX_BYTES)
    indexes = [index for oid in oids if oid in texts and (index := shards.parse(texts[oid])) is not None]
    return indexes if len(indexes) == len(oids) else []


def _places(path: bytes, indexes: Sequence[Index]) -> dict[str, bytes]:
    """The paths of the shards that indexes at a path speak of."""
    files = dict.fromkeys(file for index in indexes for file in index.files)
    return {file: os.path.join(os.path.dirname(path), os.fsencode(file)) for file in files}  # noqa: PTH118, PTH120


def _made_anew(
    repository: Repository, path: bytes, indexes: Sequence[Index], entries: Mapping[bytes, IndexEntry]
) -> Index | None:
    """The index of these files; None where Git-Theta does not keep all of its shards that are there."""
    there = {file: entries[place] for file, place in _places(path, indexes).items() if place in entries}
    manifests = _manifests(repository, there)
    if not manifests or len(manifests) < len(there):
        return None
    try:
        return shards.regenerate(indexes, manifests)
    except ConflictError as error:
        raise ConflictError(f"{shown_path(path)}: {error}") from error


def _reindexed(repository: Repository, path: bytes, entries: dict[bytes, IndexEntry], unmerged: set[bytes]) -> bool:
    """Whether an index had to be made anew."""
    oids = [entries[path].oid] if path in entries else [entry.oid for entry in _sides(repository, path)]
    indexes = _parsed(repository, oids)
    if not indexes or unmerged & set(_places(path, indexes).values()):
        return False
    made = _made_anew(repository, path, indexes, entries)
    if made is None or (path in entries and made == indexes[0]):
        return False
    place = worktree.locate(repository, path)
    if path in entries and (
        not place.exists() or repository.blobs(oids, MAX_INDEX_BYTES).get(oids[0]) != place.read_bytes()
    ):
        return False
    mode = entries[path].mode if path in entries else _sides(repository, path)[0].mode
    worktree.write(place, shards.format(made), executable=mode == "100755")
    repository.stage(path)
    return True


def _sides(repository: Repository, path: bytes) -> list[IndexEntry]:
    stages = repository.stages(path)
    return [stages[stage] for stage in (2, 3) if stage in stages]


def _manifests(repository: Repository, entries: dict[str, IndexEntry]) -> dict[str, Manifest]:
    """Those of the files that are checkpoints which Git-Theta keeps."""
    blobs = repository.blobs([entry.oid for entry in entries.values()], MAX_MANIFEST_BYTES)
    found = {file: tracked.manifest_in(blobs.get(entry.oid)) for file, entry in entries.items()}
    return {file: manifest for file, manifest in found.items() if manifest is not None}
