"""The `sparse` update: the elements that changed, and where they stand (docs/format.md, "sparse").

Neighbours that changed are one run with one position: a single element, a row of an embedding, rows that were added.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from git_theta.errors import DamagedObjectError, InputError
from git_theta.source import Source
from git_theta.tensor import DTYPES, Tensor, words_of
from git_theta.updates import planes
from git_theta.updates.base import CHUNK_BYTES, Base, Value
from git_theta.updates.planes import Cursor
from git_theta.updates.tensors import take_known

if TYPE_CHECKING:
    import numpy as np

    from git_theta.updates.planes import Words

__all__ = ["MAX_FRAME_BYTES", "SPARSE", "Sparse"]

MAX_FRAME_BYTES = 4 * 2**20

_INTEGERS = {"I64": "<i8", "I32": "<i4", "U64": "<u8", "U32": "<u4"}
_HEADER = struct.Struct("<IB3xI")


class Sparse:
    """Exact positions and new bit patterns; everything else is the base's."""

    name = "sparse"
    bases = 1

    def supplied(self, tensors: Mapping[str, Tensor], dtype: str, shape: tuple[int, ...]) -> "SuppliedElements":
        """`indices` (integers) and `values`, the new elements at them, of the value's dtype.

        Either `indices` (n,) count elements in C order, and `values` are (n,); or they count rows, and `values` are
        (n, *shape[1:]); or they are the coordinates (n, dimensions) of `values` (n,).
        """
        given = take_known(tensors, ("indices", "values"))
        indices, values = given["indices"], given["values"]
        if values.dtype != dtype or DTYPES[dtype].bits % 8:
            raise InputError(f"it is of dtype {dtype}, and the values supplied for it are of {values.dtype}")
        if 0 in shape:
            raise InputError(f"its shape is {list(shape)}: it has no elements")
        if indices.dtype not in _INTEGERS:
            raise InputError(f"its indices are of dtype {indices.dtype}; they must be I64, I32, U64 or U32")
        return SuppliedElements(*_places(indices, values, shape))

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


class SuppliedElements(Sparse):
    """Sorted `places`, counted in units of `unit` elements, and what the elements there become."""

    def __init__(self, places: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", unit: int, data: bytes) -> None:
        self._places = places
        self._unit = unit
        self._data = data

    def apply(self, base: Base) -> Iterator[bytes | memoryview]:
        import numpy as np

        size = self._unit * DTYPES[base.dtype].bits // 8  # bytes of a unit
        new = np.frombuffer(self._data, np.uint8).reshape(-1, size)
        units = base.size // size
        step = max(1, CHUNK_BYTES // size)
        for start in range(0, units, step):
            count = min(step, units - start)
            made = np.frombuffer(base.take(count * size), np.uint8).reshape(-1, size).copy()
            first, last = np.searchsorted(self._places, (start, start + count))
            made[self._places[first:last] - start] = new[first:last]
            yield memoryview(made.data).cast("B")


def _places(
    indices: Tensor, values: Tensor, shape: tuple[int, ...]
) -> tuple["np.ndarray[tuple[int, ...], np.dtype[np.int64]]", int, bytes]:
    """Which units of a value change, in order; the elements of a unit; the units' new bytes."""
    import numpy as np

    numbers = np.frombuffer(indices.data, _INTEGERS[indices.dtype]).reshape(indices.shape)
    count = indices.shape[0] if indices.shape else 0
    unit, limit = 1, math.prod(shape)
    if len(indices.shape) == 2 and indices.shape[1] == len(shape) and values.shape == (count,):
        if ((numbers < 0) | (numbers >= np.array(shape, "<u8"))).any():
            raise InputError(f"its indices leave its shape {list(shape)}")
        numbers = np.ravel_multi_index(tuple(numbers.astype(np.int64).T), shape) if count else numbers[:, 0]
    elif len(indices.shape) == 1 and len(shape) > 1 and values.shape == (count, *shape[1:]):
        unit, limit = math.prod(shape[1:]), shape[0]
    elif len(indices.shape) != 1 or values.shape != (count,):
        raise InputError(
            f"its shape is {list(shape)}; indices {list(indices.shape)} and values {list(values.shape)} do not fit"
        )
    if count and (int(numbers.min()) < 0 or int(numbers.max()) >= limit):
        raise InputError(f"its indices leave its shape {list(shape)}")
    places = numbers.astype(np.int64)
    order = np.argsort(places, kind="stable")
    places = places[order]
    if (np.diff(places) == 0).any():
        raise InputError("its indices name an element twice")
    rows = np.frombuffer(values.data, np.uint8).reshape(count, -1) if values.data else np.empty((count, 0), np.uint8)
    return places, unit, rows[order].tobytes()


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
