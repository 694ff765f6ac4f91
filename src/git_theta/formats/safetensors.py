"""The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.

Scope: what the library's `SafeTensors::deserialize` accepts, and more: gaps between tensors, and dtypes that are not in
our table, whose size cannot be checked against the shape. Stricter in one thing: a header in which a key occurs twice
is refused, because readers do not agree on which of the two counts.

Specification: https://github.com/huggingface/safetensors#format and safetensors/src/tensor.rs (0.8.0).
"""

import json
from collections.abc import Sequence
from typing import TypeGuard

from git_theta import names, tensor
from git_theta.errors import FormatError
from git_theta.formats.base import MAX_SPANS, Span
from git_theta.source import Source

__all__ = ["FORMAT", "MAX_HEADER_BYTES", "SafetensorsFormat"]

MAX_HEADER_BYTES = 32 << 20
_MAX_HEADER_VALUES = 4_000_000  # bounds what the parsed header takes: a value costs up to 80 bytes of memory
_SPACE = b" \t\r\n"


class SafetensorsFormat:
    """Where the tensors of a safetensors file lie; a tensor's name is its key."""

    name = "safetensors"

    def accepts(self, head: bytes) -> bool:
        size = int.from_bytes(head[:8], "little")
        return len(head) > 9 and 2 <= size <= MAX_HEADER_BYTES and head[8:].lstrip(_SPACE)[:1] in (b"{", b"")

    def spans(self, source: Source) -> Sequence[Span]:
        size = int.from_bytes(source.read(0, min(8, source.size)), "little")
        if source.size < 8 or not 2 <= size <= min(MAX_HEADER_BYTES, source.size - 8):
            raise FormatError(f"safetensors: a header of {size} bytes does not fit in a file of {source.size}")
        header = _parse_header(source.read(8, size))
        data = 8 + size
        spans = [_span(key, value, data, source.size - data) for key, value in header.items() if key != "__metadata__"]
        if len(spans) > MAX_SPANS:
            raise FormatError(f"safetensors: {len(spans)} tensors are above the limit of {MAX_SPANS}")
        _check_disjoint(spans)
        return spans


FORMAT = SafetensorsFormat()


def _parse_header(data: bytes) -> dict[str, object]:
    if data.count(b",") + data.count(b":") + data.count(b"[") + data.count(b"{") > _MAX_HEADER_VALUES:
        raise FormatError(f"safetensors: the header has more than {_MAX_HEADER_VALUES} values")
    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise FormatError(f"safetensors: the header is no JSON: {str(e)[:200]}") from e
    if not isinstance(header, dict):
        raise FormatError("safetensors: the header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise FormatError("safetensors: a key occurs twice in the header")
    return result


def _span(key: str, value: object, data: int, data_size: int) -> Span:
    """The span that a header line describes; `data` is where the tensors' bytes begin."""
    if not isinstance(value, dict):
        raise FormatError(f"safetensors: entry {key[:80]!r} is no tensor")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not (isinstance(dtype, str) and _naturals(shape) and _naturals(offsets) and len(offsets) == 2):
        raise FormatError(f"safetensors: tensor {key[:80]!r} lacks a dtype, a shape or two data_offsets")
    begin, end = offsets
    if not begin <= end <= data_size:
        raise FormatError(f"safetensors: tensor {key[:80]!r} ends at byte {end}, but the file has {data_size}")
    name = names.join((key,))
    if len(name) > tensor.MAX_NAME_LENGTH:
        raise FormatError(f"safetensors: the name of tensor {key[:80]!r} has {len(name)} characters")
    size = end - begin
    if dtype == tensor.OPAQUE:  # our word, not theirs
        shape = [size]
    try:
        tensor.check_shape(dtype, shape, size)
    except FormatError as e:
        raise FormatError(f"safetensors: tensor {key[:80]!r}: {e}") from e
    return Span(name, data + begin, size, dtype, tuple(shape))


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _check_disjoint(spans: Sequence[Span]) -> None:
    end = 0
    for span in sorted(spans, key=lambda span: (span.offset, span.size)):
        if span.offset < end:
            raise FormatError(f"safetensors: tensor {span.name[:80]!r} overlaps another")
        end = span.offset + span.size
