"""Parameters that sides of a merge moved between the shards of one model: what the commits say of where they were."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta import shards, tracked
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.names import shown
from git_theta.outcome import Outcome, Versions
from git_theta.shards import MAX_INDEX_BYTES, Index
from git_theta.threeway import Action, Case, Decision

__all__ = ["Commits", "entries", "kept", "manifests", "places", "told", "under_way"]

_SIDES = ("ours", "theirs")


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


def told(
    repository: Repository, path: bytes, versions: Versions, made: Outcome, environ: Mapping[str, str] | None = None
) -> Outcome:
    """The outcome of a merge of a shard, in which conflicts say where a side moved the parameter that it took out.

    The index in the side's commit tells that. Before Git has noted the other commit, its oid is in this environment.
    """
    if not any(map(_is_gone, made.conflicts)):
        return made
    commits = _of(repository, path, versions, environ or {})
    if commits is None:
        return made
    moved = [_moved(repository, path, commits[side], commits[1 - side]) for side in (0, 1)]
    decisions = []
    for one in made.decisions:
        side = 0 if one.ours is None else 1
        file = moved[side].get(one.base or one.name) if _is_gone(one) else None
        away, there = _SIDES[side], _SIDES[1 - side]
        said = f"{away} moved it to {shown(file)}, and {there} changed, renamed or untied it" if file else one.reason
        decisions.append(replace(one, reason=said))
    return replace(made, decisions=tuple(decisions))


def _is_gone(one: Decision) -> bool:
    """Whether a conflict is about what one side took out of a file."""
    return one.action is Action.CONFLICT and one.case is Case.DELETED and None in (one.ours, one.theirs)


def _of(repository: Repository, path: bytes, versions: Versions, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The commits of ours and theirs that have these versions at a path; None where they are not known."""
    head, noted = repository.head(), under_way(repository)
    # git-merge sets GITHEAD_<oid> for what it merges (builtin/merge.c), and writes MERGE_HEAD when it has stopped.
    others = [name.removeprefix("GITHEAD_") for name in environ if name.startswith("GITHEAD_")]
    others += noted.sides[1:] if noted else ()
    for other in others:
        if head is not None and other != head:
            rows = [entries(repository, commit, [path]).get(path) for commit in (head, other)]
            found = manifests(repository, {str(side): row for side, row in enumerate(rows) if row is not None})
            if (found.get("0"), found.get("1")) == (versions.ours, versions.theirs):
                return head, other
    return None


def _moved(repository: Repository, path: bytes, side: str, other: str) -> dict[str, str]:
    """The names of parameters that the other commit has in this shard, and a side in another one, which is given."""
    folder, here = os.path.split(path)
    listing = repository.git(
        "ls-tree", "-z", "--name-only", "--full-tree", side, *([f"{os.fsdecode(folder)}/"] * bool(folder))
    )
    found: dict[str, str] = {}
    for name in listing.split(b"\0")[:-1]:
        if name.endswith(shards.SUFFIX):
            new, old = (_index(repository, commit, name) for commit in (side, other))
            before = old.places if old else {}
            after = new.places if new else {}
            found |= {key: file for key, file in after.items() if before.get(key) == os.fsdecode(here) != file}
    return found


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
