"""The layout of a checkpoint that a merge makes: put together from those of its versions, no value being loaded.

A format that is a `Composer` says how; the file of any other is laid out as that of the side that changed it. What
comes of it is read again by the format: a file that does not hold just what was wanted is never made.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from git_theta import layout as layouts
from git_theta import plugins
from git_theta.checkpoint import segment
from git_theta.errors import ConflictError, FormatError
from git_theta.formats.base import (
    Composer,
    Piece,
    Sealed,
    Settle,
    Span,
    Version,
    Versions,
    Wanted,
    refuse,
    whole,
    winner,
)
from git_theta.layout import Layout, Part
from git_theta.manifest import Manifest, Record
from git_theta.outline import Outline
from git_theta.source import Source

__all__ = ["Placed", "compose"]


@dataclass(frozen=True, slots=True)
class Placed:
    """A version of a checkpoint, and its layout."""

    manifest: Manifest
    layout: Layout


def compose(
    base: Placed | None,
    ours: Placed,
    theirs: Placed,
    records: Mapping[str, Record],
    runs: Callable[[Record], Iterator[bytes | memoryview]],
    settle: Settle = refuse,
) -> Layout:
    """The layout of a file with these parameters; what it says beside them is merged three-way.

    `runs` gives the bytes of a value, where a format needs a checksum of it; `settle` says what becomes of a scalar
    that both sides changed. Raises ConflictError where both sides changed more of what is no parameter, or where the
    parameters are those of neither side and the format cannot add any.
    """
    format_name = ours.manifest.format
    if theirs.manifest.format != format_name:
        raise ConflictError(f"its formats are {format_name} and {theirs.manifest.format}")
    if base is not None and base.manifest.format != format_name:
        base = None
    versions = Versions(None if base is None else _version(base), _version(ours), _version(theirs), settle)
    wanted = {name: Wanted(_span(name, record), record.digest) for name, record in records.items()}

    def checksum(pieces: Sequence[Piece]) -> int:
        crc = 0
        for piece in pieces:
            for run in runs(records[piece]) if isinstance(piece, str) else [piece]:
                crc = zlib.crc32(run, crc)
        return crc

    used: object = plugins.format(format_name)
    try:
        if isinstance(used, Composer):
            pieces = used.compose(versions, wanted, checksum)
        elif isinstance(used, Sealed):
            raise ConflictError(f"format '{format_name}' cannot say how a merged file is written")
        else:
            pieces = whole(winner(versions, _skeleton))
        made = _layout(pieces, records)
    except FormatError as error:
        raise ConflictError(f"its file cannot be written anew ({error})") from error
    _check(made, format_name, records)
    return made


def _version(placed: Placed) -> Version:
    parameters = placed.manifest.parameters
    spans = []
    end = 0
    for part in placed.layout.parts:
        if part.name is not None:
            spans.append(_span(part.name, parameters[part.name], end))
        end += part.size
    return Version(Outline(placed.layout), spans, {name: record.digest for name, record in parameters.items()})


def _span(name: str, record: Record, offset: int = 0) -> Span:
    return Span(name, offset, record.size, record.dtype, record.shape, record.strides, record.views)


def _skeleton(version: Version) -> object:
    """Everything that is no value, and the parameters around it."""
    return [piece if isinstance(piece, bytes) else (piece,) for piece in whole(version)]


def _layout(pieces: Sequence[Piece], records: Mapping[str, Record]) -> Layout:
    """The pieces as a layout, neighbouring bytes being one part."""
    parts: list[Part] = []
    skeleton = bytearray()
    for piece in pieces:
        if isinstance(piece, str):
            if piece not in records:
                raise ConflictError(f"the file would hold a parameter '{piece[:80]}' that the result has not")
            parts.append(Part(piece, records[piece].size))
        elif piece:
            skeleton += piece
            last = parts[-1] if parts else Part("", 0)
            parts[len(parts) - (last.name is None) :] = [
                Part(None, len(piece) + (last.size if last.name is None else 0))
            ]
    return Layout(tuple(parts), bytes(skeleton))


def _check(made: Layout, format_name: str, records: Mapping[str, Record]) -> None:
    """Raise ConflictError unless the format finds in the new file what it is to hold, where it is to hold it."""
    source: Source = Outline(made)
    found, spans = segment(source)
    spans = tuple(span for span in spans if span.name in records or not span.name.startswith("~bytes"))
    wanted = {
        name: (record.dtype, record.shape, record.size, record.strides, record.views)
        for name, record in records.items()
    }
    here = {span.name: (span.dtype, span.shape, span.size, span.strides, span.views) for span in spans}
    places = [(name, size) for name, size in ((part.name, part.size) for part in layouts.build(spans, source).parts)]
    if found != format_name or here != wanted or places != [(part.name, part.size) for part in made.parts]:
        raise ConflictError("its parameters are those of neither side's file, and the format cannot place them")
