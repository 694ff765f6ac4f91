"""The changes of a comparison in groups, as they are reported: those that are alike are one group."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median

from git_theta.changes import Change, Kind
from git_theta.comparison import Comparison
from git_theta.folding import fold, frame
from git_theta.manifest import Step
from git_theta.statistics import Statistics, total

__all__ = ["Group", "Sort", "groups", "relative_change"]

_FEWEST_ALIKE = 4
_BEYOND = 8
"""A change is out of line that is as many times the median of its group's, relative to the weights."""


class Sort(Enum):
    """By what the groups are put in order."""

    NAME = "name"
    REL = "rel"  # the relative change, the largest first
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class Group:
    """Changes of one kind, from one dtype and shape to one, whose names differ in numbers and words alone.

    `chains` are the updates by which each new value is stored. `was` is the name of before where that was another,
    `owner` of what it is tied to.
    """

    name: str
    changes: tuple[Change, ...]
    statistics: tuple[Statistics, ...]
    chains: tuple[str, ...] = ()
    was: str = ""
    owner: str = ""

    @property
    def kind(self) -> Kind:
        return self.changes[0].kind

    @property
    def total(self) -> Statistics | None:
        """Those of all together, of as many as there are."""
        return total(self.statistics) if self.statistics else None

    @property
    def outliers(self) -> tuple[tuple[str, float | None], ...]:
        """Names of parameters that changed far more than the others, by how much, the largest first; None for inf."""
        if not _FEWEST_ALIKE <= len(self.statistics) == len(self.changes):
            return ()
        found = [relative_change(item) for item in self.statistics]
        bound = _BEYOND * median(found)
        rows_ = zip(found, (change.name for change in self.changes), strict=True)
        beyond = sorted((row for row in rows_ if row[0] > bound), key=lambda row: -row[0])
        return tuple((name, value if math.isfinite(value) else None) for value, name in beyond)

    @property
    def ranks(self) -> tuple[float, float] | None:
        """The smallest and the largest effective rank, where any was computed."""
        found = [item.rank for item in self.statistics if item.rank is not None]
        return (min(found), max(found)) if found else None

    @property
    def size(self) -> int:
        """Bytes of the values, the old ones where they are gone."""
        faces = [change.after or change.before for change in self.changes]
        return sum(face.record.size for face in faces if face)


def groups(compared: Comparison, *, full: bool = False, sort: Sort = Sort.NAME) -> list[Group]:
    """The changes of a comparison in groups, or each by itself."""
    by_name = {change.name: change for change in compared.changes.items}
    folds = fold(by_name, lambda name: name if full else _alike(by_name[name]), siblings=not full)
    made = [_group(item.name, [by_name[name] for name in item.members], compared) for item in folds]
    if sort is Sort.REL:
        made.sort(key=lambda group: -relative_change(group.total) if group.total else 1.0)
    elif sort is Sort.SIZE:
        made.sort(key=lambda group: -group.size)
    return made


def _alike(change: Change) -> tuple[object, ...]:
    faces = [
        (face.record.dtype, face.record.shape, frame(face.owner)) if face else None
        for face in (change.before, change.after)
    ]
    was = frame(change.before.name) if change.kind is Kind.RENAMED and change.before else None
    return change.kind, *faces, was


def _group(name: str, changes: Sequence[Change], compared: Comparison) -> Group:
    found = [compared.statistics(change) for change in changes]
    was = [change.before.name for change in changes if change.before and change.after]
    owners = [face.owner for change in changes for face in (change.before, change.after) if face and face.owner]
    return Group(
        name,
        tuple(changes),
        tuple(item for item in found if item),
        tuple(" ".join(_step(step, compared) for step in change.steps) for change in changes),
        _joined(was) if was != [change.name for change in changes] else "",
        _joined(owners),
    )


def _step(step: Step, compared: Comparison) -> str:
    note = compared.notes.get(step)
    return f"{step.update} {note}" if note else step.update


def _joined(names: Iterable[str]) -> str:
    return ", ".join(item.name for item in fold(dict.fromkeys(names), siblings=True))


def relative_change(found: Statistics) -> float:
    """A change relative to the weights, as it is put in order: what was zero changed infinitely, bytes never."""
    if found.relative is not None:
        return found.relative
    return -1.0 if found.change is None else math.inf
