"""The layout: the ordered parts that a checkpoint file is the concatenation of.

A part is a parameter's bytes, or skeleton: headers, pickles, archive directories, padding. The layout holds the
skeleton bytes themselves, so a file is rebuilt from its layout and its parameters without knowing its format
(docs/format.md, "Layout").
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from git_theta import jsontext
from git_theta.errors import FormatError, ManifestError
from git_theta.formats.base import MAX_SPANS, Span
from git_theta.jsontext import MAX_ITEMS
from git_theta.manifest import MAX_VIEWS, Record
from git_theta.source import Source
from git_theta.tensor import MAX_NAME_LENGTH, MAX_SIZE_BYTES, OPAQUE, are_counts, check_shape, is_dtype

__all__ = [
    "MAX_GAP_BYTES",
    "MAX_LAYOUT_BYTES",
    "MAX_SKELETON_BYTES",
    "SMALL_BYTES",
    "Layout",
    "Part",
    "build",
    "cover",
    "format",
    "parse",
    "whole_digest",
]

MAX_LAYOUT_BYTES = 128 * 2**20
MAX_SKELETON_BYTES = 48 * 2**20
MAX_GAP_BYTES = 2**20
MAX_ROWS_BYTES = 48 * 2**20
_MAX_MORE_UNNAMED = 1000
SMALL_BYTES = 2**16
"""Values below this share objects."""

_VERSION_KEY = "git-theta-layout"
_VERSION = 1
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Part:
    """The next `size` bytes of the file: the parameter `name`, or, where that is None, skeleton."""

    name: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts in file order, and the bytes of the skeleton parts one after another."""

    parts: tuple[Part, ...]
    skeleton: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return sum(part.size for part in self.parts)


def cover(spans: Sequence[Span], size: int) -> tuple[Span, ...]:
    """The spans in file order, with an opaque span for every gap above 1 MiB; smaller gaps are left as skeleton.

    Gap spans are named "~bytes0", "~bytes1", ... in file order, which `names.join` never gives to a tensor. Raises
    FormatError where spans overlap, leave the file, repeat a name, or are not the size that their dtype and shape say.
    """
    if len(spans) > MAX_SPANS:
        raise FormatError(f"{len(spans)} tensors, at most {MAX_SPANS} are kept apart")
    ordered = sorted(spans, key=lambda span: (span.offset, span.size, span.name))
    names: set[str] = set()
    covered: list[Span] = []
    end = skeleton = gaps = 0
    for span in [*ordered, Span("", size, 0, OPAQUE, (0,))]:
        if not are_counts((span.offset, span.size)) or span.offset < end or span.offset + span.size > size:
            raise FormatError(f"tensor {span.name[:80]!r} overlaps another, or leaves the file of {size} bytes")
        gap = span.offset - end
        if gap > MAX_GAP_BYTES:
            covered.append(Span(f"~bytes{gaps}", end, gap, OPAQUE, (gap,)))
            gaps += 1
        else:
            skeleton += gap
        covered.append(span)
        end = span.offset + span.size
    covered.pop()
    if skeleton > MAX_SKELETON_BYTES:
        raise FormatError(f"{skeleton} bytes between tensors, at most {MAX_SKELETON_BYTES} are kept as skeleton")
    rows = items = 0
    for span in covered:
        _check(span)
        # A small value is a piece of one object, and few of a version build on others.
        rows, items = rows + (150 if span.size < SMALL_BYTES else 400), items + 20
        for name, shape, strides in _faces(span):
            if name in names:
                raise FormatError(f"tensor name {name[:80]!r} stands twice")
            names.add(name)
            # A manifest is at most 64 MiB of text and 8 million items, or it could not be read again.
            rows += 150 + len(json.dumps([name, shape, strides]))
            items += 15 + len(shape) + len(strides or ())
            if rows > MAX_ROWS_BYTES or items > MAX_ITEMS // 2:
                raise FormatError(f"{len(covered)} tensors make a manifest of more than {MAX_ROWS_BYTES} bytes")
    return tuple(covered)


def _faces(span: Span) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...] | None]]:
    """Name, shape and strides of a span and of its views."""
    yield span.name, span.shape, span.strides
    for view in span.views:
        yield view.name, view.shape, view.strides


def _check(span: Span) -> None:
    """Raise FormatError unless a manifest can hold the span: what is written must be read again."""
    if not _is_tuple(span.views):
        raise FormatError(f"tensor {span.name[:80]!r} has views that are no tuple")
    check_shape(span.dtype, span.shape, span.size)
    if len(span.views) > MAX_VIEWS or not all(
        is_dtype(view.dtype) and are_counts((view.offset,)) for view in span.views
    ):
        raise FormatError(f"tensor {span.name[:80]!r} has views above {MAX_VIEWS}, or one without a dtype or an offset")
    for name, shape, strides in _faces(span):
        if len(name) > MAX_NAME_LENGTH or _SURROGATE.search(name):
            raise FormatError(f"tensor name {name[:80]!r} is above {MAX_NAME_LENGTH} characters, or no Unicode")
        if not _is_tuple(shape) or not are_counts(shape):
            raise FormatError(f"tensor {name[:80]!r} has a shape that is none")
        if strides is not None and (not _is_tuple(strides) or len(strides) != len(shape) or not are_counts(strides)):
            raise FormatError(f"tensor {name[:80]!r} has strides that are none")


def _is_tuple(value: object) -> bool:
    """Whether a plugin, which nobody has type-checked, gave what its interface says."""
    return type(value) is tuple


def build(spans: Sequence[Span], source: Source) -> Layout:
    """The layout for spans that `cover` returned; reads the skeleton bytes from `source`."""
    parts: list[Part] = []
    skeleton = bytearray()
    end = 0
    for span in [*spans, None]:
        start = source.size if span is None else span.offset
        if start > end:
            parts.append(Part(None, start - end))
            skeleton += source.read(end, start - end)
        if span is not None:
            parts.append(Part(span.name, span.size))
            end = span.offset + span.size
    return Layout(tuple(parts), bytes(skeleton))


def format(layout: Layout) -> bytes:
    """The layout as bytes: one line of JSON, then the skeleton."""
    head = {_VERSION_KEY: _VERSION, "parts": [[part.name, part.size] for part in layout.parts]}
    return json.dumps(head, separators=(",", ":")).encode() + b"\n" + layout.skeleton


def parse(data: bytes) -> Layout:
    """The layout that these bytes describe; raises ManifestError where they are no layout of this version."""
    line, newline, skeleton = data.partition(b"\n")
    try:
        head = jsontext.parse(line)
    except ValueError as error:
        raise ManifestError(f"layout: it is not JSON ({error})") from error
    if not newline or not isinstance(head, dict) or head.keys() != {_VERSION_KEY, "parts"}:
        raise ManifestError("layout: it lacks its two keys or its newline")
    if type(head[_VERSION_KEY]) is not int or head[_VERSION_KEY] != _VERSION:
        raise ManifestError("layout: it is of a version that this git-theta does not know; update git-theta")
    rows = head["parts"]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise ManifestError("layout: its parts are not pairs of name and size")
    # A payload of a few KiB may have millions of them: that is seen before anything is made of them.
    unnamed = sum(name is None for name, _ in rows)
    if unnamed > len(rows) - unnamed + _MAX_MORE_UNNAMED:
        raise ManifestError(f"layout: it has {unnamed} parts without a name, and few with one")
    parts = tuple(_part(name, size) for name, size in rows)
    if sum(part.size for part in parts if part.name is None) != len(skeleton):
        raise ManifestError(f"layout: its skeleton is {len(skeleton)} bytes, which is not what its parts say")
    named = [part.name for part in parts if part.name is not None]
    if len(set(named)) != len(named):
        raise ManifestError("layout: it places a parameter twice")
    return Layout(parts, skeleton)


def _part(name: object, size: object) -> Part:
    if not (name is None or isinstance(name, str)) or type(size) is not int or not 0 <= size <= MAX_SIZE_BYTES:
        raise ManifestError("layout: a part is not a name and a size in bytes")
    return Part(name, size)


def whole_digest(layout_record: Record, layout: Layout, records: Mapping[str, Record]) -> str:
    """BLAKE3-256 over the layout's digest and those of the parameters in file order: it stands for the file's bytes."""
    from blake3 import blake3

    named = [part.name for part in layout.parts if part.name is not None]
    return blake3(bytes.fromhex("".join([layout_record.digest, *(records[name].digest for name in named)]))).hexdigest()
