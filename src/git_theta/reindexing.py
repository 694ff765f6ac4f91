"""Indexes of sharded checkpoints brought up to date in the worktree and the index, once their shards are merged."""

import os
from collections.abc import Iterable

from git_theta import shards, tracked, worktree
from git_theta.errors import ConflictError
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.names import shown_path
from git_theta.shards import MAX_INDEX_BYTES, Index

__all__ = ["reindex"]


def reindex(repository: Repository, paths: Iterable[bytes]) -> list[bytes]:
    """Make the indexes anew that lie beside these shards, or are in conflict, and stage them; the paths of those.

    An index one of whose shards is still in conflict is left as it is, and so is one that the user is at work on.
    Raises ConflictError, which names the index, for shards that cannot be put together.
    """
    folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120  # bytes
    unmerged = repository.unmerged()
    entries = {entry.path: entry for entry in repository.index()}
    found = [
        path
        for path in sorted(entries.keys() | unmerged)
        if path.endswith(shards.SUFFIX) and (path in unmerged or os.path.dirname(path) in folders)  # noqa: PTH120
    ]
    return [path for path in found if _reindexed(repository, path, entries, unmerged)]


def _reindexed(repository: Repository, path: bytes, entries: dict[bytes, IndexEntry], unmerged: set[bytes]) -> bool:
    """Whether an index had to be made anew."""
    oids = [entries[path].oid] if path in entries else [entry.oid for entry in _sides(repository, path)]
    texts = repository.blobs(oids, MAX_INDEX_BYTES)
    indexes = [index for oid in oids if oid in texts and (index := shards.parse(texts[oid])) is not None]
    if len(indexes) != len(oids):
        return False
    files = dict.fromkeys(file for index in indexes for file in index.files)
    places = {file: os.path.join(os.path.dirname(path), os.fsencode(file)) for file in files}  # noqa: PTH118, PTH120
    if unmerged & set(places.values()):
        return False
    manifests = _manifests(repository, {file: entries[place] for file, place in places.items() if place in entries})
    if not manifests or len(manifests) < sum(place in entries for place in places.values()):
        return False
    try:
        made: Index = shards.regenerate(indexes, manifests)
    except ConflictError as error:
        raise ConflictError(f"{shown_path(path)}: {error}") from error
    if path in entries and made == indexes[0]:
        return False
    place = worktree.locate(repository, path)
    if path in entries and (not place.exists() or place.read_bytes() != texts[oids[0]]):
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
