"""Where a command runs: the folder, the repository around it, and what a user's paths mean there."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta import tracked
from git_theta.config import SECTIONS, Settings, read_settings
from git_theta.errors import InputError, RepositoryError
from git_theta.git import IndexEntry, Repository, discover
from git_theta.names import shown_path
from git_theta.store import Store, open_store

__all__ = ["Place", "find_place", "open_place"]

_VARIABLES = ("GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in a repository."""

    cwd: Path
    repository: Repository

    def settings(self) -> Settings:
        """The settings that hold here."""
        return read_settings(self.repository.config(*SECTIONS), os.environ)

    def store(self) -> Store:
        """The objects, to look at: a command that stores nothing has no need of a depot."""
        return open_store(self.repository.theta_dir, self.settings())

    def typed(self, path: bytes) -> str:
        """A repository's path as it can be typed into a shell here."""
        return shlex.quote(shown_path(os.path.relpath(self.repository.top() / os.fsdecode(path), self.cwd)))

    def entries(self, arguments: Sequence[str]) -> list[IndexEntry]:
        """The tracked files at or below the paths a user gave, or all; raises InputError for one that has none."""
        self.repository.top()
        paths = {argument: self.repository.path_of(argument, self.cwd) for argument in arguments}
        rows = tracked.entries(self.repository, dict.fromkeys(paths.values()))
        for argument, path in paths.items():
            if path != b"." and not any(row.path == path or row.path.startswith(path + b"/") for row in rows):
                raise InputError(f"{shown_path(argument)}: {self._absence(path)}")
        return rows

    def _absence(self, path: bytes) -> str:
        """Why the index has no tracked file at a path."""
        if self.repository.changes([path]).get(path) == "UU":
            here = self.typed(path)
            return f"it is in conflict; take a side: git checkout --ours (or --theirs) -- {here}, then git add {here}"
        return "no tracked file in the index; to track it: git theta track, then git add"


def open_place() -> Place:
    """The place of this process; raises RepositoryError where there is no repository."""
    for name in _VARIABLES:
        if os.environ.get(name):
            # Set by `git --git-dir=... theta`, relative to this folder; our Git commands run in the worktree's root.
            os.environ[name] = str(Path(os.environ[name]).absolute())
    return Place(Path.cwd(), discover())


def find_place() -> Place | None:
    """The place of this process; None where there is no repository. Raises RepositoryError for one that Git refuses."""
    try:
        return open_place()
    except RepositoryError:
        if any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
            raise
        return None
