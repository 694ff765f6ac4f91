"""Zip archives put together from the entries of others, for the formats that are archives (`Composer` in base.py).

An entry is copied with its headers as they are. Its checksum is taken from a version that has an entry of the same
content; only that of a content that no version has is computed from the values.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from git_theta.errors import ConflictError, FormatError
from git_theta.formats import archive
from git_theta.formats.archive import Entry
from git_theta.formats.base import Checksum, Piece, Span, Version, Versions, Wanted

__all__ = ["Archive", "Packer", "Patches"]


class Archive:
    """A version of an archive: its entries by name, in the order in which they lie, and what each of them holds."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self.entries = {entry.name: entry for entry in archive.read(version.source)}
        rows = list(self.entries.values())
        directory = min((entry.central for entry in rows), default=0)
        self._ends = {
            entry.local: end
            for entry, end in zip(rows, [*(entry.local for entry in rows[1:]), directory], strict=False)
        }
        self._spans = sorted(version.spans, key=lambda span: (span.offset, span.size))
        self._starts = [span.offset for span in self._spans]
        self._kinds = {_kind(span) for span in self._spans}

    def has(self, span: Span) -> bool:
        """Whether a parameter of this name, dtype, shape and order of elements is in it."""
        return _kind(span) in self._kinds

    def content(self, entry: Entry) -> list[Piece]:
        """What is in an entry."""
        return [piece for piece in self.cut(entry.offset, entry.offset + entry.size, _NO_PATCHES) if piece]

    def record(self, entry: Entry, patches: "Patches") -> list[Piece]:
        """An entry with its local header, and what follows it up to the next, with `patches` (place, bytes) put in."""
        return list(self.cut(entry.local, self._ends[entry.local], patches))

    def cut(self, start: int, end: int, patches: "Patches") -> Iterator[Piece]:
        """The pieces from `start` to `end`; an empty value at `end` is part of them, and one at `start` is not."""
        at = start
        for index in range(bisect_left(self._starts, start), len(self._spans)):
            span = self._spans[index]
            if span.offset + bool(span.size) > end:
                break
            if not span.size and span.offset == start > 0:
                continue
            if span.offset < at or span.offset + span.size > end:
                raise ConflictError("a tensor lies over what the archive says of its entries")
            yield self._bytes(at, span.offset, patches)
            yield span.name
            at = span.offset + span.size
        yield self._bytes(at, end, patches)

    def _bytes(self, start: int, end: int, patches: "Patches") -> bytes:
        data = bytearray(self.version.source.read(start, end - start))
        for place in patches.within(start, end):
            data[place - start : place - start + len(patches.texts[place])] = patches.texts[place]
        return bytes(data)


class Patches:
    """Bytes to be put into an archive, by their places."""

    def __init__(self, texts: Mapping[int, bytes]) -> None:
        self.texts = texts
        self._places = sorted(texts)

    def within(self, start: int, end: int) -> Sequence[int]:
        """The places from `start` to before `end`."""
        return self._places[bisect_left(self._places, start) : bisect_left(self._places, end)]


_NO_PATCHES = Patches({})


def _kind(span: Span) -> tuple[object, ...]:
    """What an array's header says, and its name."""
    return span.name, span.dtype, span.shape, span.size, span.strides


class Packer:
    """Puts archives together for one merge."""

    def __init__(self, versions: Versions, wanted: Mapping[str, Wanted], checksum: Checksum) -> None:
        self.base = None if versions.base is None else Archive(versions.base)
        self.ours, self.theirs = Archive(versions.ours), Archive(versions.theirs)
        self._wanted = wanted
        self._digests = {name: row.digest for name, row in wanted.items()}
        self._checksum = checksum
        sides = [self.ours, self.theirs, *([self.base] if self.base else [])]
        self._known = {
            _key(side.content(entry), side.version.digests): entry.crc
            for side in reversed(sides)
            for entry in side.entries.values()
        }

    def archive(self, version: Version) -> Archive:
        """That of a version which is merged."""
        sides = [side for side in (self.ours, self.theirs, self.base) if side is not None]
        return next(side for side in sides if side.version is version)

    def refill(self, side: Archive, renewed: tuple[Entry, bytes] | None = None) -> list[Piece]:
        """A version's archive, with the wanted values in it, and perhaps other bytes for an entry without a tensor."""
        if self._wanted.keys() != {span.name for span in side.version.spans}:
            raise ConflictError("its parameters are those of neither side's file, and the format cannot add any")
        source, patches = side.version.source, self._patches(side)
        if renewed is None:
            return list(side.cut(0, source.size, patches))
        entries = list(side.entries.values())
        pieces: list[Piece] = [source.read(0, entries[0].local)]
        size = entries[0].local
        rows: dict[int, bytes] = {}
        aligned = archive.alignment(source, entries)
        for entry in entries:
            head, *rest = side.record(entry, patches)
            texts = patches.texts
            if isinstance(head, str) or (entry == renewed[0] and rest):
                raise ConflictError("a tensor lies over what the archive says of its entries")
            if entry == renewed[0]:
                head, texts = archive.renewed(head, entry, renewed[1])
            rows[entry.central] = archive.directory_row(source, entry, size, texts)
            record: list[Piece] = [archive.moved_header(head, entry, size, aligned), *rest]
            pieces += record
            size += sum(self._size(piece) for piece in record)
        return [*pieces, archive.moved_directory(source, rows, size)]

    def pack(self, members: Sequence[tuple[Archive, Entry]]) -> list[Piece]:
        """An archive of entries of several versions, in this order."""
        pieces: list[Piece] = []
        patches = {side: self._patches(side) for side in dict.fromkeys(side for side, _ in members)}
        size = 0
        rows: list[bytes] = []
        try:
            for side, entry in members:
                rows.append(archive.directory_row(side.version.source, entry, size, patches[side].texts))
                record = side.record(entry, patches[side])
                pieces += record
                size += sum(self._size(piece) for piece in record)
            directory = b"".join(rows)
            return [*pieces, directory, archive.end_record(len(rows), len(directory), size)]
        except FormatError as error:
            raise ConflictError(f"the two sides' entries do not fit into one archive ({error})") from error

    def _size(self, piece: Piece) -> int:
        return self._wanted[piece].span.size if isinstance(piece, str) else len(piece)

    def _patches(self, side: Archive) -> Patches:
        """The checksums to be put into a version's headers, by place."""
        digests = side.version.digests
        changed = [
            (span.offset, span.size)
            for span in side.version.spans
            if span.name in self._wanted and digests[span.name] != self._wanted[span.name].digest
        ]
        return Patches(dict(archive.mended(side.version.source, changed, lambda entry: self._crc(side.content(entry)))))

    def _crc(self, content: Sequence[Piece]) -> int:
        key = _key(content, self._digests)
        return self._known[key] if key in self._known else self._checksum(content)


def _key(content: Sequence[Piece], digests: Mapping[str, str]) -> tuple[Piece, ...]:
    """What an entry holds, whatever its parameters are called."""
    return tuple(digests[piece] if isinstance(piece, str) else piece for piece in content)
