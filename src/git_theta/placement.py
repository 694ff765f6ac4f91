"""The layout of a merged checkpoint: whose skeleton it has, and where it is stored.

What a file says beside its parameters is merged three-way by its format (`composition`); here stands between which
versions, and what is done where several sides have a say.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from git_theta import checkpoint, composition, gaps, scalars, value
from git_theta import layout as layouts
from git_theta.checkpoint import Origin
from git_theta.composition import Placed
from git_theta.depot import Depot
from git_theta.errors import ConflictError
from git_theta.formats.base import Settle, refuse
from git_theta.layout import Layout
from git_theta.manifest import Manifest, Record
from git_theta.rebuild import naming, read_layout
from git_theta.rules import SKELETON
from git_theta.source import BytesSource
from git_theta.tensor import OPAQUE
from git_theta.value import SourceValue

__all__ = ["Skeletons", "read", "store"]

Runs = Callable[[Record], Iterator[bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class Skeletons:
    """The layouts of what is merged; `base` is None where there is no common ancestor."""

    depot: Depot
    base: Placed | None
    ours: Placed
    others: tuple[Placed, ...]

    def scalars(self) -> set[str]:
        """The names of what the versions have beside their parameters, as rules call it."""
        known = [self.ours, *self.others, *([self.base] if self.base else [])]
        return {f"{SKELETON}/{name}" for one in known for name in scalars.read(one.manifest.format, one.layout)}

    def merged(self, records: Mapping[str, Record], settle: Settle, runs: Runs | None = None) -> Layout:
        """The layout for the records, with the skeleton that a merge gives; raises ConflictError if it gives none.

        `settle` says what becomes of scalars that both of two sides changed. `runs` gives the bytes of values, which
        are those in the store otherwise.
        """
        if len(self.others) == 1:
            return self._of(records, self.base, self.others[0], runs=runs, settle=settle)
        changed = [side for side in (self.ours, *self.others) if self._is_changed(side)]
        first, second, *rest = (*changed, self.ours, self.ours)[: max(2, len(changed))]
        joined = [first, second]
        known = _known(records, joined) if rest else records
        layout = self._of(known, self.base, second, first, runs)
        for other in rest:  # what is merged so far is a side, too
            so_far = Placed(replace(self.ours.manifest, parameters=known), layout)
            joined.append(other)
            known = _known(records, joined) if other is not rest[-1] else records
            layout = self._of(known, self.base, other, so_far, runs)
        return layout

    def _is_changed(self, side: Placed) -> bool:
        """Whether a side has another skeleton than the base, but for what its values alone change."""
        base = self.base
        if base is None or side.manifest.parameters.keys() != base.manifest.parameters.keys():
            return True
        try:
            made = self._of(base.manifest.parameters, base, side, base)
        except ConflictError:  # it has others of the same names
            return True
        return layouts.format(made) != layouts.format(base.layout)

    def chosen(self, version: str, records: Mapping[str, Record]) -> Layout:
        """The layout for the records, with the skeleton of ours, theirs or base; raises ConflictError likewise."""
        # A side that is its own base has not changed: the other's skeleton counts.
        if version == "theirs":
            return self._of(records, self.ours, self.others[0])
        return self._of(records, self.others[0], self.others[0], self.version(version))

    def version(self, version: str) -> Placed:
        """Ours, theirs or base; raises ConflictError where there is no such version."""
        found = {"ours": self.ours, "theirs": self.others[0], "base": self.base}.get(version)
        if found is None:
            raise ConflictError("there is no common ancestor")
        return found

    def _of(
        self,
        records: Mapping[str, Record],
        base: Placed | None,
        theirs: Placed,
        ours: Placed | None = None,
        runs: Runs | None = None,
        settle: Settle = refuse,
    ) -> Layout:
        stored: Runs = lambda record: value.runs(record, self.depot.store)  # noqa: E731  # of a type
        return composition.compose(base, ours or self.ours, theirs, records, runs or stored, settle)


def _known(records: Mapping[str, Record], sides: Sequence[Placed]) -> dict[str, Record]:
    """Those of the records that one of the sides has: a format cannot place what another side added."""
    return {name: record for name, record in records.items() if any(name in side.manifest.parameters for side in sides)}


def read(base: Manifest | None, sides: Sequence[Manifest], depot: Depot) -> Skeletons:
    """The layouts of the versions, in which long runs outside of tensors are skeleton."""
    known = [*([base] if base else []), *sides]
    with naming("the layout"):
        placed = [
            Placed(
                plain, gaps.opened(one, plain, read_layout(one, depot), lambda record: value.runs(record, depot.store))
            )
            for one, plain in zip(known, gaps.stripped(known), strict=True)
        ]
    ours, *others = placed[-len(sides) :]
    return Skeletons(depot, placed[0] if base else None, ours, tuple(others))


def store(layout: Layout, records: Mapping[str, Record], sides: Sequence[Manifest], depot: Depot) -> Manifest:
    """The manifest of a checkpoint with this layout, which is stored."""
    layout, runs = gaps.closed(layout)
    texts = {**runs, "": layouts.format(layout)}
    values = [SourceValue(BytesSource(text), 0, len(text), OPAQUE, (len(text),)) for text in texts.values()]
    origins = [Origin(name, sides[0].parameters.get(name)) for name in texts]
    kept = checkpoint.keep(values, origins, depot, list(reversed(sides)))
    made = {
        name: Record(OPAQUE, (row.size,), row.size, digest, steps)
        for name, row, (digest, steps) in zip(texts, values, kept, strict=True)
    }
    depot.catalogue.vouch(made.values())
    record = made.pop("")
    parameters = {**records, **made}
    whole = layouts.whole_digest(record, layout, parameters)
    return Manifest(sides[0].format, layout.size, whole, record, parameters)
