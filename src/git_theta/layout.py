"""The layout: the ordered parts that a checkpoint file is the concatenation of.

A part is a parameter's bytes, or skeleton: headers, pickles, archive directories, padding. The layout holds the skeleton
bytes themselves, so a file is rebuilt from its layout and its parameters without knowing its format
(docs/format.md, "Layout").
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from git_theta.errors import FormatError, ManifestError
from git_theta.formats.base import MAX_SPANS, Span
from git_theta.source import Source
from git_theta.tensor import MAX_NAME_LENGTH, MAX_SIZE_BYTES, OPAQUE, check_shape

__all__ = ["MAX_LAYOUT_BYTES", "Layout", "Part", "build", "cover", "format", "parse"]

MAX_LAYOUT_BYTES = 128 * 2**20
MAX_SKELETON_BYTES = 48 * 2**20
MAX_GAP_BYTES = 2**20
MAX_ROWS_BYTES = 48 * 2**20

_VERSION_KEY = "git-theta-layout"
_VERSION = 1


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
        if not end <= span.offset <= size or not 0 <= span.size <= size - span.offset:
            raise FormatError(
                f"tensor {span.name[:80]!r} lies at {span.offset}+{span.size}, which overlaps or leaves {size}"
            )
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
    for span in covered:
        _check(span, names)
    # A manifest is at most 64 MiB of text: about 500 bytes a parameter, 150 a view, and the names, escaped.
    rows = sum(500 + 150 * len(span.views) for span in covered) + sum(len(json.dumps(name)) for name in names)
    if rows > MAX_ROWS_BYTES:
        raise FormatError(f"{len(covered)} tensors with {len(names)} names make a manifest of about {rows} bytes")
    return tuple(covered)


def _check(span: Span, names: set[str]) -> None:
    for name in (span.name, *(view.name for view in span.views)):
        if name in names or len(name) > MAX_NAME_LENGTH:
            raise FormatError(f"tensor name {name[:80]!r} stands twice, or is longer than {MAX_NAME_LENGTH} characters")
        names.add(name)
    check_shape(span.dtype, span.shape, span.size)
    for shape, strides in ((span.shape, span.strides), *((view.shape, view.strides) for view in span.views)):
        if strides is not None and len(strides) != len(shape):
            raise FormatError(f"tensor {span.name[:80]!r} has {len(strides)} strides for {len(shape)} dimensions")


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
        head = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"layout: it is not JSON ({str(error)[:80]})") from error
    if not newline or not isinstance(head, dict) or head.keys() != {_VERSION_KEY, "parts"}:
        raise ManifestError("layout: it lacks its two keys or its newline")
    if head[_VERSION_KEY] != _VERSION:
        raise ManifestError("layout: it is of a version that this git-theta does not know; update git-theta")
    rows = head["parts"]
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise ManifestError("layout: its parts are not pairs of name and size")
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
