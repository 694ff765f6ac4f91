"""The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.

Scope: what the library's `SafeTensors::deserialize` accepts, and more: gaps between tensors, and dtypes that are not in
our table, whose size cannot be checked against the shape. Stricter in one thing: a header in which a key occurs twice
is refused, because readers do not agree on which of the two counts.

Specification: https://github.com/huggingface/safetensors#format and safetensors/src/tensor.rs (0.8.0).
"""

import json
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from git_theta import names, tensor
from git_theta.errors import FormatError
from git_theta.formats.base import MAX_SPANS, NOTHING, Checksum, Piece, Span, Versions, Wanted, whole
from git_theta.source import Source

__all__ = ["FORMAT", "MAX_HEADER_BYTES", "SafetensorsFormat"]

MAX_HEADER_BYTES = 32 << 20
_MAX_HEADER_VALUES = 4_000_000  # bounds what the parsed header takes: a value costs up to 80 bytes of memory
_SPACE = b" \t\r\n"
_METADATA = "__metadata__"
_ALIGNMENT = 8  # of where the tensors begin, as the library has it


class SafetensorsFormat:
    """Where the tensors of a safetensors file lie; a tensor's name is its key."""

    name = "safetensors"

    def accepts(self, head: bytes) -> bool:
        size = int.from_bytes(head[:8], "little")
        return len(head) > 9 and 2 <= size <= MAX_HEADER_BYTES and head[8:].lstrip(_SPACE)[:1] in (b"{", b"")

    def spans(self, source: Source) -> Sequence[Span]:
        header, data = _read_header(source)
        spans = [_span(key, value, data, source.size - data) for key, value in header.items() if key != _METADATA]
        if len(spans) > MAX_SPANS:
            raise FormatError(f"safetensors: {len(spans)} tensors are above the limit of {MAX_SPANS}")
        _check_disjoint(spans)
        return spans

    def compose(self, versions: Versions, wanted: Mapping[str, Wanted], checksum: Checksum) -> Sequence[Piece]:
        """A file of the wanted tensors, with metadata merged key by key; a side's header serves if it says the same."""
        sides = [side for side in (versions.ours, versions.theirs, versions.base) if side is not None]
        headers = [_read_header(side.source)[0] for side in sides]
        metadata = _merged_metadata([header.get(_METADATA) for header in headers], versions)
        kinds = {name: _kind(row.span) for name, row in wanted.items()}
        for side, header in zip(sides[:2], headers, strict=False):
            if header.get(_METADATA) == metadata and {span.name: _kind(span) for span in side.spans} == kinds:
                return whole(side)
        keys = {names.join((key,)): key for header in headers for key in header if key != _METADATA}
        return _written(keys, {name: row.span for name, row in wanted.items()}, metadata)


FORMAT = SafetensorsFormat()


def _read_header(source: Source) -> tuple[dict[str, object], int]:
    """The header, and where the tensors' bytes begin."""
    size = int.from_bytes(source.read(0, min(8, source.size)), "little")
    if source.size < 8 or not 2 <= size <= min(MAX_HEADER_BYTES, source.size - 8):
        raise FormatError(f"safetensors: a header of {size} bytes does not fit in a file of {source.size}")
    return _parse_header(source.read(8, size)), 8 + size


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


def _kind(span: Span) -> tuple[object, ...]:
    return span.dtype, span.shape, span.size


def _merged_metadata(found: Sequence[object], versions: Versions) -> object:
    """The metadata of ours, theirs and perhaps the base, merged key by key; None for none."""
    rows = [row if isinstance(row, dict) else {} for row in found]
    ours, theirs = rows[:2]
    base = rows[2] if len(rows) > 2 else {}
    merged = {
        key: versions.settled(names.join((key,)), *(row.get(key, NOTHING) for row in (base, ours, theirs)))
        for key in dict.fromkeys([*ours, *theirs])
    }
    kept = {key: value for key, value in merged.items() if value is not NOTHING}
    return kept if kept or {} in found[:2] else None


def _written(keys: Mapping[str, str], spans: Mapping[str, Span], metadata: object) -> list[Piece]:
    """A new file, in the library's order: wide dtypes first, so that all tensors are aligned, then by key."""
    known = [name for name in spans if name in keys]
    order = sorted(known, key=lambda name: (-tensor.words_of(spans[name].dtype, 0)[0], keys[name]))
    header: dict[str, object] = {} if metadata is None else {_METADATA: metadata}
    end = 0
    for name in order:
        span = spans[name]
        header[keys[name]] = {
            "dtype": span.dtype,
            "shape": span.shape,
            "data_offsets": [end, end + span.size],
        }
        end += span.size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return [len(text).to_bytes(8, "little") + text, *order]
