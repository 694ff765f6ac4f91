"""What changed between two versions of a checkpoint: told from their manifests alone, no value is loaded.

A comparison the other way round gives the same changes the other way round: what was added was removed, what was tied
was untied.
"""

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from git_theta.folding import natural_order
from git_theta.manifest import Manifest, Piece, Record, Step
from git_theta.matching import renames, ties
from git_theta.tensor import View

__all__ = ["Change", "Changes", "Face", "Kind", "compare", "rows"]


class Kind(enum.Enum):
    """What happened to a parameter. The first of these that holds is said of it."""

    ADDED = "added"
    REMOVED = "removed"
    TIED = "tied"  # it became another name of a parameter
    UNTIED = "untied"
    RENAMED = "renamed"  # the same value under another name
    CONVERTED = "dtype changed"
    RESIZED = "resized"  # rows were added or removed, along axis 0
    RESHAPED = "reshaped"
    REORDERED = "reordered"  # its elements stand in another order in the file
    CHANGED = "changed"
    VIEWS = "views changed"  # the same value, of which other slices have names


_REVERSED = {Kind.ADDED: Kind.REMOVED, Kind.TIED: Kind.UNTIED}
_REVERSED |= {other: kind for kind, other in _REVERSED.items()}


@dataclass(frozen=True, slots=True)
class Face:
    """A name in one version, and the record of its value, which is that of `owner` where that is another parameter."""

    name: str
    record: Record
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a name: `before` is None where there was none, `after` where there is none any more."""

    kind: Kind
    before: Face | None
    after: Face | None

    @property
    def name(self) -> str:
        """Its name, the new one if it has two."""
        face = self.after or self.before
        return face.name if face else ""

    @property
    def pair(self) -> tuple[Record, Record] | None:
        """The two records of a value that became another one; None where one is missing, or they are of one value."""
        if self.before is None or self.after is None or self.before.record.digest == self.after.record.digest:
            return None
        return self.before.record, self.after.record

    @property
    def steps(self) -> tuple[Step, ...]:
        """The updates that the new value is stored by, without those that it has of the old one."""
        if self.after is None or self.after.owner:
            return ()
        # A step says what it is a value of only where that differs from its record, which may be another one now.
        had = {(step.update, step.pieces) for step in self.before.record.store} if self.before else set()
        return tuple(step for step in self.after.record.store if (step.update, step.pieces) not in had)

    def reversed(self) -> "Change":
        """The change back."""
        return Change(_REVERSED.get(self.kind, self.kind), self.after, self.before)


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes, in natural order of their names, and the bytes that the new version adds.

    `parameters` counts those of the new version (of the old one, where there is no new one), `unchanged` those that are
    in no change. `is_layout_new`: whether what is no parameter's value changed too: header, metadata, the order in the
    file; `is_only_beside`: whether that is so while names, dtypes and shapes are the same.
    """

    items: tuple[Change, ...]
    parameters: int
    unchanged: int
    is_layout_new: bool
    is_only_beside: bool
    added_bytes: int

    def of(self, kind: Kind) -> tuple[Change, ...]:
        """Those of a kind."""
        return tuple(item for item in self.items if item.kind is kind)


def compare(
    before: Manifest | None, after: Manifest | None, is_chosen: Callable[[str], bool] = lambda name: True
) -> Changes:
    """What changed in parameters of chosen names; None stands for a version without the checkpoint."""
    items: list[Change] = []
    if before is not None and after is not None:
        items = list(_both(before, after))
    elif after is not None:
        items = [Change(Kind.ADDED, None, Face(name, record)) for name, record in after.parameters.items()]
    elif before is not None:
        items = [Change(Kind.REMOVED, Face(name, record), None) for name, record in before.parameters.items()]
    layouts = [side.layout.digest if side else None for side in (before, after)]
    is_only_beside = layouts[0] != layouts[1] and all(item.kind is Kind.CHANGED for item in items)
    items = sorted(
        (item for item in items if is_chosen(item.name)), key=lambda item: (natural_order(item.name), item.kind.value)
    )
    side = after or before
    parameters = sum(map(is_chosen, side.parameters)) if side else 0
    touched = {item.after.name for item in items if item.after and not item.after.owner}
    unchanged = parameters - len(touched) if after else 0
    added = _added_bytes(before, after)
    return Changes(tuple(items), parameters, unchanged, layouts[0] != layouts[1], is_only_beside, added)


def rows(before: Record, after: Record) -> int | None:
    """How many rows, along axis 0, a value has gained or lost; None where its rows are others."""
    if not before.shape or not after.shape or before.shape[1:] != after.shape[1:]:
        return None
    return after.shape[0] - before.shape[0] if (before.strides, after.strides) == (None, None) else None


def _both(before: Manifest, after: Manifest) -> Iterator[Change]:
    old_ties, new_ties = ties(before), ties(after)
    renamed = renames(before, after)
    moved = _moved(before, after, old_ties, new_ties)
    arrived = {*renamed.values(), *moved.values()}
    for name, record in before.parameters.items():
        if record is after.parameters.get(name):
            continue  # the same line in both manifests
        old = Face(name, record)
        to = renamed.get(name) or moved.get(name)
        if name in after.parameters:
            yield from _of_value(old, Face(name, after.parameters[name]))
        elif to is not None:
            # That a tie was turned round is no change by itself.
            new = Face(to, after.parameters[to])
            yield from _of_value(old, new) if name in moved else (Change(Kind.RENAMED, old, new),)
        elif name in new_ties:
            owner = new_ties[name]
            yield Change(Kind.TIED, old, Face(name, after.parameters[owner], owner))
        else:
            yield Change(Kind.REMOVED, old, None)
    for name, record in after.parameters.items():
        if name in before.parameters or name in arrived:
            continue
        new = Face(name, record)
        if name in old_ties:
            owner = old_ties[name]
            yield Change(Kind.UNTIED, Face(name, before.parameters[owner], owner), new)
        else:
            yield Change(Kind.ADDED, None, new)
    yield from _aliases(before, after, old_ties, new_ties)


def _moved(before: Manifest, after: Manifest, old_ties: dict[str, str], new_ties: dict[str, str]) -> dict[str, str]:
    """The new owners, by the old, of values whose names are tied as before, with another of them in front."""
    return {
        old: new
        for old, new in new_ties.items()
        if old in before.parameters and old_ties.get(new) == old and new in after.parameters
    }


def _of_value(old: Face, new: Face) -> Iterator[Change]:
    """What happened to the one value, if anything did."""
    kind = _kind(old.record, new.record)
    if kind is not None:
        yield Change(kind, old, new)


def _kind(old: Record, new: Record) -> Kind | None:
    """What happened to a value; None for nothing."""
    if old.dtype != new.dtype:
        return Kind.CONVERTED
    if old.shape != new.shape:
        return Kind.RESIZED if rows(old, new) is not None else Kind.RESHAPED
    if old.strides != new.strides:
        return Kind.REORDERED
    if old.digest != new.digest:
        return Kind.CHANGED
    return Kind.VIEWS if _slices(old) != _slices(new) else None


def _slices(record: Record) -> list[View]:
    """The views of a part of a value; its other names are ties."""
    whole = (record.dtype, record.shape, 0, record.strides)
    found = [view for view in record.views if (view.dtype, view.shape, view.offset, view.strides) != whole]
    return sorted(found, key=lambda view: view.name)


def _aliases(before: Manifest, after: Manifest, old_ties: dict[str, str], new_ties: dict[str, str]) -> Iterator[Change]:
    """Names that are tied in one version and not there in the other."""
    for name, owner in new_ties.items():
        if name not in before.parameters and name not in old_ties:
            yield Change(Kind.TIED, None, Face(name, after.parameters[owner], owner))
    for name, owner in old_ties.items():
        if name not in after.parameters and name not in new_ties:
            yield Change(Kind.UNTIED, Face(name, before.parameters[owner], owner), None)


def _added_bytes(before: Manifest | None, after: Manifest | None) -> int:
    """Bytes of the payloads that only the new version needs."""
    if after is None:
        return 0
    had = before.parameters if before else {}
    records = [record for name, record in after.parameters.items() if record is not had.get(name)]
    needed = set(_pieces([after.layout, *records]))
    if before:
        oids = {piece.oid for piece in needed}
        needed -= {piece for piece in _pieces(before.records()) if piece.oid in oids}
    return sum(piece.length for piece in needed)


def _pieces(records: Iterable[Record]) -> Iterator[Piece]:
    return (piece for record in records for step in record.store for piece in step.pieces)
