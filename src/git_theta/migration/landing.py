"""The index and the worktree after the branch under them was rewritten: the same files, stored otherwise.

What is to be done is noted before the branch moves, so that whoever is killed afterwards goes on the next time. A file
is written only where Git would see another content than the index has, and only if it is as it was when it was clean.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from git_theta import worktree
from git_theta.attributes import FILE_NAME
from git_theta.errors import RepositoryError
from git_theta.git import Repository, raw_row
from git_theta.names import shown_path
from git_theta.source import Stamp

__all__ = ["Landing", "check_clean", "finish", "note", "prepare", "resume"]

_NAME = "theta-migrating.json"


@dataclass(frozen=True, slots=True)
class Landing:
    """HEAD goes from one commit to another; `stamps` tells how the files that differ between them lay on the disk."""

    old: str
    new: str
    stamps: Mapping[str, Stamp | None]


@dataclass(frozen=True, slots=True)
class _Change:
    """A path at which two commits differ: mode and oid before and after, None on the side that has nothing there."""

    path: bytes
    old: tuple[str, str] | None
    new: tuple[str, str] | None


def check_clean(repository: Repository) -> None:
    """Raise RepositoryError if a tracked file has changes that are not committed."""
    changes = repository.changes()
    if changes:
        files = "1 file" if len(changes) == 1 else f"{len(changes)} files"
        raise RepositoryError(
            f"{shown_path(next(iter(changes)))}: it has changes that are not committed ({files}); "
            "commit or stash them; nothing was rewritten"
        )


def prepare(repository: Repository, old: str, new: str) -> Landing:
    """What is to be done when HEAD goes from `old` to `new`; raises RepositoryError unless the worktree is as `old`."""
    changes = _changes(repository, old, new)
    stamps = {os.fsdecode(change.path): worktree.stamp(_place(repository, change.path)) for change in changes}
    check_clean(repository)
    for change in changes:
        if change.old is None and stamps[os.fsdecode(change.path)] is not None:
            raise RepositoryError(
                f"{shown_path(change.path)}: it is not committed, and would be overwritten; commit it or move it away; "
                "nothing was rewritten"
            )
    return Landing(old, new, stamps)


def note(repository: Repository, landing: Landing) -> None:
    """Leave a note for `resume`."""
    with worktree.replacing(_note(repository), 0o600) as fd, open(fd, "w", encoding="ascii", closefd=False) as file:
        json.dump(asdict(landing), file)


def resume(repository: Repository) -> None:
    """Finish what a process that was killed has begun, if there is anything."""
    path = _note(repository)
    if not path.exists():
        return
    found = json.loads(path.read_text("ascii"))
    stamps = {name: tuple(stamp) if stamp else None for name, stamp in found["stamps"].items()}
    if repository.head() == found["new"]:
        finish(repository, Landing(found["old"], found["new"], stamps))
    path.unlink(missing_ok=True)


def finish(repository: Repository, landing: Landing) -> None:
    """Bring the index and the worktree along, and take the note away."""
    entries = {entry.path: entry for entry in repository.index()}
    held = {path: (entry.mode, entry.oid) for path, entry in entries.items()}
    # What was staged anew meanwhile stays.
    changes = [
        change
        for change in _changes(repository, landing.old, landing.new)
        if held.get(change.path) in (change.old, change.new)
    ]
    sparse = {path for path, entry in entries.items() if entry.sparse}
    _stage(repository, changes, sparse)
    present = [change for change in changes if change.path not in sparse]
    # What Git makes of a file depends on the attributes, which therefore come first.
    named = [change for change in present if change.path.split(b"/")[-1] == FILE_NAME.encode()]
    _check_out(repository, landing, named)
    repository.refresh([change.path for change in present if change.new])
    differing = set(repository.git("diff-files", "-z", "--name-only").split(b"\0"))
    _check_out(repository, landing, [change for change in present if change.path in differing])
    _note(repository).unlink(missing_ok=True)


def _stage(repository: Repository, changes: Iterable[_Change], sparse: set[bytes]) -> None:
    rows = b""
    for change in changes:
        mode, oid = change.new or ("0", change.old[1] if change.old else "")
        rows += b"%s %s\t%s\0" % (mode.encode(), oid.encode(), change.path)
    repository.git("update-index", "-z", "--index-info", stdin=rows)
    again = b"".join(change.path + b"\0" for change in changes if change.path in sparse and change.new)
    repository.git("update-index", "--skip-worktree", "-z", "--stdin", stdin=again)


def _check_out(repository: Repository, landing: Landing, changes: Iterable[_Change]) -> None:
    """Put what the index has into the worktree, but for files that were written to meanwhile."""
    paths_z = b""
    for change in changes:
        place = _place(repository, change.path)
        if worktree.stamp(place) == landing.stamps.get(os.fsdecode(change.path)):
            if change.new:
                paths_z += change.path + b"\0"
            else:
                place.unlink(missing_ok=True)
    repository.git("checkout-index", "--force", "--index", "-z", "--stdin", stdin=paths_z)


def _changes(repository: Repository, old: str, new: str) -> list[_Change]:
    text = repository.git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", old, new)
    fields = iter(text.split(b"\0")[:-1])
    changes = []
    for head in fields:
        row = raw_row(head, fields)
        before, after = ((row.old_mode, row.before), (row.mode, row.after))
        changes.append(_Change(row.path, before if row.before else None, after if row.after else None))
    return changes


def _place(repository: Repository, path: bytes) -> Path:
    return repository.top() / os.fsdecode(path)


def _note(repository: Repository) -> Path:
    return repository.git_dir / _NAME
