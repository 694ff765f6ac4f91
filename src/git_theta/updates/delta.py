"""The `delta` update: what training added to a value, in units of the last place (docs/format.md, "delta").

Floats are mapped to integers in their order, so that near values have near integers, and subtracted from the base's. A
step of an optimizer has one scale, so the difference depends on the exponent of the base element above all: they are
sorted by it, which the reader can undo, and zstd then finds runs of one kind. That takes as long as all the rest, and
gains a tenth for floats of 16 bits, little for wider ones: of those, only small values are sorted
(docs/design/008-updates.md has the figures).
"""

import struct
from collections.abc import Iterator, Sequence
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

__all__ = ["DELTA", "MAX_FRAME_BYTES", "Delta"]

MAX_FRAME_BYTES = 4 * 2**20

_HEADER = struct.Struct("<IBBBB")
_UNSORTED = 255
_EXPONENTS = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52, "C32": 10, "C64": 23, "C128": 52}
"""The bit of a word at which the byte begins that says most about the size of a float."""
_SORTED_BYTES = 3 * 2**20
"""Of words wider than 16 bits, values up to this size are sorted."""


class Delta:
    """Differences from a base of the same dtype, element by element."""

    name = "delta"
    bases = 1

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """The differences; None where the base is of another dtype."""
        [base] = bases
        if base.dtype != value.dtype:
            return None
        word, floating = words_of(value.dtype, value.size)
        is_sorted = word == 2 or value.size <= _SORTED_BYTES
        key = _EXPONENTS.get(value.dtype, _UNSORTED) if is_sorted else _UNSORTED
        return (run for chunk in value.chunks() for run in _encode_frame(chunk, base, word, floating, key))

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        [base] = bases
        cursor = Cursor(payload)
        done = 0
        while not cursor.ended:
            length, word, floating, key, zero = _HEADER.unpack(cursor.take(_HEADER.size))
            if word not in (1, 2, 4, 8) or floating > 1 or zero or 8 * word <= key != _UNSORTED:
                raise DamagedObjectError("a frame of no known kind")
            if not 0 < length <= min(MAX_FRAME_BYTES, size - done) or length % word:
                raise DamagedObjectError(f"a frame of {length} bytes, where {size - done} are left")
            yield _decode_frame(cursor, base, length, word, bool(floating), key)
            done += length
        if done != size:
            raise DamagedObjectError(f"its frames end at byte {done} of {size}")


DELTA = Delta()


def _encode_frame(chunk: memoryview, base: Base, word: int, floating: bool, key: int) -> list[bytes]:
    import numpy as np

    new: Words = np.frombuffer(chunk, f"<u{word}")
    old: Words = np.frombuffer(base.take(len(chunk)), f"<u{word}")
    difference: Words = _ordered(new, floating) - _ordered(old, floating)
    zigzag: Words = (difference << 1) ^ _signs(difference)
    if key != _UNSORTED:
        zigzag = zigzag[base.derived(f"order {key}", lambda: _order(old, key))]
    return [_HEADER.pack(len(chunk), word, floating, key, 0), *planes.encode(zigzag)]


def _decode_frame(cursor: Cursor, base: Base, length: int, word: int, floating: bool, key: int) -> memoryview:
    import numpy as np

    old: Words = np.frombuffer(base.take(length), f"<u{word}")
    zigzag = planes.decode(cursor, len(old), word)
    if key != _UNSORTED:
        found = np.empty_like(zigzag)
        found[base.derived(f"order {key}", lambda: _order(old, key))] = zigzag
        zigzag = found
    new: Words = zigzag & 1
    np.negative(new, out=new)
    new ^= zigzag >> 1
    new += _ordered(old, floating)
    return memoryview(_ordered(new, floating).view("u1").data)


def _ordered(words: "Words", floating: bool) -> "Words":
    """Signs and magnitudes as integers in the order of their values, and such integers as signs and magnitudes."""
    if not floating:
        return words
    ordered = _signs(words)
    ordered >>= 1
    ordered ^= words
    return ordered


def _signs(words: "Words") -> "Words":
    """All bits set where the highest one is, else none."""
    width = words.dtype.itemsize
    signs: Words = (words.view(f"<i{width}") >> (8 * width - 1)).view(words.dtype)
    return signs


def _order(old: "Words", key: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.intp]]":
    """The places of the elements sorted by a byte of their magnitudes; equal ones stay in their order."""
    import numpy as np

    highest = 8 * old.dtype.itemsize - 1
    return np.argsort(((old & ((1 << highest) - 1)) >> key).astype(np.uint8), kind="stable")
