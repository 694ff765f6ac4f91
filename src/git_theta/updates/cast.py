"""The `cast` update: the base converted to another float dtype (docs/format.md, "cast"); nothing else is stored.

Every conversion is IEEE 754's, to nearest and ties to even, by way of F32. What becomes of the bits of a NaN differs
between libraries: here its sign and the upper bits of its payload are kept, and a shortened one is made quiet.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from git_theta.errors import DamagedObjectError
from git_theta.source import Source
from git_theta.tensor import DTYPES
from git_theta.updates.base import CHUNK_BYTES, Base, Value

if TYPE_CHECKING:
    from git_theta.updates.planes import Words

__all__ = ["CAST", "Cast"]

_DTYPES = ("F16", "BF16", "F32", "F64")
_MANTISSA_BITS = {"F16": 10, "BF16": 7, "F32": 23, "F64": 52}


class Cast:
    """A value that is its base in another dtype."""

    name = "cast"
    bases = 1

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """Two bytes; None where the converted base is another value, or the dtypes are not two floats."""
        import numpy as np

        [base] = bases
        if base.shape != value.shape or base.dtype == value.dtype or not {base.dtype, value.dtype} <= {*_DTYPES}:
            return None
        width, word = DTYPES[base.dtype].word, DTYPES[value.dtype].word
        for chunk in value.chunks():
            made = _converted(base.take(len(chunk) // word * width), base.dtype, value.dtype)
            if not np.array_equal(made, np.frombuffer(chunk, made.dtype)):
                return None
        return iter([bytes([_DTYPES.index(base.dtype), _DTYPES.index(value.dtype)])])

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        [base] = bases
        kinds = payload.read(0, 2)
        if payload.size != 2 or kinds[0] == kinds[1] or max(kinds) >= len(_DTYPES):
            raise DamagedObjectError("a conversion of no known kind")
        source, target = _DTYPES[kinds[0]], _DTYPES[kinds[1]]
        width, word = DTYPES[source].word, DTYPES[target].word
        if base.size % width or base.size // width * word != size:
            raise DamagedObjectError(f"{base.size} bytes of {source}, where {size} of {target} are to come of them")
        for done in range(0, size, CHUNK_BYTES):
            count = min(CHUNK_BYTES, size - done) // word
            yield memoryview(_converted(base.take(count * width), source, target).view("u1").data)


CAST = Cast()


def _converted(data: memoryview, source: str, target: str) -> "Words":
    """The bits of the values as `target`, of the bits of `source`."""
    import numpy as np

    words: Words = np.frombuffer(data, f"<u{DTYPES[source].word}")
    with np.errstate(all="ignore"):
        for step in ((source, "F32"), ("F32", target)):
            if step[0] != step[1]:
                words = _step(words, *step)
    return words


def _step(words: "Words", source: str, target: str) -> "Words":
    """One conversion from F32 or to it."""
    import numpy as np

    width = DTYPES[target].word
    made: Words
    if source == "BF16":
        made = words.astype("<u4") << 16
        return made
    if target == "BF16":
        made = ((words + 0x7FFF + (words >> 16 & 1)) >> 16).astype("<u2")
    else:
        made = words.view(f"<f{words.dtype.itemsize}").astype(f"<f{width}").view(f"<u{width}")
    nans = np.isnan(words.view(f"<f{words.dtype.itemsize}"))
    if nans.any():
        made[nans] = _nans(words[nans], source, target)
    return made


def _nans(words: "Words", source: str, target: str) -> "Words":
    """The bits of NaNs: sign, an exponent of ones, and as much of the payload as there is room for."""
    before, behind = _MANTISSA_BITS[source], _MANTISSA_BITS[target]
    bits, width = 8 * DTYPES[source].word, DTYPES[target].word
    wide = words.astype("<u8")
    payload = wide & ((1 << before) - 1)
    payload = payload << (behind - before) if behind > before else payload >> (before - behind) | 1 << (behind - 1)
    exponent = (1 << (8 * width - 1)) - (1 << behind)
    return (wide >> (bits - 1) << (8 * width - 1) | exponent | payload).astype(f"<u{width}")
