"""What a file says beside its tensors, by name: the metadata of safetensors, the numbers and strings of torch's pickle.

Read from the layout, which has the bytes between the parameters; no value is loaded, and nothing in a pickle is run.
Where the bytes are of another kind, or are not what the format says, there is nothing.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, islice

from git_theta import jsontext, names
from git_theta.errors import ChangedError, FormatError
from git_theta.formats import archive, inert_pickle
from git_theta.formats.inert_pickle import Pairs, Record
from git_theta.layout import Layout

__all__ = ["Difference", "Scalar", "Scalars", "differences", "read"]

Scalar = bool | int | float | str | None
Scalars = dict[str, Scalar]

_LENGTH_BYTES = 8
_MOST_NODES = 1_000_000
_DEEPEST = 32
_PICKLE = "data.pkl"
_METADATA = "__metadata__"


def read(format_name: str, layout: Layout) -> Scalars:
    """The scalars of a file of a format."""
    reader = {"safetensors": _of_header, "torch": _of_archive}.get(format_name)
    try:
        return reader(layout) if reader else {}
    except (FormatError, ChangedError, ValueError):
        return {}


def _of_header(layout: Layout) -> Scalars:
    """The strings of `__metadata__`."""
    size = int.from_bytes(layout.skeleton[:_LENGTH_BYTES], "little")
    header = jsontext.parse(layout.skeleton[_LENGTH_BYTES : _LENGTH_BYTES + size])
    metadata = header.get(_METADATA) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        return {}
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


def _of_archive(layout: Layout) -> Scalars:
    """The scalars of the archive's pickle, each named by its path as a tensor would be."""
    source = _Skeleton(layout)
    for entry in archive.read(source):
        if entry.name.rpartition("/")[2] == _PICKLE and entry.method == archive.STORED:
            if entry.size > inert_pickle.MAX_SIZE_BYTES or not source.has(entry.offset, entry.size):
                return {}
            root = inert_pickle.read(source.read(entry.offset, entry.size)).root
            return {names.join(path): value for path, value in _leaves(root)}
    return {}


def _leaves(root: object) -> Iterator[tuple[tuple[object, ...], Scalar]]:
    """The scalars below an object, each with its path; not those in the arguments of calls, which make tensors.

    A pickle may hold one object in many places, and so has more places than bytes: only so many are looked at.
    """
    waiting: list[tuple[tuple[object, ...], object]] = [((), root)]
    room = _MOST_NODES
    while waiting:
        path, node = waiting.pop()
        if node is None or isinstance(node, bool | int | float | str):
            yield path, node
        elif len(path) < _DEEPEST:
            children = [((*path, key), child) for key, child in islice(_children(node), room)]
            room -= len(children)
            waiting += children


def _children(node: object) -> Iterator[tuple[str | int, object]]:
    """What a container has under a string or a number."""
    if isinstance(node, list | tuple):
        yield from enumerate(node)
    elif isinstance(node, Pairs):
        yield from _named(node.pairs)
    elif isinstance(node, Record):
        yield from _named(node.pairs or ())
        yield from enumerate(node.members or ())
        for state in node.states or ():
            yield from _named(state.pairs if isinstance(state, Pairs) else ())


def _named(pairs: Iterable[tuple[object, object]]) -> Iterator[tuple[str | int, object]]:
    return ((key, child) for key, child in pairs if isinstance(key, str | int))


class _Skeleton:
    """A source of a file without its parameters, whose bytes are zeros; a `Source` (source.py)."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ends = list(accumulate(part.size for part in layout.parts))
        lengths = (part.size if part.name is None else 0 for part in layout.parts)
        self._skeleton_ends = list(accumulate(lengths))
        self.size = layout.size

    def has(self, offset: int, size: int) -> bool:
        """Whether all of these bytes are skeleton."""
        return all(part_name is None for part_name, _, _ in self._runs(offset, size))

    def read(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        skeleton = self._layout.skeleton
        return b"".join(
            bytes(count) if name is not None else skeleton[start : start + count]
            for name, start, count in self._runs(offset, size)
        )

    def read_into(self, offset: int, buffer: memoryview) -> None:
        data = self.read(offset, len(buffer))
        if len(data) != len(buffer):
            raise ChangedError(f"{len(buffer)} bytes at {offset} of {self.size}")
        buffer[:] = data

    def _runs(self, offset: int, size: int) -> Iterator[tuple[str | None, int, int]]:
        """What lies there, part by part: the part's name, where its bytes begin in the skeleton, and how many."""
        index = bisect_right(self._ends, offset)
        while size > 0 and index < len(self._ends):
            count = min(size, self._ends[index] - offset)
            yield self._layout.parts[index].name, self._skeleton_ends[index] - (self._ends[index] - offset), count
            offset, size, index = offset + count, size - count, index + 1


@dataclass(frozen=True, slots=True)
class Difference:
    """A scalar that differs; `was_there` and `is_there` tell None from nothing."""

    name: str
    before: Scalar
    after: Scalar
    was_there: bool
    is_there: bool


def differences(before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> list[Difference]:
    """The scalars that differ, by name: 1, 1.0 and True do, and so does -0.0 from 0.0, but no NaN from another."""
    return [
        Difference(name, before.get(name), after.get(name), name in before, name in after)
        for name in sorted(before.keys() | after.keys())
        if (name in before) != (name in after) or not _are_same(before.get(name), after.get(name))
    ]


def _are_same(one: Scalar, other: Scalar) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    return type(one) is type(other) and one == other
