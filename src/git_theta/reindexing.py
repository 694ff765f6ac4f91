"""Indexes of sharded checkpoints brought up to date once their shards are merged: in the worktree and the index, or in
a tree that several branches become.
"""

import os
import shlex
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from git_theta import moves, shards, worktree
from git_theta.errors import ConflictError, InputError
from git_theta.git import IndexEntry, Repository
from git_theta.moves import Commits
from git_theta.names import shown_path
from git_theta.shards import MAX_INDEX_BYTES, Index

__all__ = ["Reindexed", "reindex", "reindex_tree", "settle"]


@dataclass(frozen=True, slots=True)
class Reindexed:
    """The indexes that were made anew, and a line for each that could not be, which is in conflict."""

    made: tuple[bytes, ...]
    refused: tuple[str, ...]


def reindex(repository: Repository, paths: Iterable[bytes]) -> Reindexed:
    """Make the indexes anew that lie beside these shards, or are in conflict, and stage them.

    An index one of whose shards is still in conflict is left as it is, and so is one that the user is at work on.
    """
    unmerged = repository.unmerged()
    entries = {entry.path: entry for entry in repository.index()}
    made, refused = [], []
    for path in _concerned(entries.keys() | unmerged, paths, unmerged):
        try:
            if _reindexed(repository, path, entries, unmerged):
                made.append(path)
        except ConflictError as error:
            refused.append(str(error))
    return Reindexed(tuple(made), tuple(refused))


def settle(repository: Repository, path: bytes, side: str) -> None:
    """Make an index in conflict anew, and stage it: a parameter of which nothing tells the shard is in that of a side.

    Raises InputError where it is not in conflict, or its shards are, or are none that Git-Theta keeps; ConflictError
    where that side does not tell the shard.
    """
    unmerged = repository.unmerged()
    stages = repository.stages(path)
    if not stages:
        raise InputError("it is not in conflict; to see what is: git status")
    indexes = _parsed(repository, [entry.oid for entry in _sides(repository, path)])
    if left := sorted(unmerged & set(moves.places(path, indexes).values())):
        raise InputError(f"settle its shards before: git theta resolve {shlex.quote(shown_path(left[0]))} --list")
    stage = stages.get({"ours": 2, "theirs": 3}[side])
    word = _parsed(repository, [stage.oid]) if stage else []
    entries = {entry.path: entry for entry in repository.index()}
    made = _made_anew(repository, path, indexes, entries, moves.under_way(repository), *word) if indexes else None
    if made is None:
        where = shlex.quote(shown_path(path))
        raise InputError(f"it is no index of shards that Git-Theta keeps; put it together, then: git add {where}")
    _put(repository, path, made, next(iter(stages.values())).mode)


def reindex_tree(
    repository: Repository,
    entries: Sequence[IndexEntry],
    paths: Iterable[bytes],
    torn: Mapping[bytes, Sequence[str]],
    commits: Commits,
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
        made = _made_anew(repository, path, old, files, commits) if old else None
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


def _made_anew(
    repository: Repository,
    path: bytes,
    indexes: Sequence[Index],
    entries: Mapping[bytes, IndexEntry],
    commits: Commits | None,
    word: Index | None = None,
) -> Index | None:
    """The index of these files; None where Git-Theta does not keep all of its shards that are there.

    Of a parameter in several shards, the merged commits tell which one counts; where they do not, `word` does.
    """
    there = {file: entries[place] for file, place in moves.places(path, indexes).items() if place in entries}
    manifests = moves.manifests(repository, there)
    if not manifests or len(manifests) < len(there):
        return None
    chosen: dict[str, str] = {}
    if twice := shards.twice(manifests):
        places = word.places if word else {}
        chosen = {name: places[name] for name, files in twice.items() if places.get(name) in files}
        chosen |= moves.kept(repository, commits, path, indexes, manifests) if commits else {}
    try:
        return shards.regenerate(indexes, manifests, chosen)
    except ConflictError as error:
        raise ConflictError(f"{shown_path(path)}: {error}") from error


def _reindexed(repository: Repository, path: bytes, entries: dict[bytes, IndexEntry], unmerged: set[bytes]) -> bool:
    """Whether an index had to be made anew."""
    oids = [entries[path].oid] if path in entries else [entry.oid for entry in _sides(repository, path)]
    indexes = _parsed(repository, oids)
    if not indexes or unmerged & set(moves.places(path, indexes).values()):
        return False
    commits = moves.under_way(repository)
    try:
        made = _made_anew(repository, path, indexes, entries, commits)
    except ConflictError as error:
        if path in entries and commits:
            _tear(repository, path, commits)
        where = shlex.quote(shown_path(path))
        raise ConflictError(f"{error}; to settle it: git theta resolve {where} --strategy ours (or theirs)") from error
    if made is None or (path in entries and made == indexes[0]):
        return False
    place = worktree.locate(repository, path)
    texts = repository.blobs(oids, MAX_INDEX_BYTES)
    if path in entries and (not place.exists() or place.read_bytes() != texts[oids[0]]):
        return False
    _put(repository, path, made, entries[path].mode if path in entries else _sides(repository, path)[0].mode)
    return True


def _put(repository: Repository, path: bytes, made: Index, mode: str) -> None:
    """Write an index into the worktree, and stage it."""
    worktree.write(worktree.locate(repository, path), shards.format(made), executable=mode == "100755")
    repository.stage(path)


def _tear(repository: Repository, path: bytes, commits: Commits) -> None:
    """Put an index that Git has merged into conflict, as git-update-index(1) says in "Using --index-info"."""
    versions = (*commits.bases[:1], *commits.sides)
    stages = zip((1, 2, 3)[-len(versions) :], versions, strict=True)
    found = [(stage, moves.entries(repository, commit, [path]).get(path)) for stage, commit in stages]
    rows = [f"{entry.mode} {entry.oid} {stage}" for stage, entry in found if entry is not None]
    if rows:
        head = f"0 {'0' * len(commits.sides[0])}"
        text = b"".join(row.encode() + b"\t" + path + b"\0" for row in (head, *rows))
        repository.git("update-index", "-z", "--index-info", stdin=text)


def _sides(repository: Repository, path: bytes) -> list[IndexEntry]:
    stages = repository.stages(path)
    return [stages[stage] for stage in (2, 3) if stage in stages]
