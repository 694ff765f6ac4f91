"""The `low-rank` update: the base plus a product of two small matrices (docs/format.md, "low-rank").

LoRA (arXiv:2106.09685) trains such a product. Here it is a chain of fused multiply-adds, in an order and a width of its
own, so that every machine gets the same bits. BLAS does the same for the ranks of adapters: what PEFT's
`merge_and_unload()` gives is met without a difference on most machines. What is left is stored as a `delta`.
"""

import math
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from git_theta.updates.tensors import HeldTensor, finite, number, take_known

if TYPE_CHECKING:
    from git_theta.updates.floats import Numbers

__all__ = ["DETECTED", "LOW_RANK", "MAX_RANK", "MAX_RIGHT", "Factors", "LowRank"]

MAX_RANK = 1024
"""Each rank costs a pass over the value when it is rebuilt."""

MAX_RIGHT = 2**23
"""Elements of the right factor, which is held whole, as F64."""

MAX_DETECTED_RANK = 64
MAX_DETECTED_BYTES = 64 * 2**20
SHARP = 4.0
"""How many times larger the last singular value that counts is than the next."""

_detecting = threading.Lock()
_HEADER = struct.Struct("<BBBBIQdQQ")
_UNROUNDED = 255
_BLOCK = 2**15


@dataclass(frozen=True, slots=True)
class Factors:
    """What is taken times a left factor of (rows, rank): `right` (rank, cols), the number that scales the product, and
    the dtype to which it is then rounded before it is added, if it is."""

    right: Tensor
    scaling: float = 1.0
    rounded: str | None = None


class LowRank:
    """The base plus a product of two factors; without factors, it only decodes."""

    name = "low-rank"
    bases = 1

    def __init__(self, left: Tensor | None = None, factors: Factors | None = None) -> None:
        self._left = left
        self._factors = factors

    def supplied(self, tensors: Mapping[str, Tensor], dtype: str, shape: tuple[int, ...]) -> "LowRank":
        """`R` (rows, rank) and `C` (rank, cols); if wanted `scaling`, a number; `transposed`, which is not 0 where the
        value takes the product transposed; `rounded`, any tensor of the dtype to which the scaled product is rounded.

        A value of more than two dimensions is taken as a matrix of shape[0] rows.
        """
        given = take_known(tensors, ("R", "C"), ("scaling", "transposed", "rounded"))
        if dtype not in FLOATS:
            raise InputError(f"it is of dtype {dtype}, and only {', '.join(FLOATS)} can be updated so")
        left, right = given["R"], given["C"]
        for what, factor in (("R", left), ("C", right)):
            finite(factor, what)
            if len(factor.shape) != 2:
                raise InputError(f"its {what} has the shape {list(factor.shape)}; it must be a matrix")
        if left.shape[1] != right.shape[0]:
            raise InputError(f"its R {list(left.shape)} and its C {list(right.shape)} have not the same rank")
        if "transposed" in given and number(given["transposed"], "transposed"):
            left, right = _transposed(right), _transposed(left)
        made = [left.shape[0], right.shape[1]]
        if len(shape) < 2 or made != [shape[0], math.prod(shape[1:])] or 0 in left.shape + right.shape:
            raise InputError(f"its shape is {list(shape)}, and R and C make {made}")
        if right.shape[0] > MAX_RANK or math.prod(right.shape) > MAX_RIGHT:
            raise InputError(f"its factors of rank {right.shape[0]} are too large for {right.shape[1]} columns")
        scaling = number(given["scaling"], "scaling") if "scaling" in given else 1.0
        rounded = given["rounded"].dtype if "rounded" in given else None
        if rounded is not None and rounded not in FLOATS:
            raise InputError(f"its 'rounded' is of dtype {rounded}; it must be one of {', '.join(FLOATS)}")
        return LowRank(left, Factors(right, scaling, rounded))

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """The factors and what they leave; None without factors for a value of this many elements and its base."""
        [base] = bases
        left, factors = self._left, self._factors
        if left is None or factors is None or value.dtype not in FLOATS or base.dtype != value.dtype:
            return None
        rank, columns = factors.right.shape
        if left.shape[0] * columns * DTYPES[value.dtype].word != value.size:
            return None
        rest = DELTA.encode(value, [Stream(value.dtype, value.shape, value.size, self._made(base, value.size))])
        if rest is None:
            return None
        codes = [FLOATS.index(dtype) for dtype in (value.dtype, left.dtype, factors.right.dtype)]
        codes.append(_UNROUNDED if factors.rounded is None else FLOATS.index(factors.rounded))
        coded = encoded(factors.right), encoded(left)
        header = _HEADER.pack(*codes, rank, columns, factors.scaling, *map(len, coded))
        return chain([header, *coded], rest)

    def described(self, payload: Source) -> str:
        """The rank."""
        fields = _header(payload)
        rank = fields[4] if fields else 0
        return f"r={rank}" if 0 < rank <= MAX_RANK else ""

    def held(self, payload: Source) -> int:
        """The right factor, as it is and as F64."""
        _, _, code, _, rank, columns, *_ = _header(payload) or (0,) * 6
        fits = code < len(FLOATS) and rank * columns <= MAX_RIGHT
        return rank * columns * (DTYPES[FLOATS[code]].word + 8) if fits else 0

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        [base] = bases
        fields = _header(payload)
        if fields is None:
            raise DamagedObjectError("a payload that ends inside of its header")
        *codes, rank, columns, scaling, right_size, left_size = fields
        dtype, left_dtype, right_dtype = (FLOATS[code] if code < len(FLOATS) else "" for code in codes[:3])
        rounded = None if codes[3] == _UNROUNDED else FLOATS[codes[3]] if codes[3] < len(FLOATS) else ""
        row_size = columns * DTYPES[dtype].word if dtype else 0
        if not (row_size and left_dtype and right_dtype and rank) or rounded == "" or not math.isfinite(scaling):
            raise DamagedObjectError("factors of no known kind")
        if base.dtype != dtype:
            raise DamagedObjectError(f"factors for a value of {dtype}, and a base of another dtype")
        if size % row_size or rank > MAX_RANK or rank * columns > MAX_RIGHT:
            raise DamagedObjectError(f"factors of rank {rank} and {columns} columns, for a value of {size} bytes")
        rows = size // row_size
        sections = []
        at = _HEADER.size
        for length in (right_size, left_size, payload.size - at - right_size - left_size):
            if not 0 <= length <= payload.size - at:
                raise DamagedObjectError(f"a payload of {payload.size} bytes, which its sections leave")
            sections.append(PartSource(payload, at, length))
            at += length
        right = b"".join(DENSE.decode(sections[0], nbytes(right_dtype, (rank, columns))))
        left_size = nbytes(left_dtype, (rows, rank))
        left = Stream(left_dtype, (rows, rank), left_size, DENSE.decode(sections[1], left_size))
        factors = Factors(Tensor(right_dtype, (rank, columns), right), scaling, rounded)
        made = Stream(dtype, (rows, columns), size, _made(left, factors, base, size))
        return DELTA.decode(sections[2], size, [made])

    def apply(self, base: Base) -> Iterator[bytes | memoryview]:
        return self._made(base, base.size)

    def _made(self, base: Base, size: int) -> Iterator[memoryview]:
        assert self._left is not None  # noqa: S101  # `supplied` gave both
        assert self._factors is not None  # noqa: S101
        left = self._left
        stream = Stream(left.dtype, left.shape, len(left.data), iter([left.data]))
        return _made(stream, self._factors, base, size)


LOW_RANK = LowRank()


def _header(payload: Source) -> tuple[Any, ...] | None:
    """The fields of a payload's header; None where it is shorter."""
    head = payload.read(0, _HEADER.size)
    return _HEADER.unpack(head) if len(head) == _HEADER.size else None


class Detected(LowRank):
    """Factors found in the difference itself, of a matrix that fits in memory (arXiv:0909.4061).

    One at a time is looked for: it takes about five times the value's bytes.
    """

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """None where the difference has no rank of at most MAX_DETECTED_RANK that stands out."""
        [base] = bases
        matrix = len(value.shape) > 1 and value.shape[0] > 1 and value.size <= MAX_DETECTED_BYTES
        if not matrix or value.dtype not in FLOATS or (base.dtype, base.size) != (value.dtype, value.size):
            return None
        with _detecting:
            new, old = b"".join(value.chunks()), base.take(value.size)
            found = _factors(new, old, value.dtype, value.shape[0])
            if found is None:
                return None
            again = Stream(base.dtype, base.shape, base.size, iter([old]))
            return LowRank(*found).encode(HeldTensor(Tensor(value.dtype, value.shape, new)), [again])


DETECTED = Detected()


def _factors(new: bytes, old: memoryview, dtype: str, rows: int) -> tuple[Tensor, Factors] | None:
    """The factors of a difference, if its singular values fall off sharply."""
    import numpy as np

    with np.errstate(all="ignore"):
        difference = floats.values(new, dtype, "F64") - floats.values(old, dtype, "F64")
    difference = difference.astype("<f4").reshape(rows, -1)
    rank = min(MAX_DETECTED_RANK, min(difference.shape) // 4)
    if rank < 1 or not np.isfinite(difference).all():
        return None
    probe = np.random.Generator(np.random.Philox(0)).standard_normal((difference.shape[1], rank + 8), np.float32)
    span, _ = np.linalg.qr(difference @ probe)
    left, sizes, right = np.linalg.svd(span.T @ difference, full_matrices=False)
    falls = sizes[:rank] / np.maximum(sizes[1 : rank + 1], np.finfo(np.float32).tiny)
    rank = int(falls.argmax()) + 1
    if falls[rank - 1] < SHARP:
        return None
    scale = np.sqrt(sizes[:rank])
    columns, rows_ = (span @ left[:, :rank]) * scale, scale[:, None] * right[:rank]
    return _tensor(columns), Factors(_tensor(rows_))


def _tensor(matrix: "Numbers") -> Tensor:
    return Tensor("F32", matrix.shape, matrix.astype("<f4").tobytes())


def _transposed(matrix: Tensor) -> Tensor:
    import numpy as np

    rows, columns = matrix.shape
    words = np.frombuffer(matrix.data, f"<u{DTYPES[matrix.dtype].word}").reshape(rows, columns)
    return replace(matrix, shape=(columns, rows), data=words.T.tobytes())


def _made(left: Base, factors: Factors, base: Base, size: int) -> Iterator[memoryview]:
    """The runs of what the factors make of the base; the left factor's rows are taken as they are needed."""
    import numpy as np

    wide = floats.widest(base.dtype, left.dtype, factors.right.dtype)
    rank, columns = factors.right.shape
    word, left_word = DTYPES[base.dtype].word, DTYPES[left.dtype].word
    right = floats.values(factors.right.data, factors.right.dtype, "F64").reshape(rank, columns)
    rows, row = size // (columns * word), 0
    while row < rows:
        count = min(rows - row, max(1, CHUNK_BYTES // max(columns * word, rank * 8)))
        row += count
        taken = floats.values(left.take(count * rank * left_word), left.dtype, "F64").reshape(count, rank)
        for start in range(0, columns, CHUNK_BYTES // word):
            added: Numbers = _product(taken, right[:, start : start + CHUNK_BYTES // word], wide).reshape(-1)
            old = base.take(len(added) * word)
            with np.errstate(all="ignore"):
                added *= factors.scaling
                if factors.rounded is not None:
                    short = floats.converted(added.view("u1").data, wide, factors.rounded)
                    added = floats.values(short.view("u1").data, factors.rounded, wide)
                added = added + floats.values(old, base.dtype, wide)
            yield floats.bits(added, base.dtype, old)


def _product(rows: "Numbers", right: "Numbers", wide: str) -> "Numbers":
    """The product of two matrices of F64, each element a sum that is rounded to `wide` with every term.

    F64 holds the product of two F32 numbers exactly, so this is a chain of fused multiply-adds, but for the rare sum
    that F64 rounds to a tie of F32.
    """
    import numpy as np

    rank, columns = right.shape
    made: Numbers = np.empty((len(rows), columns), "<f4" if wide == "F32" else "<f8")
    height = max(1, _BLOCK // columns)
    with np.errstate(all="ignore"):
        for top in range(0, len(rows), height):
            part = rows[top : top + height]
            for start in range(0, columns, _BLOCK):
                block = right[:, start : start + _BLOCK]
                total: Numbers = np.zeros((len(part), block.shape[1]), made.dtype)
                term: Numbers = np.empty(total.shape, "<f8")
                for k in range(rank):
                    np.multiply(part[:, k, None], block[k], out=term)
                    np.add(term, total, out=term)
                    np.copyto(total, term, casting="same_kind")
                made[top : top + height, start : start + _BLOCK] = total
    return made
