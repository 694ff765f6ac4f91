"""The scalars of a pickle, by the names of their places: found in its text, and merged one by one. Nothing is run.

A scalar is a number, text, bool or None that stands in a container of the pickled object; its name is its path, made as
a tensor's is (`names.join`). The arguments of calls, which make tensors, are no scalars. What is left of the text
without them is its structure. One scalar is one opcode that pushes one object, so another may stand in its place. A
long sequence of numbers, such as the state of a random generator, means something as a whole only: it is one scalar.
"""

import pickle
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise
from typing import Any

from git_theta import names
from git_theta.errors import ConflictError, FormatError
from git_theta.formats import inert_pickle
from git_theta.formats.base import NOTHING, Settle, agreed
from git_theta.formats.inert_objects import Literal, Pairs, Record
from git_theta.names import shown
from git_theta.tensor import MAX_NAME_LENGTH

__all__ = ["MAX_CHARACTERS", "Scalar", "Side", "Text", "leaves", "merge", "parse", "text_length"]

_MAX_DEPTH = 32
_MAX_NODES = 1_000_000
_MOST_APART = 16  # numbers of a sequence that are scalars each
MAX_CHARACTERS = 64 << 20
_FRAME_LENGTH = struct.Struct("<Q")
_LONGEST_LONG1 = 255
_WHAT = "what the file says beside its tensors"

Scalar = bool | int | float | str | None
Value = Scalar | tuple[Scalar, ...]


def leaves(
    root: object, is_whole: Callable[[object], bool] = lambda node: False
) -> Iterator[tuple[tuple[object, ...], Any]]:
    """The scalars below an object, each with its path; not those in the arguments of calls, which make tensors.

    They are what `inert_pickle.read` makes of them, and containers that are to be one. A pickle may hold one object in
    many places, and so has more places than bytes: only so many are looked at.
    """
    waiting: list[tuple[tuple[object, ...], object]] = [((), root)]
    room = _MAX_NODES
    while waiting:
        path, node = waiting.pop()
        if node is None or isinstance(node, bool | int | float | str | Literal) or is_whole(node):
            yield path, node
        elif len(path) < _MAX_DEPTH:
            children = [((*path, key), child) for key, child in islice(_children(node), room)]
            room -= len(children)
            waiting += children


def text_length(path: tuple[object, ...]) -> int:
    """Characters of a path's texts: whether its name is too long is known before that is made."""
    return sum(len(key) for key in path if isinstance(key, str))


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
    keyed = ((key.value if isinstance(key, Literal) else key, child) for key, child in pairs)
    return ((key, child) for key, child in keyed if isinstance(key, str | int))


@dataclass(frozen=True, slots=True)
class Text:
    """A pickle's text from `start` to `end`, with its scalars by name, and where its frames' lengths stand."""

    data: bytes
    start: int = 0
    end: int = 0
    scalars: Mapping[str, Literal] = field(default_factory=dict)
    frames: tuple[int, ...] = ()

    def structure(self, plain: Callable[[bytes], object] = lambda text: text) -> list[object]:
        """What stands between the scalars, as `plain` gives it, and their names; without the lengths of frames."""
        cuts = [(one.begin, one.end, name) for name, one in self.scalars.items()]
        cuts += [(place, place + _FRAME_LENGTH.size, "") for place in self.frames]
        rest: list[object] = []
        at = self.start
        for begin, end, name in sorted(cuts):
            rest += [plain(self.data[at:begin]), (name,)]
            at = end
        return [*rest, plain(self.data[at : self.end])]

    def written(self, opcodes: Mapping[str, bytes]) -> bytes:
        """The text with these opcodes for some of its scalars."""
        changed = sorted((self.scalars[name].begin, self.scalars[name].end, new) for name, new in opcodes.items())
        pieces = []
        at = self.start
        for begin, end, new in changed:
            pieces += [self.data[at:begin], new]
            at = end
        made = bytearray(b"".join([*pieces, self.data[at : self.end]]))
        ends = [end for _, end, _ in changed]
        grown = [0, *accumulate(len(new) - (end - begin) for begin, end, new in changed)]

        def moved(place: int) -> int:
            return place - self.start + grown[bisect_right(ends, place)]

        for place in self.frames:
            first = place + _FRAME_LENGTH.size
            (length,) = _FRAME_LENGTH.unpack_from(self.data, place)
            _FRAME_LENGTH.pack_into(made, moved(place), moved(min(first + length, self.end)) - moved(first))
        return bytes(made)


def parse(data: bytes, start: int = 0) -> Text:
    """The pickle that begins at `start`; raises FormatError as `inert_pickle.read` does.

    A scalar that stands in several places has the name of one of them. Two that have one name are none, and neither is
    one whose name is longer than a tensor's.
    """
    made = inert_pickle.read(data, start, placed=True)
    found: dict[str, Literal] = {}
    twice: set[str] = set()
    seen: set[int] = set()
    sequences: set[int] = set()
    characters = 0
    for path, node in leaves(made.root, _Sequences()):
        length = text_length(path)
        leaf = node
        if isinstance(node, list | tuple):
            leaf = None if id(node) in sequences else _together(node)
            sequences.add(id(node))
        if isinstance(leaf, Literal) and not leaf.shared and leaf.begin not in seen and length <= MAX_NAME_LENGTH:
            seen.add(leaf.begin)
            name = names.join(path)
            characters += len(name)
            if characters > MAX_CHARACTERS:
                raise FormatError("pickle: the names of its scalars are too long")
            twice.update([name] if name in found else [])
            found[name] = leaf
    rows = sorted((leaf.begin, name) for name, leaf in found.items() if name not in twice)
    scalars = {name: found[name] for _, name in rows}
    return Text(data, start, made.end, scalars, made.frames)


class _Sequences:
    """Whether something is a long sequence of numbers; each is looked at once, wherever it stands."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def __call__(self, node: object) -> bool:
        if not isinstance(node, list | tuple) or len(node) <= _MOST_APART:
            return False
        if id(node) not in self._known:
            self._known[id(node)] = all(
                isinstance(item, Literal) and isinstance(item.value, bool | int | float) for item in node
            )
        return self._known[id(node)]


def _together(items: Sequence[Literal]) -> Literal | None:
    """Literals that stand side by side as one; None for others, which are structure."""
    if any(item.shared for item in items) or any(one.end != other.begin for one, other in pairwise(items)):
        return None
    values = tuple(item.value for item in items if not isinstance(item.value, tuple))
    return Literal(values, items[0].begin, items[-1].end)


@dataclass(frozen=True, slots=True)
class Side:
    """A version's pickle, and its structure in a form that can be compared."""

    text: Text
    structure: object


def merge(base: Side | None, ours: Side, theirs: Side, settle: Settle) -> tuple[Side, bytes | None]:
    """The side whose file serves for the result, and its pickle's new text; None where that stays as it is.

    Raises ConflictError where both sides changed the structure, or one took away what the other changed.
    """
    structure = agreed(base.structure if base else None, ours.structure, theirs.structure, _WHAT)
    fitting = [side for side in (ours, theirs) if side.structure == structure]
    for name in base.text.scalars if base else ():
        found = [_literal(side, name) for side in (ours, theirs)]
        if None in found and any(one and not _are_same(one, _literal(base, name)) for one in found):
            raise ConflictError(f"one side took away the scalar '{shown(name[:80])}', and the other changed it")
    values = {name: _merged(name, base, ours, theirs, settle) for name in fitting[0].text.scalars}
    changes = [_changes(side.text, values) for side in fitting]
    if {} in changes:  # a side says just that: its file is kept
        return fitting[changes.index({})], None
    sides = [side.text for side in (ours, theirs, base) if side]
    opcodes = {name: _opcode(name, value, sides) for name, value in changes[0].items()}
    return fitting[0], fitting[0].text.written(opcodes)


def _literal(side: Side | None, name: str) -> Literal | None:
    return side.text.scalars.get(name) if side else None


def _merged(name: str, base: Side | None, ours: Side, theirs: Side, settle: Settle) -> Value:
    old, mine, other = (_literal(side, name) for side in (base, ours, theirs))
    if mine is None or other is None:  # the side that has it added it
        return (mine or other or Literal(None, 0, 0)).value
    if _are_same(mine, other) or _are_same(other, old):
        return mine.value
    if _are_same(mine, old):
        return other.value
    made = settle(name, old.value if old else NOTHING, mine.value, other.value)
    if made is None or isinstance(made, bool | int | float | str | tuple):
        return made
    raise ConflictError(f"the scalar '{shown(name[:80])}' can only be taken from a version that has it")


def _changes(text: Text, values: Mapping[str, Value]) -> dict[str, Value]:
    """The scalars that the text has otherwise."""
    return {name: value for name, value in values.items() if _key(text.scalars[name].value) != _key(value)}


def _are_same(one: Literal, other: Literal | None) -> bool:
    return other is not None and _key(one.value) == _key(other.value)


def _key(value: Value) -> object:
    """What two scalars have in common that are the same: 1, 1.0 and True are not, nor are 0.0 and -0.0."""
    if isinstance(value, tuple):
        return tuple(map(_key, value))
    return type(value), struct.pack("<d", value) if isinstance(value, float) else value


def _opcode(name: str, value: Value, sides: Sequence[Text]) -> bytes:
    """The opcode that pushes a value: that of a side which has it, or a new one."""
    for side in sides:
        literal = side.scalars.get(name)
        if literal is not None and _key(literal.value) == _key(value):
            return side.data[literal.begin : literal.end]
    if isinstance(value, tuple):
        raise ConflictError(f"the scalar '{shown(name[:80])}' can only be taken from a version that has it")
    if value is None or isinstance(value, bool):
        return {None: pickle.NONE, True: pickle.NEWTRUE, False: pickle.NEWFALSE}[value]
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return pickle.BINUNICODE + len(text).to_bytes(4, "little") + text
    number = pickle.encode_long(value)
    if len(number) <= _LONGEST_LONG1:  # torch's own unpickler knows no other
        return pickle.LONG1 + bytes([len(number)]) + number
    return pickle.LONG4 + len(number).to_bytes(4, "little") + number
