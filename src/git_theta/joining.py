"""Branches joined: which checkpoints a merge of commits will have to merge, and what `git theta merge` tells Git.

Git itself merges two branches, and starts our driver (drivers/merge.py) for files that both sides changed. Here is what
it does not do: a look ahead, and trailers that say how the models were merged.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from git_theta import tracked
from git_theta.errors import InputError
from git_theta.git import Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.names import shown_path
from git_theta.outcome import Versions
from git_theta.threeway import Decision

__all__ = ["Branches", "File", "branches", "files", "trailers"]

_MOST_TRAILERS = 100


@dataclass(frozen=True, slots=True)
class Branches:
    """The commits to be joined: the common ancestor (None where there is none), HEAD, and the others."""

    base: str | None
    head: str
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A checkpoint that two sides changed differently."""

    path: bytes
    versions: Versions


def branches(repository: Repository, names: Sequence[str]) -> Branches:
    """The commits that the user names; raises InputError for a name of none, or where nothing is committed yet."""
    head = repository.head()
    if head is None:
        raise InputError("there is no commit yet to merge into")
    others = []
    for name in names:
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        found = repository.git(*asked, accept=(0, 1, 128)).decode().strip()
        if not found:
            raise InputError(f"{shown_path(name)}: no such branch or commit; to see them: git branch --all")
        others.append(found)
    octopus = ("--octopus",) if len(others) > 1 else ()
    base = repository.git("merge-base", *octopus, head, *others, accept=(0, 1)).decode().split()
    return Branches(base[0] if base else None, head, tuple(others))


def files(repository: Repository, joined: Branches, other: str) -> Iterator[File]:
    """The checkpoints that HEAD and another commit both changed, and not alike."""
    mine = _changed(repository, joined.base, joined.head)
    theirs = _changed(repository, joined.base, other)
    for path in sorted(mine.keys() & theirs.keys()):
        (old, ours), (_, new) = mine[path], theirs[path]
        if ours == new or not (ours and new):
            continue
        blobs = repository.blobs([oid for oid in (old, ours, new) if oid], MAX_MANIFEST_BYTES)
        base, left, right = (_read(blobs.get(oid)) for oid in (old, ours, new))
        if left is not None and right is not None:
            yield File(path, Versions(base, left, right))


def _read(blob: bytes | None) -> Manifest | None:
    return None if blob is None else tracked.read(blob)[1]


def _changed(repository: Repository, base: str | None, commit: str) -> dict[bytes, tuple[str, str]]:
    """The oids before and after of each file that a commit has otherwise than its base; "" for no file."""
    tree = base if base is not None else repository.git("mktree", stdin=b"").decode().strip()
    words = iter(repository.git("diff-tree", "-r", "-z", "--no-renames", tree, commit).split(b"\0")[:-1])
    found = {}
    for row in words:
        old, new = (oid.decode() for oid in row.split(b" ")[2:4])
        found[next(words)] = (old if old.strip("0") else "", new if new.strip("0") else "")
    return found


def trailers(plans: Sequence[tuple[bytes, Versions, Sequence[Decision]]]) -> list[str]:
    """What the merge commit says of how checkpoints were merged: strategies with their options, and digests."""
    used: dict[str, int] = {}
    for _, _, decisions in plans:
        for one in decisions:
            options = "".join(f" {name}={_text(value)}" for name, value in one.options.items() if value != ())
            used[f"{one.strategy}{options}"] = used.get(f"{one.strategy}{options}", 0) + 1
    lines = [f"Theta-Strategy: {text} ({count} parameters)" for text, count in sorted(used.items())]
    for path, versions, _ in plans[:_MOST_TRAILERS]:
        base = "none" if versions.base is None else versions.base.digest[:16]
        sides = f"base={base} ours={versions.ours.digest[:16]} theirs={versions.theirs.digest[:16]}"
        lines.append(f"Theta-Merged: {shown_path(os.fsdecode(path))} {sides}")
    return lines


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
