"""The .npy format of numpy: a magic string, a header that is a Python dict literal, then one array's bytes.

Scope: versions 1 to 3, arrays of plain dtypes. An array of numbers that we know, little-endian or of single bytes, has
its dtype and shape; of other plain dtypes (big-endian, text, dates, bfloat16 of ml_dtypes, which numpy writes as void)
it is "opaque". Object arrays, which are pickles, and structured dtypes are refused.

Specification: numpy/lib/_format_impl.py, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. The
header is matched, not evaluated: `ast.literal_eval` of hostile text can exhaust the parser's stack and prints warnings.
"""

import re
from collections.abc import Sequence
from math import prod

from git_theta import tensor
from git_theta.errors import FormatError
from git_theta.formats.base import Span
from git_theta.source import Source

__all__ = ["ARRAY_NAME", "FORMAT", "NpyFormat", "read_array"]

ARRAY_NAME = "array"
"""The name of the one tensor of a .npy file, which has no names."""

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
_MAX_HEADER_BYTES = 64 << 10
_DTYPES = {
    "b1": "BOOL",
    "i1": "I8",
    "u1": "U8",
    "i2": "I16",
    "u2": "U16",
    "f2": "F16",
    "i4": "I32",
    "u4": "U32",
    "f4": "F32",
    "i8": "I64",
    "u8": "U64",
    "f8": "F64",
    "c8": "C64",
    "c16": "C128",
}
_FIELD = re.compile(
    r"""\s*['"](?P<key>descr|fortran_order|shape)['"]\s*:\s*"""
    r"""(?:['"](?P<descr>[^'"\\]{1,40})['"]|(?P<order>True|False)|\((?P<shape>[0-9L, \t]*)\))\s*(?:,|\Z)"""
)
_GROUPS = (("descr", "descr"), ("fortran_order", "order"), ("shape", "shape"))
_DESCR = re.compile(r"(?P<order>[<>|=])?(?P<kind>[biufcSUVmMa])(?P<size>[0-9]{1,9})(?:\[\w{1,20}\])?\Z")


class NpyFormat:
    """Where the array of a .npy file lies."""

    name = "npy"

    def accepts(self, head: bytes) -> bool:
        return head.startswith(_MAGIC)

    def spans(self, source: Source) -> Sequence[Span]:
        return [read_array(source, 0, source.size, ARRAY_NAME)]


FORMAT = NpyFormat()


def read_array(source: Source, offset: int, size: int, name: str) -> Span:
    """The span, called `name`, of the array in the .npy file whose `size` bytes lie at `offset`.

    Raises FormatError where there is none, or not all of it.
    """
    head = source.read(offset, min(size, 12))
    width = _LENGTH_BYTES.get(head[6], 0) if len(head) == 12 and head.startswith(_MAGIC) else 0
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if not width or length > _MAX_HEADER_BYTES or start > size:
        raise FormatError(f"npy: there is no header of versions 1 to 3, or its {length} bytes are not all there")
    descr, fortran_order, shape = _parse_header(source.read(offset + 8 + width, length))
    dtype, item_bytes = _parse_descr(descr)
    count = prod(shape)
    if count * item_bytes > size - start:
        raise FormatError(f"npy: an array {shape[:8]} of {descr} does not fit in {size - start} bytes")
    total = count * item_bytes
    if dtype == tensor.OPAQUE:
        return Span(name, offset + start, total, dtype, (total,))
    strides = _fortran_strides(shape) if fortran_order and total else None
    return Span(name, offset + start, total, dtype, shape, strides)


def _parse_header(data: bytes) -> tuple[str, bool, tuple[int, ...]]:
    """The descr, whether the order is Fortran's, and the shape."""
    text = data.decode("latin-1").strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise FormatError("npy: the header is no dict")
    text = text[1:-1].strip()
    fields: dict[str, re.Match[str]] = {}
    at = 0
    while at < len(text):
        match = _FIELD.match(text, at)
        if match is None or match["key"] in fields:
            raise FormatError(f"npy: the header is not that of an array of a plain dtype: {text[at : at + 80]!r}")
        fields[match["key"]] = match
        at = match.end()
    values = [fields[key][group] for key, group in _GROUPS if key in fields]
    if len(values) != len(_GROUPS) or None in values:
        raise FormatError("npy: the header lacks a descr, a fortran_order or a shape")
    descr, order, shape = values
    return descr, order == "True", _parse_shape(shape)


def _parse_shape(text: str) -> tuple[int, ...]:
    parts = [part.strip().removesuffix("L") for part in text.split(",")]  # Python 2 wrote its long integers with an L
    if parts[-1] == "":
        parts.pop()
    if len(parts) > tensor.MAX_RANK or not all(part.isdecimal() and len(part) < 20 for part in parts):
        raise FormatError(f"npy: ({text[:80]}) is no shape")
    return tuple(int(part) for part in parts)


def _parse_descr(descr: str) -> tuple[str, int]:
    """Our dtype and the bytes of an element."""
    match = _DESCR.match(descr)
    if match is None:
        raise FormatError(f"npy: {descr!r} is no plain dtype")
    size = int(match["size"])
    dtype = _DTYPES.get(match["kind"] + match["size"], tensor.OPAQUE)
    if match["order"] == ">" and size > 1:
        dtype = tensor.OPAQUE
    return dtype, size * 4 if match["kind"] == "U" else size  # a character of text is 4 bytes


def _fortran_strides(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The strides in elements of Fortran order; None where that is C order too."""
    if sum(dim > 1 for dim in shape) < 2:
        return None
    strides = []
    step = 1
    for dim in shape:
        strides.append(1 if dim == 1 else step)
        step *= dim
    return tuple(strides)
