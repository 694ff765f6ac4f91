"""How tracked files stand: what `git status` says of each, and what only Git-Theta knows of it."""

import os
from dataclasses import dataclass, field

from git_theta import tracked, worktree
from git_theta.git import Repository
from git_theta.store import Store
from git_theta.tracked import Kind, TrackedFile
from git_theta.worktree import Presence

__all__ = ["Standing", "of_all"]

_STAGED = {"A": "added", "M": "modified", "T": "modified", "D": "deleted"}


@dataclass(frozen=True, slots=True)
class Standing:
    """How one tracked file stands.

    `staged`: "added", "modified" or "deleted" in the index since HEAD, or "". `worktree`: "clean", "modified",
    "missing", "conflict", "intended" (`git add --intent-to-add`), or "absent", where there should be no file. `kind` is
    None where the index has none.
    """

    path: bytes
    kind: Kind | None
    staged: str
    worktree: str
    presence: Presence
    objects: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    @property
    def words(self) -> str:
        """The standing in a few words, "clean" where there is nothing to say."""
        words = [f"staged ({self.staged})"] if self.staged else []
        if self.worktree not in ("clean", "absent"):
            words.append(self.worktree)
        if self.presence is Presence.MANIFEST:
            words.append("not materialised")
        return ", ".join(words) or self.worktree


def of_all(repository: Repository, store: Store) -> list[Standing]:
    """How every tracked file stands, and those that were removed from the index, or are in conflict; by path."""
    changes = repository.changes()
    entries = tracked.entries(repository)
    rows = [_standing(repository, store, file, changes) for file in tracked.find(repository, entries)]
    here = {row.path for row in rows}
    gone = [path for path, letters in changes.items() if path not in here and (letters == "UU" or letters[0] == "D")]
    filters = repository.attributes(gone, "filter") if gone else {}
    rows += [_without_entry(repository, path, changes[path]) for path in gone if filters[path] == tracked.FILTER]
    return sorted(rows, key=lambda row: row.path)


def _standing(repository: Repository, store: Store, file: TrackedFile, changes: dict[bytes, str]) -> Standing:
    letters = changes.get(file.path, "..")
    index, work = letters[0], letters[1]
    presence = worktree.look(repository.top() / os.fsdecode(file.path))
    objects = file.manifest.objects() if file.manifest else {}
    if work == "D":
        state = "missing"
    elif work == "A":
        state = "intended"
    elif work != ".":
        state = "modified"
    else:
        # A sparse checkout leaves files out without calling them missing.
        state = "absent" if presence is Presence.MISSING else "clean"
    return Standing(
        file.path, file.kind, _STAGED.get(index, ""), state, presence, objects, store.missing(objects), file.problem
    )


def _without_entry(repository: Repository, path: bytes, letters: str) -> Standing:
    presence = worktree.look(repository.top() / os.fsdecode(path))
    if letters == "UU":
        return Standing(path, None, "", "conflict", presence)
    return Standing(path, None, "deleted", "absent", presence)
