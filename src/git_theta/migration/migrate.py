"""A migration: history is rewritten beside the old one, and then all branches and tags move at once.

Until they do, nothing in the repository has changed but for objects that nothing names. What they pointed at is kept
under `refs/theta/migrated/<number>/`, so nothing is lost (docs/design/007-migrate.md).
"""

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from git_theta import git, worktree
from git_theta.depot import Depot
from git_theta.errors import InputError, RepositoryError
from git_theta.git import Repository, blob_named
from git_theta.migration import landing
from git_theta.migration.conversion import Conversion
from git_theta.migration.database import TRUE_HISTORY, Database
from git_theta.migration.rewriting import Rewriter, candidates
from git_theta.migration.selection import Selection
from git_theta.migration.tracking import Edit
from git_theta.names import shown_path

__all__ = ["BACKUPS", "Files", "Outcome", "Revisions", "migrate"]

BACKUPS = "refs/theta/migrated/"
_MOVED = ("refs/heads/", "refs/tags/")

Bar = Callable[[int], AbstractContextManager[Callable[[str], Callable[[int], None]]]]


@dataclass(frozen=True, slots=True)
class Revisions:
    """Which commits: those that `include` reaches and `exclude` does not; without `include`, the current branch's.

    `everything`: all branches and tags instead. `pushed`: commits that a remote-tracking ref has are dealt with, too.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    everything: bool = False
    pushed: bool = False


@dataclass(frozen=True, slots=True)
class Files:
    """Which files, by patterns, and what becomes of the attributes."""

    include: Sequence[bytes]
    exclude: Sequence[bytes]
    edit: Edit


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done: commits (old oid to new), versions of files and their bytes, refs, signatures lost.

    `backup` is the name below which the old refs are kept, "" where nothing changed.
    """

    commits: Mapping[str, str] = field(default_factory=dict)
    files: int = 0
    size_bytes: int = 0
    refs: Sequence[str] = ()
    unsigned: int = 0
    backup: str = ""


@dataclass(frozen=True, slots=True)
class _Ref:
    """A branch or tag; `kind` is that of the object, `worktree` where it is checked out."""

    name: str
    oid: str
    kind: str
    worktree: str


def migrate(
    repository: Repository,
    depot: Depot,
    revisions: Revisions,
    files: Files,
    work: Conversion,
    *,
    bar: Bar,
    fetch: Callable[[], None],
    report: Callable[[str, bytes], None],
    object_map: Path | None = None,
) -> Outcome:
    """Rewrite, and say what was done; whatever is raised before the refs move, nothing has changed.

    `fetch` brings what `work` lacks, `report` is told of each file that was converted (commit, path).
    """
    landing.resume(repository)
    if repository.git("rev-parse", "--is-shallow-repository").strip() == b"true":
        raise RepositoryError("this clone is shallow, so its history is not all here; run: git fetch --unshallow")
    refs = _refs(repository)
    commits = _commits(repository, revisions)
    head = repository.head()
    if repository.worktree and head in commits:
        landing.check_clean(repository)
    with (
        Selection(repository, files.include, files.exclude) as selection,
        Database(repository, depot.store) as database,
    ):
        sizes = work.plan(candidates(database, selection, commits))
        fetch()
        blobs = {}
        with bar(sum(sizes.values())) as begin:
            progress = begin("converting")
            for blob in sizes:
                made = work.convert(blob, database, progress)
                if made != blob:
                    blobs[blob] = made
        rewriter = Rewriter(database, selection, blobs, files.edit, report)
        for commit in commits:
            rewriter.rewrite(commit)
        moves = {ref: made for ref in refs if (made := _renamed(rewriter, ref)) != ref.oid}
    if object_map is not None:
        _write_map(object_map, rewriter.renamed)
    if not moves:
        return Outcome()
    backup = _move(repository, moves)
    converted = sum(sizes[blob] for blob in blobs)
    names = [ref.name for ref in moves]
    return Outcome(rewriter.renamed, len(blobs), converted, names, rewriter.unsigned, backup)


def _refs(repository: Repository) -> list[_Ref]:
    """The branches and tags; a symbolic one follows what it names."""
    form = "%(refname)%00%(objectname)%00%(objecttype)%00%(symref)%00%(worktreepath)%00"
    rows = repository.git("for-each-ref", f"--format={form}", *_MOVED).split(b"\0\n")[:-1]
    fields = [os.fsdecode(row).split("\0") for row in rows]
    return [_Ref(name, oid, kind, place) for name, oid, kind, symbolic, place in fields if not symbolic]


def _commits(repository: Repository, revisions: Revisions) -> dict[str, None]:
    """The commits, parents first."""
    include = [_named(repository, name) for name in revisions.include]
    exclude = [_named(repository, name) for name in revisions.exclude]
    if revisions.everything:
        include = [ref.oid for ref in _refs(repository) if ref.kind in ("commit", "tag")]
    elif not include:
        branch = repository.git("symbolic-ref", "--quiet", "HEAD", accept=(0, 1)).decode().strip()
        head = repository.head()
        if not branch or head is None:
            raise InputError("no branch with a commit is checked out; name the branches, or give --everything")
        include = [head]
    if not revisions.everything and not revisions.pushed:
        exclude += repository.git("for-each-ref", "--format=%(objectname)", "refs/remotes/").decode().split()
    if not include:
        return {}
    asked = "".join([*(f"{oid}\n" for oid in include), *(f"^{oid}\n" for oid in exclude)]).encode()
    listing = git.run(
        ["rev-list", "--topo-order", "--reverse", "--stdin"], cwd=repository.base, stdin=asked, environ=TRUE_HISTORY
    )
    return dict.fromkeys(listing.decode().split())


def _named(repository: Repository, name: str) -> str:
    oid = blob_named(f"{name}^{{commit}}", repository.base)
    if oid is None:
        raise InputError(f"{shown_path(name)}: there is no such branch, tag or commit; to see them: git branch --all")
    return oid


def _renamed(rewriter: Rewriter, ref: _Ref) -> str:
    if ref.kind == "tag":
        return rewriter.tag(ref.oid)
    return rewriter.renamed.get(ref.oid, ref.oid)


def _move(repository: Repository, moves: Mapping[_Ref, str]) -> str:
    """Move the refs, keep what they pointed at, and bring the worktree along; the name below which it is kept."""
    branch = repository.git("symbolic-ref", "--quiet", "HEAD", accept=(0, 1)).decode().strip()
    arriving = None
    for ref, made in moves.items():
        if ref.name == branch and repository.worktree:
            arriving = landing.prepare(repository, ref.oid, made)
        elif ref.worktree and Path(ref.worktree) != repository.worktree and Path(ref.worktree) != repository.git_dir:
            raise RepositoryError(
                f"{shown_path(ref.worktree)}: {shown_path(ref.name)} is checked out there, and would move away under "
                "it; run `git switch --detach` there first; nothing was rewritten"
            )
    kept = repository.git("for-each-ref", "--format=%(refname)", BACKUPS).decode("utf-8", "surrogateescape").split()
    numbers = [int(word) for name in kept if (word := name.removeprefix(BACKUPS).split("/")[0]).isdecimal()]
    backup = f"{BACKUPS}{max(numbers, default=0) + 1}"
    # Or Git would carry out what it was told until this process was killed.
    orders = b"start\0"
    for ref, made in moves.items():
        orders += os.fsencode(f"create {backup}/{ref.name.removeprefix('refs/')}\0{ref.oid}\0")
        orders += os.fsencode(f"update {ref.name}\0{made}\0{ref.oid}\0")
    if arriving:
        landing.note(repository, arriving)
    repository.git("update-ref", "-m", "git theta migrate", "-z", "--stdin", stdin=orders + b"commit\0")
    if arriving:
        try:
            landing.finish(repository, arriving)
        except RepositoryError as error:
            raise RepositoryError(
                f"history was rewritten, but the worktree is not up with it ({error}); run git theta migrate once more"
            ) from error
    return backup


def _write_map(path: Path, renamed: Mapping[str, str]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(renamed.items())
    with worktree.replacing(path, 0o666) as fd:
        os.write(fd, text.getvalue().encode("ascii"))
