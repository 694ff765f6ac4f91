"""The `sparse` update: the elements that changed, and where they stand (docs/format.md, "sparse").

Neighbours that changed are one run with one position: a single element, a row of an embedding, rows that were added.
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
    from git_theta.updates.planes import Words

__all__ = ["MAX_FRAME_BYTES", "SPARSE", "Sparse"]

MAX_FRAME_BYTES = 4 * 2**20

_HEADER = struct.Struct("<IB3xI")


class Sparse:
    """Exact positions and new bit patterns; everything else is the base's."""

    name = "sparse"
    bases = 1

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """The changed elements; None where the base is of another dtype."""
        [base] = bases
        if base.dtype != value.dtype:
            return None
        word, _ = words_of(value.dtype, value.size)
        return (run for chunk in value.chunks() for run in _encode_frame(chunk, base, word))

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        [base] = bases
        cursor = Cursor(payload)
        done = 0
        while not cursor.ended:
            length, word, runs = _HEADER.unpack(cursor.take(_HEADER.size))
            if word not in (1, 2, 4, 8):
                raise DamagedObjectError("a frame of no known kind")
            if not 0 < length <= min(MAX_FRAME_BYTES, size - done) or length % word or runs > length // word:
                raise DamagedObjectError(f"a frame of {length} bytes and {runs} runs, where {size - done} are left")
            yield _decode_frame(cursor, base.take(length), word, runs)
            done += length
        if done != size:
            raise DamagedObjectError(f"its frames end at byte {done} of {size}")


SPARSE = Sparse()


def _encode_frame(chunk: memoryview, base: Base, word: int) -> list[bytes]:
    import numpy as np

    new: Words = np.frombuffer(chunk, f"<u{word}")
    changed = np.flatnonzero(new != np.frombuffer(base.take(len(chunk)), new.dtype))
    first = np.flatnonzero(np.diff(changed, prepend=-2) > 1)  # of each run, among the changed
    counts = np.diff(first, append=len(changed))
    starts = changed[first]
    skips = np.diff(starts + counts, prepend=0) - counts
    return [
        _HEADER.pack(len(chunk), word, len(first)),
        *planes.encode(skips.astype("<u4")),
        *planes.encode(counts.astype("<u4")),
        *planes.encode(new[changed]),
    ]


def _decode_frame(cursor: Cursor, given: memoryview, word: int, runs: int) -> memoryview:
    import numpy as np

    words: Words = np.frombuffer(given, f"<u{word}").copy()
    skips = planes.decode(cursor, runs, 4).astype(np.int64)
    counts = planes.decode(cursor, runs, 4).astype(np.int64)
    changed = int(counts.sum())
    if changed + int(skips.sum()) > len(words):
        raise DamagedObjectError(f"runs that leave their frame of {len(words)} elements")
    before = np.cumsum(skips)
    words[np.arange(changed) + np.repeat(before, counts)] = planes.decode(cursor, changed, word)
    return memoryview(words.view("u1").data)
