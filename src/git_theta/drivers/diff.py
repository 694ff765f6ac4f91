"""What Git tells an external diff driver (`diff.<driver>.command`).

Source: git(1), "GIT_EXTERNAL_DIFF", and `run_external_diff` in Git's diff.c. There are 7 arguments, path old-file
old-hex old-mode new-file new-hex new-mode; two more for a renamed file, its new path and what Git would say of it; and
the path alone where it is in conflict. The files have what a checkout would write. "/dev/null" stands for a side that
is not there, and a hex of zeros for one that is no object, because the worktree has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from git_theta.errors import InputError

__all__ = ["Pair", "Side", "parse"]

_NOTHING = "/dev/null"


@dataclass(frozen=True, slots=True)
class Side:
    """A file with the content, and the oid of its blob, "" where there is none."""

    file: str
    oid: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What is to be compared: the paths, one or the old and the new; `unmerged`, if the path is in conflict."""

    paths: tuple[str, ...]
    before: Side | None = None
    after: Side | None = None
    unmerged: bool = False


def parse(arguments: Sequence[str]) -> Pair:
    """What Git's arguments say; raises InputError where they are not Git's."""
    if len(arguments) == 1:
        return Pair((arguments[0],), unmerged=True)
    if len(arguments) not in (7, 9):
        raise InputError(f"{len(arguments)} arguments; Git gives 1, 7 or 9: it is Git that starts this")
    path, old_file, old_oid, _, new_file, new_oid, _, *renamed = arguments
    return Pair((path, *renamed[:1]), _side(old_file, old_oid), _side(new_file, new_oid))


def _side(file: str, oid: str) -> Side | None:
    if file == _NOTHING:
        return None
    return Side(file, oid if oid.strip("0.") else "")
