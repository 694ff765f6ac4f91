"""The `average` update: the weighted mean of two values (docs/format.md, "average"); a merge is stored as its recipe.

Nothing is stored but two weights, and not even those where they are equal.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from git_theta.errors import DamagedObjectError
from git_theta.source import Source
from git_theta.updates.base import CHUNK_BYTES, Base, Value
from git_theta.updates.floats import FLOATS, bits, values, widest

if TYPE_CHECKING:
    from git_theta.updates.floats import Numbers

__all__ = ["AVERAGE", "Average", "payload_of"]

_WEIGHTS = struct.Struct("<dd")
_EVEN = (0.5, 0.5)


class Average:
    """The mean of two values of one float dtype, element by element."""

    name = "average"
    bases = 2

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """Nothing at all; None where the value is not the even mean of its bases."""
        first, second = bases
        if {first.dtype, second.dtype} != {value.dtype} or not _fits(value.dtype, value.size, bases):
            return None
        for chunk in value.chunks():
            if _mean(first.take(len(chunk)), second.take(len(chunk)), value.dtype, _EVEN) != chunk:
                return None
        return iter(())

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        first, second = bases
        weights = _weights(payload)
        if first.dtype != second.dtype or not _fits(first.dtype, size, bases):
            raise DamagedObjectError(f"values of other sizes or dtypes, where {size} bytes are to be their mean")
        for done in range(0, size, CHUNK_BYTES):
            length = min(CHUNK_BYTES, size - done)
            yield _mean(first.take(length), second.take(length), first.dtype, weights)


AVERAGE = Average()


def payload_of(weights: tuple[float, float]) -> bytes:
    """The payload for the weights of the two values."""
    return b"" if weights == _EVEN else _WEIGHTS.pack(*weights)


def _weights(payload: Source) -> tuple[float, float]:
    import math

    if not payload.size:
        return _EVEN
    if payload.size != _WEIGHTS.size:
        raise DamagedObjectError(f"a payload of {payload.size} bytes, where two weights are expected")
    first, second = _WEIGHTS.unpack(payload.read(0, _WEIGHTS.size))
    if not (math.isfinite(first) and math.isfinite(second)):
        raise DamagedObjectError("weights that are not finite")
    return first, second


def _fits(dtype: str, size: int, bases: Sequence[Base]) -> bool:
    return dtype in FLOATS and all(base.size == size for base in bases)


def _mean(first: memoryview, second: memoryview, dtype: str, weights: tuple[float, float]) -> memoryview:
    """The mean of a chunk; what both have stays as it is, though halves of the smallest numbers would be rounded."""
    import numpy as np

    wide = widest(dtype)
    left, right = values(first, dtype, wide), values(second, dtype, wide)
    whole = f"<i{left.itemsize}"
    with np.errstate(all="ignore"):
        made: Numbers = left * left.dtype.type(weights[0])
        made += right * right.dtype.type(weights[1])
    rounded = left.view(whole) == right.view(whole)
    rounded &= made.view(whole) != left.view(whole)
    if rounded.any():
        # By masks of bits: choices element by element take ten times as long where there is no pattern in them.
        differing = made.view(whole) ^ left.view(whole)
        differing &= -rounded.view("i1")
        made.view(whole)[...] ^= differing
    return bits(made, dtype, first)
