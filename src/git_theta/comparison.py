"""A comparison of two versions of a checkpoint: what changed, what it amounts to, and what was not looked at."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from git_theta import measuring, scalars
from git_theta.changes import Change, Changes, compare
from git_theta.errors import ThetaError
from git_theta.ledger import Ledger, Pair
from git_theta.manifest import Manifest, Step
from git_theta.measuring import Extras, Found
from git_theta.scalars import Difference
from git_theta.statistics import Statistics
from git_theta.versions import Version

__all__ = ["Comparison", "Measuring", "Rest", "of"]


_MOST_NOTES = 4096


class Rest(Enum):
    """What changed in a file beside its parameters, where these are the same ones as before."""

    SAME = ""
    ORDER = "order"
    SKELETON = "metadata"
    UNKNOWN = "unknown"  # the order or the metadata: what would tell is missing or damaged


@dataclass(frozen=True, slots=True)
class Measuring:
    """How statistics are come by: computed for at most `limit_bytes` of values, or those that `ledger` has.

    `progress` makes, of the bytes that there are to do, what is told of bytes done, from several threads. With
    `extras`, all are computed anew, unless that is too much.
    """

    limit_bytes: int
    threads: int = 1
    ledger: Ledger | None = None
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]] = lambda size_bytes: nullcontext(_ignored)
    extras: Extras = Extras()


def _ignored(size_bytes: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions, None where there is none.

    `left`: pairs of values that were left unmeasured, being too many bytes. `measured_bytes` of values were read.
    `scalars`: metadata, and what a pickle has beside tensors, where it differs; `rest`: what else does.
    `notes`: what there is to say of a step beside its update.
    `is_kept`: whether the new version is stored, and so what it costs is known.
    """

    before: Manifest | None
    after: Manifest | None
    changes: Changes
    found: Found
    left: tuple[Pair, ...]
    rest: Rest
    scalars: tuple[Difference, ...]
    notes: Mapping[Step, str]
    measured_bytes: int
    is_kept: bool

    @property
    def is_empty(self) -> bool:
        """Whether the versions are the same in every byte."""
        return self.before is not None and self.after is not None and self.before.digest == self.after.digest

    def statistics(self, change: Change) -> Statistics | None:
        """Those of a change; None where they were not, or cannot be, computed."""
        found = self.found.get(change.pair) if change.pair else None
        return found if isinstance(found, Statistics) else None

    @property
    def errors(self) -> list[ThetaError]:
        """Why some were not computed."""
        return [found for found in self.found.values() if isinstance(found, ThetaError)]


def of(
    before: Version | None,
    after: Version | None,
    measure: Measuring,
    is_chosen: Callable[[str], bool] = lambda name: True,
) -> Comparison:
    """The comparison, as far as parameters of chosen names are concerned."""
    old, new = (side.manifest if side else None for side in (before, after))
    changes = compare(old, new, is_chosen)
    pairs = [item.pair for item in changes.items if item.pair]
    found, left = measuring.known(pairs, None if measure.extras else measure.ledger)
    todo = sum(map(measuring.size_bytes, left))
    if measure.extras and todo > measure.limit_bytes:
        found, left = measuring.known(pairs, measure.ledger)
        todo = sum(map(measuring.size_bytes, left))
    if before and after and left and todo <= measure.limit_bytes:
        with measure.progress(todo) as told:
            threads, ledger = measure.threads, measure.ledger
            found |= measuring.measured(left, before.values, after.values, threads, ledger, told, measure.extras)
        left = []
    is_kept = after is not None and after.is_kept
    rest, differences = _beside(changes, before, after)
    return Comparison(
        old, new, changes, found, tuple(left), rest, differences, _notes(changes, after), 0 if left else todo, is_kept
    )


def _notes(changes: Changes, after: Version | None) -> dict[Step, str]:
    """What there is to say of the steps by which the new values are stored, of the first of them."""
    steps = dict.fromkeys(step for item in changes.items for step in item.steps)
    notes = {step: after.described(step) for step in islice(steps, _MOST_NOTES)} if after else {}
    return {step: note for step, note in notes.items() if note}


def _beside(changes: Changes, before: Version | None, after: Version | None) -> tuple[Rest, tuple[Difference, ...]]:
    """What changed beside the parameters.

    That something of the header did is only said where names, dtypes and shapes are the same, for it has those as well.
    """
    if not changes.is_layout_new or before is None or after is None:
        return Rest.SAME, ()
    formats = before.manifest.format, after.manifest.format
    if not scalars.are_comparable(*formats):
        return Rest.SAME, ()
    try:
        layouts = before.layout(), after.layout()
    except ThetaError:
        return Rest.UNKNOWN if changes.is_only_beside else Rest.SAME, ()
    old, new = (scalars.read(name, layout) for name, layout in zip(formats, layouts, strict=True))
    found = tuple(scalars.differences(old, new))
    if not changes.is_only_beside or formats[0] != formats[1]:
        return Rest.SAME, found
    named = [[part.name for part in layout.parts if part.name is not None] for layout in layouts]
    if named[0] != named[1]:
        return Rest.ORDER, found
    return Rest.SAME if found else Rest.SKELETON, found
