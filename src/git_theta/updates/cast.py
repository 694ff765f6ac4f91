"""The `cast` update: the base converted to another float dtype (docs/format.md, "cast"); nothing else is stored."""

from collections.abc import Iterator, Sequence

from git_theta.errors import DamagedObjectError
from git_theta.source import Source
from git_theta.tensor import DTYPES
from git_theta.updates.base import CHUNK_BYTES, Base, Value
from git_theta.updates.floats import FLOATS, converted

__all__ = ["CAST", "Cast"]


class Cast:
    """A value that is its base in another dtype."""

    name = "cast"
    bases = 1

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """Two bytes; None where the converted base is another value, or the dtypes are not two floats."""
        import numpy as np

        [base] = bases
        if base.shape != value.shape or base.dtype == value.dtype or not {base.dtype, value.dtype} <= {*FLOATS}:
            return None
        width, word = DTYPES[base.dtype].word, DTYPES[value.dtype].word
        for chunk in value.chunks():
            made = converted(base.take(len(chunk) // word * width), base.dtype, value.dtype)
            if not np.array_equal(made, np.frombuffer(chunk, made.dtype)):
                return None
        return iter([bytes([FLOATS.index(base.dtype), FLOATS.index(value.dtype)])])

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        [base] = bases
        kinds = payload.read(0, 2)
        if payload.size != 2 or kinds[0] == kinds[1] or max(kinds) >= len(FLOATS):
            raise DamagedObjectError("a conversion of no known kind")
        source, target = FLOATS[kinds[0]], FLOATS[kinds[1]]
        width, word = DTYPES[source].word, DTYPES[target].word
        if base.size % width or base.size // width * word != size:
            raise DamagedObjectError(f"{base.size} bytes of {source}, where {size} of {target} are to come of them")
        for done in range(0, size, CHUNK_BYTES):
            count = min(CHUNK_BYTES, size - done) // word
            yield memoryview(converted(base.take(count * width), source, target).view("u1").data)


CAST = Cast()
