"""Branches joined: which checkpoints a merge of commits will have to merge, and what `git theta merge` tells Git.

Git itself merges two branches, and starts our driver (drivers/merge.py) for files that both sides changed. Here is what
it does not do: a look ahead, trailers that say how the models were merged, and a true merge of several branches at
once (Git's own merges two at a time, without our driver).
"""

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from git_theta import git, reindexing, shards, tracked
from git_theta.errors import ConflictError, InputError, RepositoryError
from git_theta.git import IndexEntry, RawRow, Repository, raw_row
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.moves import Commits
from git_theta.names import shown, shown_path
from git_theta.outcome import Versions
from git_theta.rules import Rule
from git_theta.threeway import Decision

__all__ = ["Branches", "Clash", "File", "branches", "files", "note_choices", "octopus", "signed", "trailers"]

_MOST_TRAILERS = 100
_BLOBS_AT_ONCE = 100
_RENAME_LIMIT = 7000
_ONE_BY_ONE = "merge one after the other"
_ONE_NAME = "the sides gave its name to different files"
_MERGE_TREE = (2, 38)
_ORT, _ORT_THAT_CAN_DO_WITHOUT = (2, 34), (2, 50)
"""The merge that is Git's own since then, and the first one of it that follows no renames if it is told so."""


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
    """A checkpoint that several sides changed, and not alike: its path in the result, and in each of the sides."""

    path: bytes
    versions: Versions
    paths: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Clash:
    """A checkpoint that Git will not put together, by its path in the base or in a side that added it, and why."""

    path: bytes
    reason: str


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


def files(repository: Repository, joined: Branches) -> tuple[list[File], list[Clash]]:
    """The checkpoints that several of the commits changed, and not alike; and those that they moved apart or deleted.

    A file is followed through a rename as Git's merge does it.
    """
    base = joined.base if joined.base is not None else repository.git("mktree", stdin=b"").decode().strip()
    how = _renames(repository)
    changed = [_changed(repository, base, commit, how) for commit in (joined.head, *joined.others)]
    counts = Counter(path for side in changed for path in side)
    found: list[File] = []
    clashes = _one_name(repository, changed)
    candidates = {}
    for path in sorted(path for path, count in counts.items() if count > 1):
        old = next(side[path].before for side in changed if path in side)
        # A side that did not change it has what the base has.
        sides = [side.get(path, RawRow("", "", "", old, old, path, path)) for side in changed]
        reason = _clash(path, sides)
        if reason or (all(side.after for side in sides) and len({side.after for side in sides} - {old}) > 1):
            candidates[path] = sides, reason
    rows = [side for sides, _ in candidates.values() for side in sides]
    manifests = _manifests(
        repository, list(dict.fromkeys(oid for row in rows for oid in (row.before, row.after) if oid))
    )
    for path, (sides, reason) in candidates.items():
        present = [manifests[side.after] for side in sides if side.after in manifests]
        if reason:
            clashes += [Clash(path, reason)] if present else []
        elif len(present) == len(sides):
            versions = Versions(manifests.get(sides[0].before), present[0], present[1], tuple(present[2:]))
            new = next((side.path for side in sides if side.path != path), path)
            found.append(File(new, versions, tuple(side.path for side in sides)))
    return found, clashes


def _manifests(repository: Repository, oids: Sequence[str]) -> dict[str, Manifest]:
    """The manifests among some blobs."""
    found = {}
    for start in range(0, len(oids), _BLOBS_AT_ONCE):
        for oid, content in repository.blobs(oids[start : start + _BLOBS_AT_ONCE], MAX_MANIFEST_BYTES).items():
            if (manifest := tracked.manifest_in(content)) is not None:
                found[oid] = manifest
    return found


def _one_name(repository: Repository, changed: Sequence[Mapping[bytes, RawRow]]) -> list[Clash]:
    """The names that the sides gave to different files, one of them a checkpoint."""
    given: defaultdict[bytes, dict[bytes, str]] = defaultdict(dict)
    for side in changed:
        for path, one in side.items():
            given[one.path] |= {path: one.after} if one.after else {}
    clashing = {name: set(files.values()) for name, files in given.items() if len(set(files.values())) > 1 < len(files)}
    manifests = _manifests(repository, [oid for oids in clashing.values() for oid in oids])
    return [Clash(name, _ONE_NAME) for name, oids in sorted(clashing.items()) if oids & manifests.keys()]


def _clash(path: bytes, sides: Sequence[RawRow]) -> str:
    """Why Git will not put together what became of a file; "" where it will."""
    there = [side for side in sides if side.after]
    changed = [side for side in there if (side.path, side.after) != (path, side.before)]
    if changed and len(there) < len(sides):
        if changed[0].before:
            if len(sides) > 2:
                return "one side deleted it, and another changed it"
            away, changer = ("theirs", "ours") if sides[0].after else ("ours", "theirs")
            return f"{away} deleted it, and {changer} changed it"
        return "some of the sides added it, and not alike" if len({side.after for side in there}) > 1 else ""
    names = {side.path for side in there} - {path}
    if len(names) > 1:
        return f"the sides renamed it, to {' and to '.join(map(shown_path, sorted(names)))}"
    return ""


def _renames(repository: Repository) -> Sequence[str]:
    """How Git's merge looks for renames, as options of git-diff-tree(1): git-config(1), merge.renames."""
    config = repository.config("merge", "diff")
    value = config.get("merge.renames", config.get("diff.renames")) or "true"
    if value.lower() in ("false", "no", "off", "0") and not _ORT <= git.version() < _ORT_THAT_CAN_DO_WITHOUT:
        return ("--no-renames",)
    limit = config.get("merge.renamelimit", config.get("diff.renamelimit")) or ""
    return ("-M50%", f"-l{limit if limit.isdecimal() and limit.strip('0') else _RENAME_LIMIT}")


def _changed(repository: Repository, base: str, commit: str, how: Sequence[str]) -> dict[bytes, RawRow]:
    """What a commit made of each file that it has otherwise than its base, by its path there, or here if it is new."""
    fields = iter(repository.git("diff-tree", "-r", "-z", *how, base, commit).split(b"\0")[:-1])
    rows = [raw_row(head, fields) for head in fields]
    return {row.old_path: row for row in rows}


def trailers(plans: Sequence[tuple[bytes, Versions, Sequence[Decision]]]) -> list[str]:
    """What the merge commit says of how checkpoints were merged: strategies with their options, and digests."""
    used: dict[str, int] = {}
    for _, _, decisions in plans:
        for one in decisions:
            text = _by(one.strategy, one.options)
            used[text] = used.get(text, 0) + 1
    lines = [f"Theta-Strategy: {text} ({count} parameters)" for text, count in sorted(used.items())]
    for path, versions, _ in plans[:_MOST_TRAILERS]:
        base = "none" if versions.base is None else versions.base.digest[:16]
        names = ("ours", "theirs", *(f"side{number}" for number in range(3, len(versions.sides) + 1)))
        sides = " ".join(f"{name}={side.digest[:16]}" for name, side in zip(names, versions.sides, strict=True))
        lines.append(f"{_merged(path)}{base} {sides}")
    return lines


def _merged(path: bytes) -> str:
    """What begins the line about a checkpoint that was merged."""
    return f"Theta-Merged: {shown_path(os.fsdecode(path))} base="


def signed(repository: Repository, message: bytes, lines: Sequence[str], *, comments: bool = False) -> bytes:
    """A commit's message with trailers, which go before Git's comments where there are such."""
    options = [word for line in lines for word in ("--trailer", line)]
    setting = () if comments else ("-c", "core.commentChar=\x01")
    words = (*setting, "interpret-trailers", "--if-exists", "addIfDifferent", *options)
    return repository.git(*words, stdin=message)


def note_choices(repository: Repository, path: bytes, rules: Sequence[Rule], *, first: bool) -> None:
    """Add to the message of a merge that `git theta merge` began how a file's conflicts were settled.

    Of several choices for one pattern the last is told. `first`: what is told so far is of a settling that has begun
    anew.
    """
    note = repository.git_dir / "MERGE_MSG"
    text = note.read_bytes() if note.exists() else b""
    if f"\n{_merged(path)}".encode() not in text:
        return
    begin = f"Theta-Resolved: {shown_path(os.fsdecode(path))} "
    said = {f"{begin}{shown(one.pattern)} by ": _by(one.strategy, one.options) for one in rules}
    over = tuple(word.encode() for word in ([begin] if first else said))
    text = b"".join(line for line in text.splitlines(keepends=True) if not line.startswith(over))
    note.write_bytes(signed(repository, text, [f"{word}{by}" for word, by in said.items()], comments=True))


def _by(strategy: str, options: Mapping[str, object]) -> str:
    """A strategy and its options, as far as they have a value."""
    return strategy + "".join(f" {name}={_text(value)}" for name, value in options.items() if value != ())


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def octopus(
    repository: Repository, joined: Branches, merged: Sequence[tuple[File, bytes]], message: str
) -> tuple[str, list[bytes]]:
    """A commit of HEAD and all the other commits, in which these files have these manifests; HEAD stays where it is.

    The indexes of their shards are made anew: which, is the second of what is returned. Everything else is merged as
    Git does it. Raises ConflictError where that takes someone's hand, or where a file would be put in the place of
    another one.
    """
    if git.version() < _MERGE_TREE:
        raise RepositoryError(f"several branches at once need Git 2.38 or newer; {_ONE_BY_ONE}")
    counts = Counter(file.path for file, _ in merged)
    if twice := [path for path, count in counts.items() if count > 1]:
        raise ConflictError(f"{shown_path(twice[0])}: {_ONE_NAME}; {_ONE_BY_ONE}")
    oids = repository.write_blobs([text for _, text in merged], loose=True)
    placed = [(file, oid) for (file, _), oid in zip(merged, oids, strict=True)]
    # Git merges two commits at a time. Where both have what is merged already, it has nothing to do.
    current = _putting(repository, joined.head, 0, placed)
    torn: dict[bytes, list[str]] = {}
    commits = Commits((joined.base,) if joined.base else (), (joined.head, *joined.others))
    for number, other in enumerate(joined.others, 1):
        side = _putting(repository, other, number, placed)
        current = _commit(repository, _merge_tree(repository, current, side, torn), [current, side], "on the way")
    with _index(repository, current) as environ:
        entries = repository.index((), environ)
        try:
            texts = reindexing.reindex_tree(repository, entries, [file.path for file, _ in merged], torn, commits)
        except ConflictError as error:
            raise ConflictError(f"{error}; {_ONE_BY_ONE}") from error
        modes = {entry.path: entry.mode for entry in entries}
        made = zip(texts, repository.write_blobs(texts.values(), loose=True), strict=True)
        tree = _tree(repository, environ, [IndexEntry(path, modes[path], oid) for path, oid in made])
    return _commit(repository, tree, [joined.head, *joined.others], message), list(texts)


@contextmanager
def _index(repository: Repository, commit: str) -> Iterator[dict[str, str]]:
    """The environment in which Git has an index of its own, with the files of a commit."""
    with tempfile.TemporaryDirectory(prefix="git-theta-") as folder:
        environ = {"GIT_INDEX_FILE": os.path.join(folder, "index")}  # noqa: PTH118  # a string for the environment
        git.run(["read-tree", commit], cwd=repository.base, environ=environ)
        yield environ


def _tree(repository: Repository, environ: Mapping[str, str], entries: Sequence[IndexEntry]) -> str:
    """The tree of an index with these entries put into it, one of mode "0" to take a file out."""
    rows = b"".join(f"{entry.mode} {entry.oid}\t".encode() + entry.path + b"\0" for entry in entries)
    git.run(["update-index", "-z", "--index-info"], cwd=repository.base, stdin=rows, environ=environ)
    return git.run(["write-tree"], cwd=repository.base, environ=environ).decode().strip()


def _putting(repository: Repository, commit: str, number: int, placed: Sequence[tuple[File, str]]) -> str:
    """A commit upon a side's, in which these files have these blobs, under the paths that they have in the result."""
    with _index(repository, commit) as environ:
        modes = {entry.path: entry.mode for entry in repository.index([f.paths[number] for f, _ in placed], environ)}
        moved = [file.path for file, _ in placed if file.path != file.paths[number]]
        if taken := repository.index(moved, environ) if moved else []:
            raise ConflictError(f"{shown_path(taken[0].path)}: {_ONE_NAME}; {_ONE_BY_ONE}")
        entries = [IndexEntry(file.paths[number], "0", "0" * len(oid)) for file, oid in placed]
        entries += [IndexEntry(file.path, modes[file.paths[number]], oid) for file, oid in placed]
        tree = _tree(repository, environ, entries)
    return _commit(repository, tree, [commit], "on the way")


def _merge_tree(repository: Repository, ours: str, theirs: str, torn: dict[bytes, list[str]]) -> str:
    """The tree of a merge of two commits.

    An index of shards that Git cannot merge is that of ours; the blobs of its sides are added to `torn`.
    """
    words = ["merge-tree", "--write-tree", "--no-messages", "-z", ours, theirs]
    tree, *rows = git.run(words, cwd=repository.base, accept=(0, 1)).split(b"\0")[:-1]
    stages: defaultdict[bytes, dict[str, IndexEntry]] = defaultdict(dict)
    for row in filter(None, rows):
        head, _, path = row.partition(b"\t")
        mode, oid, stage = head.decode().split(" ")
        stages[path][stage] = IndexEntry(path, mode, oid)
    for path, sides in stages.items():
        if not (path.endswith(shards.SUFFIX) and {"2", "3"} <= sides.keys()):
            raise ConflictError(
                f"{shown_path(path)}: the branches changed it in ways that someone must put together; {_ONE_BY_ONE}"
            )
        known = torn.setdefault(path, [])
        known += [oid for oid in (sides["2"].oid, sides["3"].oid) if oid not in known]
    if not stages:
        return tree.decode()
    with _index(repository, tree.decode()) as environ:
        return _tree(repository, environ, [sides["2"] for sides in stages.values()])


def _commit(repository: Repository, tree: str, parents: Sequence[str], message: str) -> str:
    words = [word for parent in parents for word in ("-p", parent)]
    return repository.git("commit-tree", tree, *words, "-F", "-", stdin=message.encode()).decode().strip()
