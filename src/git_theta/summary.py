"""A checkpoint in figures: its parameters, what they are, and what it costs to keep them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

from git_theta.folding import fold, natural_order
from git_theta.formats.base import Span
from git_theta.manifest import Manifest, Record
from git_theta.tensor import OPAQUE, View

__all__ = ["Group", "Parameter", "Storage", "Summary", "of_manifest", "of_spans"]


@dataclass(frozen=True, slots=True)
class Storage:
    """How a parameter is kept: the digest of its value, the bytes of its payloads, and the updates, in their order."""

    digest: str
    size: int
    updates: tuple[str, ...]

    @property
    def steps(self) -> int:
        """The length of the chain; 1 for a value that builds on no other."""
        return len(self.updates)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of `size` bytes; `storage` is None in a file that is not kept, `views` are its other names."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    views: tuple[View, ...] = ()
    storage: Storage | None = None

    @property
    def elements(self) -> int:
        """Numbers in it; none in opaque bytes."""
        return 0 if self.dtype == OPAQUE else prod(self.shape)


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters of one dtype and shape whose names differ only in numbers; the sizes are those of all together.

    `chains`: the updates of a parameter, in their order, and how many have just these; the most frequent first.
    """

    name: str
    count: int
    dtype: str
    shape: tuple[int, ...]
    size: int
    stored: int
    chains: tuple[tuple[tuple[str, ...], int], ...]

    @property
    def updates(self) -> tuple[str, ...]:
        """Every update that one of them is stored by, once."""
        return tuple(dict.fromkeys(update for chain, _ in self.chains for update in chain))

    @property
    def steps(self) -> tuple[int, int]:
        """The lengths of the shortest and of the longest chain; 0 in a file that is not kept."""
        lengths = [len(chain) for chain, _ in self.chains] or [0]
        return min(lengths), max(lengths)


@dataclass(frozen=True, slots=True)
class Summary:
    """A checkpoint; what concerns its storage is None for a file that is not kept.

    `stored`: bytes of all its payloads, each counted once. `objects`: oid to size in bytes, which may hold more.
    """

    format: str
    size: int
    parameters: tuple[Parameter, ...]
    digest: str | None = None
    stored: int | None = None
    objects: dict[str, int] | None = None

    @property
    def elements(self) -> int:
        return sum(parameter.elements for parameter in self.parameters)

    def in_order(self) -> list[Parameter]:
        """The parameters in natural order of their names."""
        return sorted(self.parameters, key=lambda parameter: natural_order(parameter.name))

    def groups(self) -> list[Group]:
        """The parameters, those together that differ only in the numbers of their names, in natural order."""
        rows = {parameter.name: parameter for parameter in self.parameters}
        folds = fold(rows, lambda name: (rows[name].dtype, rows[name].shape))
        return [_group(item.name, [rows[name] for name in item.members]) for item in folds]


def _group(name: str, rows: Sequence[Parameter]) -> Group:
    storages = [row.storage for row in rows if row.storage]
    chains = Counter(storage.updates for storage in storages).most_common()
    size, stored = sum(row.size for row in rows), sum(storage.size for storage in storages)
    return Group(name, len(rows), rows[0].dtype, rows[0].shape, size, stored, tuple(chains))


def of_manifest(manifest: Manifest) -> Summary:
    """The summary of a checkpoint that is kept."""
    rows = tuple(
        Parameter(name, row.dtype, row.shape, row.size, row.views, _storage(row))
        for name, row in manifest.parameters.items()
    )
    pieces = {piece for record in manifest.records() for step in record.store for piece in step.pieces}
    stored = sum(piece.length for piece in pieces)
    return Summary(manifest.format, manifest.size, rows, manifest.digest, stored, manifest.objects())


def _storage(record: Record) -> Storage:
    updates = tuple(step.update for step in record.store)
    return Storage(record.digest, sum(step.size for step in record.store), updates)


def of_spans(format_name: str, size: int, spans: Iterable[Span]) -> Summary:
    """The summary of a file that is not kept, as `checkpoint.segment` sees it."""
    rows = tuple(Parameter(span.name, span.dtype, span.shape, span.size, span.views) for span in spans)
    return Summary(format_name, size, rows)
