"""What a file says beside its tensors, by name: the metadata of safetensors, the numbers and strings of torch's pickle.

Read from the layout, which has the bytes between the parameters; no value is loaded, and nothing in a pickle is run.
Where the bytes are of another kind, or are not what the format says, there is nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from git_theta import jsontext, names
from git_theta.errors import ChangedError, FormatError
from git_theta.formats import archive, inert_pickle
from git_theta.formats.inert_objects import Literal
from git_theta.formats.pickled import Scalar, leaves
from git_theta.layout import Layout
from git_theta.outline import Outline

__all__ = ["Difference", "Scalar", "Scalars", "differences", "read"]

Scalars = dict[str, Scalar]

_LENGTH_BYTES = 8
_PICKLE = "data.pkl"
_METADATA = "__metadata__"


def read(format_name: str, layout: Layout) -> Scalars:
    """The scalars of a file of a format."""
    reader = {"safetensors": _of_header, "torch": _of_archive, "torch-legacy": _of_pickles}.get(format_name)
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
    source = Outline(layout)
    for entry in archive.read(source):
        if entry.name.rpartition("/")[2] == _PICKLE and entry.method == archive.STORED:
            if entry.size > inert_pickle.MAX_SIZE_BYTES or not source.has(entry.offset, entry.size):
                return {}
            return _of_pickle(inert_pickle.read(source.read(entry.offset, entry.size)).root)
    return {}


def _of_pickles(layout: Layout) -> Scalars:
    """The scalars of the fourth of the pickles at the beginning: magic number, protocol version, system, object."""
    data = layout.skeleton[: layout.parts[0].size if layout.parts and layout.parts[0].name is None else 0]
    made = inert_pickle.read(data)
    for _ in range(3):
        made = inert_pickle.read(data, made.end)
    return _of_pickle(made.root)


def _of_pickle(root: object) -> Scalars:
    return {names.join(path): value for path, value in leaves(root) if not isinstance(value, Literal)}


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
