"""Raw tensors: the table of dtypes, and where a value and its views lie in a run of bytes.

Names are those of the safetensors format (https://github.com/huggingface/safetensors, `Dtype`), whose sizes are in bits
because of its 4- and 6-bit floats, and a few that only torch writes. "opaque" marks bytes without a known meaning. The
table is part of version 1 of the manifest, where a value of any other dtype (a quantised block, one invented later)
carries its size in bytes beside its shape.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from git_theta.errors import FormatError

__all__ = [
    "DTYPES",
    "MAX_NAME_LENGTH",
    "MAX_RANK",
    "MAX_SIZE_BYTES",
    "OPAQUE",
    "DType",
    "Tensor",
    "View",
    "are_counts",
    "check_shape",
    "is_dtype",
    "nbytes",
    "words_of",
]

MAX_RANK = 64
MAX_SIZE_BYTES = 2**63 - 1
MAX_NAME_LENGTH = 4096
OPAQUE = "opaque"

_DTYPE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class DType:
    """How one element is stored: `bits` each, in little-endian words of `word` bytes that are floats or not."""

    name: str
    bits: int
    word: int
    floating: bool


def _table(*rows: tuple[str, int, int, bool]) -> Mapping[str, DType]:
    return {row[0]: DType(*row) for row in rows}


DTYPES = _table(
    (OPAQUE, 8, 1, False),
    ("BOOL", 8, 1, False),
    ("F4", 4, 1, False),
    ("F6_E2M3", 6, 1, False),
    ("F6_E3M2", 6, 1, False),
    ("U8", 8, 1, False),
    ("I8", 8, 1, False),
    ("QU8", 8, 1, False),
    ("QI8", 8, 1, False),
    ("QI32", 32, 4, False),
    ("F8_E4M3", 8, 1, True),
    ("F8_E5M2", 8, 1, True),
    ("F8_E8M0", 8, 1, True),
    ("F8_E4M3FNUZ", 8, 1, True),
    ("F8_E5M2FNUZ", 8, 1, True),
    ("U16", 16, 2, False),
    ("I16", 16, 2, False),
    ("F16", 16, 2, True),
    ("BF16", 16, 2, True),
    ("U32", 32, 4, False),
    ("I32", 32, 4, False),
    ("F32", 32, 4, True),
    ("C32", 32, 2, True),
    ("U64", 64, 8, False),
    ("I64", 64, 8, False),
    ("F64", 64, 8, True),
    ("C64", 64, 4, True),
    ("C128", 128, 8, True),
)


def is_dtype(name: str) -> bool:
    """Whether a dtype may have this name, be it in the table or not."""
    return name in DTYPES or _DTYPE.match(name) is not None


def are_counts(numbers: Sequence[int]) -> bool:
    """Whether these can be a shape or strides: at most 64 integers from 0 to 2**63 - 1."""
    return len(numbers) <= MAX_RANK and all(type(number) is int and 0 <= number <= MAX_SIZE_BYTES for number in numbers)


def nbytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a dense value of this dtype and shape.

    Raises FormatError for an unknown dtype, a rank above 64, a dimension that is negative or above 2**63 - 1, a size
    that is no whole number of bytes, or one above 2**63 - 1.
    """
    if dtype not in DTYPES:
        raise FormatError(f"dtype {dtype[:40]!r} is not known")
    if not are_counts(shape):
        raise FormatError(f"it has no shape of at most {MAX_RANK} dimensions from 0 to {MAX_SIZE_BYTES}")
    bits = DTYPES[dtype].bits
    for dim in shape:
        bits *= dim
        if bits > 8 * MAX_SIZE_BYTES and 0 not in shape:
            raise FormatError(f"shape {list(shape[:8])} of {dtype} is larger than {MAX_SIZE_BYTES} bytes")
    if bits % 8:
        raise FormatError(f"shape {list(shape[:8])} of {dtype} is no whole number of bytes")
    return bits // 8


def words_of(dtype: str, size: int) -> tuple[int, bool]:
    """The bytes of one word of a value of `size` bytes, and whether its words are floats.

    A value of an unknown dtype, or of no whole number of words, is plain bytes: (1, False).
    """
    found = DTYPES.get(dtype)
    return (found.word, found.floating) if found and size % found.word == 0 else (1, False)


def check_shape(dtype: str, shape: Sequence[int], size: int) -> None:
    """Raise FormatError unless a value of `size` bytes may have this dtype and shape; any size may, of other dtypes."""
    if dtype in DTYPES:
        if nbytes(dtype, shape) != size:
            raise FormatError(f"{size} bytes are not {dtype} {list(shape[:8])}")
    elif not is_dtype(dtype) or not are_counts(shape):
        raise FormatError(f"dtype {dtype[:40]!r} with a shape of {len(shape)} dimensions is no dtype and shape")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value in memory: `data` are its elements in C order. dtype "opaque" has shape (len(data),)."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class View:
    """Another name under which (some of) the elements of a stored value are used: a tied weight, a slice.

    `offset` and `strides` count elements of `dtype` (as `torch.Tensor.storage_offset` and `.stride` do); strides None
    means contiguous in C order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0
    strides: tuple[int, ...] | None = None
