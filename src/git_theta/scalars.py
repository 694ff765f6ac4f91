"""What a file says beside its tensors, by name: the metadata of safetensors, the numbers and strings of torch's pickle.

Read from the layout, which has the bytes between the parameters; no value is loaded, and nothing in a pickle is run.
Where the bytes are of another kind, or are not what the format says, there is nothing.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from git_theta import jsontext, names
from git_theta.errors import ChangedError, FormatError
from git_theta.formats import archive, inert_pickle
from git_theta.formats.inert_objects import Global, Record
from git_theta.formats.pickled import MAX_CHARACTERS, Scalar, leaves, text_length
from git_theta.layout import Layout
from git_theta.outline import Outline
from git_theta.tensor import MAX_NAME_LENGTH

__all__ = ["Difference", "Scalar", "Scalars", "are_comparable", "differences", "read"]

Scalars = dict[str, Scalar]

_LENGTH_BYTES = 8
_PICKLE = "data.pkl"
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_LETTERS = dict(
    zip(["f2", "f4", "f8", "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"], "efd?bhiqBHIQ", strict=True)
)
"""NumPy's names of dtypes, and those of struct."""
_METADATA = "__metadata__"


def are_comparable(before: str, after: str) -> bool:
    """Whether files of these formats say what they say under the same names."""
    return before == after or {before, after} == {"torch", "torch-legacy"}


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
    """Those whose names are no longer than a tensor's; raises FormatError where there is too much of them.

    A pickle says a long text once, and means it in a million places.
    """
    found: Scalars = {}
    characters = 0
    for path, node in leaves(root, lambda node: _plain(node) is not node):
        value = _plain(node)
        items = [((*path, index), item) for index, item in enumerate(value)] if isinstance(value, tuple) else []
        for place, item in items or [(path, value)]:
            length = text_length(place)
            if length <= MAX_NAME_LENGTH and (item is None or isinstance(item, bool | int | float | str)):
                characters += length + (len(item) if isinstance(item, str) else 0)
                if characters > MAX_CHARACTERS:
                    raise FormatError("pickle: its scalars and their names are too long")
                found[names.join(place)] = item
    return found


def _plain(node: object) -> object:
    """What some calls make that stand for a number, a string or a tuple; the node itself, where it does not."""
    if isinstance(node, Global):
        return f"{node.module}.{node.name}"  # a dtype of torch, a class
    if not isinstance(node, Record) or not isinstance(node.callable, Global):
        return node
    called, args = (node.callable.module, node.callable.name), node.args
    if called == ("torch", "Size") and len(args) == 1 and isinstance(args[0], tuple):
        return args[0]
    if called == ("torch", "device") and all(isinstance(arg, str | int) for arg in args):
        return ":".join(arg if isinstance(arg, str) else str(arg)[:20] for arg in args)
    if called[0].startswith("pathlib") and all(isinstance(arg, str) for arg in args):
        return "/".join(map(str, args)).replace("//", "/", 1)
    if called[0] in _NUMPY and called[1] == "scalar" and len(args) == 2:
        number = _number(*args)
        return node if number is None else number
    return node


def _number(dtype: object, data: object) -> Scalar:
    """A scalar of NumPy, of its dtype and its bytes, which the older protocols have as text; None for another one."""
    if isinstance(data, Record) and isinstance(data.callable, Global) and data.callable.module == "_codecs":
        text = data.args[0] if data.args else None
        data = text.encode("latin-1", "replace") if isinstance(text, str) else None
    code = dtype.args[0] if isinstance(dtype, Record) and dtype.args else None
    letter = _LETTERS.get(code) if isinstance(code, str) else None
    if letter is None or not isinstance(data, bytes) or len(data) != struct.calcsize(f"<{letter}"):
        return None
    [number] = struct.unpack(f"<{letter}", data)
    return number if isinstance(number, bool | int | float) else None


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
