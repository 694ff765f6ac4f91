"""Branches joined: which checkpoints a merge of commits will have to merge, and what `git theta merge` tells Git.

Git itself merges two branches, and starts our driver (drivers/merge.py) for files that both sides changed. Here is what
it does not do: a look ahead, trailers that say how the models were merged, and a true merge of several branches at
once (Git's own merges two at a time, without our driver).
"""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from git_theta import git, tracked
from git_theta.errors import ConflictError, InputError, RepositoryError
from git_theta.git import Repository
from git_theta.manifest import MAX_MANIFEST_BYTES
from git_theta.names import shown_path
from git_theta.outcome import Versions
from git_theta.threeway import Decision

__all__ = ["Branches", "File", "branches", "files", "octopus", "trailers"]

_MOST_TRAILERS = 100
_MERGE_TREE = (2, 38)


@dataclass(frozen=True, slots=True)
class Branches:
    """The commits to be joined: the common ancestor (None where there is none), HEAD, and the others by their names.

    Of several others, those that HEAD or another one of them has already are left out.
    """

    base: str | None
    head: str
    named: Mapping[str, str]

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(self.named.values())


@dataclass(frozen=True, slots=True)
class File:
    """A checkpoint that several sides changed, and not alike."""

    path: bytes
    versions: Versions


def branches(repository: Repository, names: Sequence[str]) -> Branches:
    """The commits that the user names; raises InputError for a name of none, or where nothing is committed yet."""
    head = repository.head()
    if head is None:
        raise InputError("there is no commit yet to merge into")
    named = {}
    for name in names:
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        found = repository.git(*asked, accept=(0, 1, 128)).decode().strip()
        if not found:
            raise InputError(f"{shown_path(name)}: no such branch or commit; to see them: git branch --all")
        named[name] = found
    if len(names) > 1:
        new = {*repository.git("merge-base", "--independent", head, *named.values()).decode().split()} - {head}
        firsts = {oid: name for name, oid in reversed(named.items())}
        named = {name: oid for name, oid in named.items() if oid in new and firsts[oid] == name}
    if not named:
        return Branches(head, head, {})
    octopus = ("--octopus",) if len(named) > 1 else ()
    base = repository.git("merge-base", *octopus, head, *named.values(), accept=(0, 1)).decode().split()
    return Branches(base[0] if base else None, head, named)


def files(repository: Repository, joined: Branches) -> Iterator[File]:
    """The checkpoints that several of the commits changed, and not alike."""
    sides = [_changed(repository, joined.base, commit) for commit in (joined.head, *joined.others)]
    counts = Counter(path for side in sides for path in side)
    for path in sorted(path for path, count in counts.items() if count > 1):
        old = next(side[path][0] for side in sides if path in side)
        # A side that did not change it has what the base has.
        oids = [side[path][1] if path in side else old for side in sides]
        if len(set(oids) - {old}) < 2 or not all(oids):
            continue
        blobs = repository.blobs([oid for oid in dict.fromkeys([old, *oids]) if oid], MAX_MANIFEST_BYTES)
        found = [tracked.manifest_in(blobs.get(oid)) for oid in oids]
        present = [side for side in found if side is not None]
        if len(present) == len(found):
            yield File(path, Versions(tracked.manifest_in(blobs.get(old)), present[0], present[1], tuple(present[2:])))


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
        names = ("ours", "theirs", *(f"side{number}" for number in range(3, len(versions.sides) + 1)))
        sides = " ".join(f"{name}={side.digest[:16]}" for name, side in zip(names, versions.sides, strict=True))
        lines.append(f"Theta-Merged: {shown_path(os.fsdecode(path))} base={base} {sides}")
    return lines


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def octopus(repository: Repository, joined: Branches, merged: Mapping[bytes, bytes], message: str) -> str:
    """A commit of HEAD and all the other commits, in which these paths have these manifests; HEAD stays where it is.

    Everything else is merged as Git does it. Raises ConflictError where that takes someone's hand.
    """
    if git.version() < _MERGE_TREE:
        raise RepositoryError("several branches at once need Git 2.38 or newer; merge one after the other")
    # Git merges two commits at a time. Where both have what is merged already, it has nothing to do.
    oids = dict(zip(merged, repository.write_blobs(merged.values(), loose=True), strict=True))
    current = _putting(repository, joined.head, oids)
    for other in joined.others:
        side = _putting(repository, other, oids)
        current = _commit(repository, _merge_tree(repository, current, side), [current, side], "on the way")
    return _commit(repository, f"{current}^{{tree}}", [joined.head, *joined.others], message)


def _putting(repository: Repository, commit: str, oids: Mapping[bytes, str]) -> str:
    """A commit upon this one, in which these paths have these blobs."""
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        environ = {"GIT_INDEX_FILE": os.path.join(folder, "index")}  # noqa: PTH118  # a string for the environment
        base = repository.base
        git.run(["read-tree", commit], cwd=base, environ=environ)
        modes = {entry.path: entry.mode for entry in repository.index(oids, environ)}
        rows = [f"{modes[path]} {oid}\t".encode() + path + b"\0" for path, oid in oids.items()]
        git.run(["update-index", "-z", "--index-info"], cwd=base, stdin=b"".join(rows), environ=environ)
        tree = git.run(["write-tree"], cwd=base, environ=environ).decode().strip()
    return _commit(repository, tree, [commit], "on the way")


def _merge_tree(repository: Repository, ours: str, theirs: str) -> str:
    """The tree of a merge of two commits."""
    words = ["merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs]
    tree, *conflicts = git.run(words, cwd=repository.base, accept=(0, 1)).split(b"\0")[:-1]
    left = [path for path in conflicts if path]
    if left:
        raise ConflictError(
            f"{shown_path(left[0])}: the branches changed it in ways that someone must put together; "
            "merge one after the other"
        )
    return tree.decode()


def _commit(repository: Repository, tree: str, parents: Sequence[str], message: str) -> str:
    words = [word for parent in parents for word in ("-p", parent)]
    return repository.git("commit-tree", tree, *words, "-F", "-", stdin=message.encode()).decode().strip()
