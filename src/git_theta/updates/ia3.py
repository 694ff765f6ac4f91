"""The `ia3` update: the base with its elements multiplied along axes (IA3, arXiv:2205.05638; docs/format.md, "ia3").

What is left of a difference is stored as a `delta` from that.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from git_theta.errors import DamagedObjectError, InputError
from git_theta.source import PartSource, Source
from git_theta.tensor import DTYPES, Tensor, nbytes
from git_theta.updates import floats
from git_theta.updates.base import CHUNK_BYTES, Base, Value
from git_theta.updates.delta import DELTA
from git_theta.updates.dense import DENSE, encoded
from git_theta.updates.floats import FLOATS
from git_theta.updates.stream import Stream
from git_theta.updates.tensors import finite, take_known

if TYPE_CHECKING:
    from git_theta.updates.floats import Numbers

__all__ = ["IA3", "MAX_MULTIPLIERS", "Ia3", "Multipliers"]

MAX_MULTIPLIERS = 2**23
"""They are held whole, as F64."""

_HEADER = struct.Struct("<BB6xQQQ")


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Element `e` of a value, in C order, is multiplied by number `e // inner` modulo their count."""

    tensor: Tensor
    inner: int


class Ia3:
    """The base times its multipliers; without multipliers, it only decodes."""

    name = "ia3"
    bases = 1

    def __init__(self, multipliers: Multipliers | None = None) -> None:
        self._multipliers = multipliers

    def supplied(self, tensors: Mapping[str, Tensor], dtype: str, shape: tuple[int, ...]) -> "Ia3":
        """`ia3`: the multipliers, of a shape that broadcasts to the value's."""
        given = take_known(tensors, ("ia3",))["ia3"]
        if dtype not in FLOATS:
            raise InputError(f"it is of dtype {dtype}, and only {', '.join(FLOATS)} can be updated so")
        finite(given, "ia3")
        return Ia3(_along(given, shape))

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """The multipliers and what they leave; None without them, or for a base of another dtype."""
        [base] = bases
        given = self._multipliers
        if given is None or value.dtype not in FLOATS or base.dtype != value.dtype:
            return None
        made = Stream(value.dtype, value.shape, value.size, _made(given, base, value.size))
        rest = DELTA.encode(value, [made])
        if rest is None:
            return None
        coded = encoded(given.tensor)
        codes = FLOATS.index(value.dtype), FLOATS.index(given.tensor.dtype)
        return chain([_HEADER.pack(*codes, given.tensor.shape[0], given.inner, len(coded)), coded], rest)

    def held(self, payload: Source) -> int:
        """The multipliers, as they are and as F64."""
        _, code, count, *_ = _header(payload) or (0, 0, 0)
        return count * (DTYPES[FLOATS[code]].word + 8) if code < len(FLOATS) and count <= MAX_MULTIPLIERS else 0

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        [base] = bases
        fields = _header(payload)
        if fields is None:
            raise DamagedObjectError("a payload that ends inside of its header")
        code, given_code, count, inner, coded_size = fields
        if (
            max(code, given_code) >= len(FLOATS)
            or base.dtype != FLOATS[code]
            or not 0 < count <= MAX_MULTIPLIERS
            or not inner
        ):
            raise DamagedObjectError(f"{count} multipliers of no known kind")
        if coded_size > payload.size - _HEADER.size or size % DTYPES[FLOATS[code]].word:
            raise DamagedObjectError(f"a payload of {payload.size} bytes, which its multipliers leave")
        dtype, given_dtype = FLOATS[code], FLOATS[given_code]
        part = PartSource(payload, _HEADER.size, coded_size)
        data = b"".join(DENSE.decode(part, nbytes(given_dtype, (count,))))
        given = Multipliers(Tensor(given_dtype, (count,), data), inner)
        made = Stream(dtype, (size // DTYPES[dtype].word,), size, _made(given, base, size))
        at = _HEADER.size + coded_size
        return DELTA.decode(PartSource(payload, at, payload.size - at), size, [made])

    def apply(self, base: Base) -> Iterator[bytes | memoryview]:
        assert self._multipliers is not None  # noqa: S101  # `supplied` gave them
        return _made(self._multipliers, base, base.size)


IA3 = Ia3()


def _header(payload: Source) -> tuple[Any, ...] | None:
    """The fields of a payload's header; None where it is shorter."""
    head = payload.read(0, _HEADER.size)
    return _HEADER.unpack(head) if len(head) == _HEADER.size else None


def _along(given: Tensor, shape: tuple[int, ...]) -> Multipliers:
    """The multipliers for the axes from the first to the last along which they differ."""
    import numpy as np

    misfit = InputError(f"its shape is {list(shape)}, to which ia3 {list(given.shape)} does not broadcast")
    if len(given.shape) > len(shape):
        raise misfit
    padded = (1,) * (len(shape) - len(given.shape)) + given.shape
    axes = [axis for axis, dim in enumerate(padded) if dim != 1]
    if 0 in shape or any(padded[axis] != shape[axis] for axis in axes):
        raise misfit
    first, last = (axes[0], axes[-1] + 1) if axes else (0, 0)
    if math.prod(shape[first:last]) > MAX_MULTIPLIERS:
        raise InputError(f"its ia3 {list(given.shape)} are more than {MAX_MULTIPLIERS} multipliers")
    words = np.frombuffer(given.data, f"<u{DTYPES[given.dtype].word}").reshape(padded[first:last])
    data = np.broadcast_to(words, shape[first:last]).tobytes()
    return Multipliers(Tensor(given.dtype, (math.prod(shape[first:last]),), data), math.prod(shape[last:]))


def _made(given: Multipliers, base: Base, size: int) -> Iterator[memoryview]:
    """The runs of what the multipliers make of the base."""
    import numpy as np

    wide = floats.widest(base.dtype, given.tensor.dtype)
    word = DTYPES[base.dtype].word
    numbers = floats.values(given.tensor.data, given.tensor.dtype, wide)
    for start in range(0, size // word, CHUNK_BYTES // word):
        count = min(CHUNK_BYTES // word, size // word - start)
        old = base.take(count * word)
        places = np.arange(start, start + count) // given.inner % len(numbers)
        with np.errstate(all="ignore"):
            made: Numbers = floats.values(old, base.dtype, wide) * numbers[places]
        yield floats.bits(made, base.dtype, old)
