"""The `row-delta` update: the rows of a tensor that were trained, each as its difference to the base's row.

For embeddings that are tuned on few tokens, experts that were routed to, heads that were unfrozen. `sparse` stores such
rows as new values, and `delta` codes the rows that are the same, too; here a row that stays costs nothing, and one that
changed what its change is worth. README.md has the payload's format.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from git_theta.errors import DamagedObjectError
from git_theta.source import Source
from git_theta.tensor import words_of
from git_theta.updates import planes
from git_theta.updates.base import Base, Value
from git_theta.updates.planes import Cursor

if TYPE_CHECKING:
    import numpy as np

    from git_theta.updates.planes import Words

__all__ = ["MAX_FRAME_BYTES", "ROW_DELTA", "RowDelta"]

MAX_FRAME_BYTES = 4 * 2**20
MAX_ROW_BYTES = 2**20

_HEADER = struct.Struct("<IIBBBxI")
_UNSORTED = 255
_EXPONENTS = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52}
"""The lowest bit of a float's exponent, on which the difference in units of the last place depends above all."""


class RowDelta:
    """Differences from a base of the same dtype, for the rows that differ: what lies at one index of the first axis.

    In a value of fewer than two axes, every element is a row.
    """

    name = "row-delta"
    bases = 1

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """The differences; None where the base is of another dtype, or rows are longer than 1 MiB or no whole words."""
        [base] = bases
        word, floating = words_of(value.dtype, value.size)
        row = value.size // max(1, value.shape[0]) if len(value.shape) > 1 else word
        if base.dtype != value.dtype or row % word or row > MAX_ROW_BYTES or (value.size and not row):
            return None
        kind = _Kind(row, word, floating, _EXPONENTS.get(value.dtype, _UNSORTED))
        return (run for rows in _whole_rows(value, row) for run in _encode_frame(rows, base, kind))

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        [base] = bases
        cursor = Cursor(payload)
        done = 0
        while not cursor.ended:
            length, row, word, floating, key, changed = _HEADER.unpack(cursor.take(_HEADER.size))
            if word not in (1, 2, 4, 8) or floating > 1 or not row or row % word or 8 * word <= key != _UNSORTED:
                raise DamagedObjectError("a frame of no known kind")
            if not 0 < length <= min(MAX_FRAME_BYTES, size - done) or length % row or changed > length // row:
                raise DamagedObjectError(f"a frame of {length} bytes in rows of {row}, where {size - done} are left")
            yield _decode_frame(cursor, base.take(length), _Kind(row, word, bool(floating), key), changed)
            done += length
        if done != size:
            raise DamagedObjectError(f"its frames end at byte {done} of {size}")


ROW_DELTA = RowDelta()
"""What the entry point names."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a frame says of its elements: bytes in a row and in a word, whether floats, the key of the order."""

    row: int
    word: int
    floating: bool
    key: int


def _whole_rows(value: Value, row: int) -> Iterator[bytes]:
    """The value's bytes in runs of whole rows: chunks end where they end."""
    rest = b""
    for chunk in value.chunks():
        data = rest + chunk
        end = len(data) // row * row
        rest = data[end:]
        if end:
            yield data[:end]


def _encode_frame(rows: bytes, base: Base, kind: _Kind) -> list[bytes]:
    import numpy as np

    new: Words = np.frombuffer(rows, f"<u{kind.word}").reshape(-1, kind.row // kind.word)
    old: Words = np.frombuffer(base.take(len(rows)), new.dtype).reshape(new.shape)
    changed = np.flatnonzero((new != old).any(axis=1))
    before, after = old[changed].reshape(-1), new[changed].reshape(-1)
    difference = _ordered(after, kind.floating) - _ordered(before, kind.floating)
    zigzag: Words = (difference << 1) ^ _signs(difference)
    return [
        _HEADER.pack(len(rows), kind.row, kind.word, kind.floating, kind.key, len(changed)),
        *planes.encode((np.diff(changed, prepend=-1) - 1).astype("<u4")),
        *planes.encode(zigzag[_order(before, kind.key)]),
    ]


def _decode_frame(cursor: Cursor, given: memoryview, kind: _Kind, changed: int) -> memoryview:
    import numpy as np

    words: Words = np.frombuffer(given, f"<u{kind.word}").reshape(-1, kind.row // kind.word).copy()
    places = np.cumsum(planes.decode(cursor, changed, 4).astype(np.int64) + 1) - 1
    if changed and places[-1] >= len(words):
        raise DamagedObjectError(f"rows that leave their frame of {len(words)}")
    before = words[places].reshape(-1)
    zigzag = np.empty_like(before)
    zigzag[_order(before, kind.key)] = planes.decode(cursor, len(before), kind.word)
    difference: Words = (zigzag >> 1) ^ -(zigzag & 1)
    after = _ordered(_ordered(before, kind.floating) + difference, kind.floating)
    words[places] = after.reshape(changed, words.shape[1])
    return memoryview(words.reshape(-1).view("u1").data)


def _order(old: "Words", key: int) -> "slice | np.ndarray[tuple[int, ...], np.dtype[np.intp]]":
    """The places of the elements, sorted by the byte at bit `key`; those that are equal keep their order."""
    import numpy as np

    if key == _UNSORTED:
        return slice(None)
    highest = 8 * old.dtype.itemsize - 1
    return np.argsort(((old & ((1 << highest) - 1)) >> key).astype(np.uint8), kind="stable")


def _ordered(words: "Words", floating: bool) -> "Words":
    """Integers in the order of the numbers that the words are; its own inverse."""
    if not floating:
        return words
    made: Words = words ^ (_signs(words) >> 1)
    return made


def _signs(words: "Words") -> "Words":
    """All bits set where the highest one is."""
    made: Words = -(words >> (8 * words.dtype.itemsize - 1))
    return made
