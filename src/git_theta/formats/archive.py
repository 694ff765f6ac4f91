"""Read a zip directory: where each entry's stored bytes lie; mend its checksums. Nothing is decompressed.

Scope: zip and zip64 archives of one disk, as torch, numpy and `zipfile` write them. The central directory is believed;
of a local header only its signature, its name and its two lengths are used, because torch writes sizes and CRC of zero
there and pads the extra field. Encrypted entries, archives of several disks, entries that overlap and names that occur
twice are refused.

Specification: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16
(end records), 4.5.3 (zip64 extra field).
"""

import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from git_theta.errors import FormatError
from git_theta.source import Source

__all__ = [
    "MAX_DIRECTORY_BYTES",
    "MAX_ENTRIES",
    "MIN_COMPRESSED_BYTES",
    "STORED",
    "Entry",
    "alignment",
    "directory_row",
    "end_record",
    "mended",
    "moved_directory",
    "moved_header",
    "read",
    "renewed",
]

STORED = 0
MAX_DIRECTORY_BYTES = 64 << 20
MAX_ENTRIES = 500_000
MIN_COMPRESSED_BYTES = 64 << 10
"""From this size on a compressed entry has a span of its own; a smaller one is no more than skeleton."""

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # encrypted, strongly encrypted, directory masked (section 4.4.4)
_UTF8 = 0x800
_ZIP64_EXTRA = 1
_DESCRIPTOR_FOLLOWS = 0x8
_DESCRIPTOR = b"PK\x07\x08"
_CRC = _OFFSET = struct.Struct("<L")
_SUMS = struct.Struct("<3L")  # CRC-32 and the two sizes, as they stand side by side
_CRC_IN_CENTRAL, _CRC_IN_LOCAL, _OFFSET_IN_CENTRAL = 16, 14, 42
_SIZES_IN_CENTRAL = (20, 24)
_OFFSET_IN_END, _OFFSET_IN_END64 = 16, 48
_EXTRA_SIZE = struct.Struct("<H")
_EXTRA_SIZE_IN_LOCAL = 28
_PADDING = struct.Struct("<2H")
_PADDED = int.from_bytes(b"FB", "little")  # torch's extra field
_MOST_ALIGNED = 1 << 14
_CHUNK_BYTES = 2**20
_WIDE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: its `size` bytes lie at `offset`, compressed by `method` (STORED: not at all).

    `local` and `central` are where its two headers begin.
    """

    name: str
    method: int
    offset: int
    size: int
    crc: int
    flags: int
    local: int
    central: int


@dataclass(frozen=True, slots=True)
class _Directory:
    offset: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class _Header:
    """An entry as the central directory has it, at `at` in the file; `offset` is that of its local header."""

    name: bytes
    flags: int
    method: int
    crc: int
    size: int
    unpacked: int
    offset: int
    at: int


def read(source: Source) -> list[Entry]:
    """The entries, in the order in which they lie in the file.

    Raises FormatError for what is no archive, or one outside of the scope or the limits.
    """
    directory = _find_directory(source)
    headers = _parse_directory(source.read(directory.offset, directory.size), directory)
    headers.sort(key=lambda header: header.offset)
    if len({header.name for header in headers}) != len(headers):
        raise FormatError("zip: two entries have one name")
    entries = []
    end = 0
    for header in headers:
        if header.offset < end:
            raise FormatError(f"zip: entry {header.name[:80]!r} overlaps the one before it")
        entry = _locate(source, header, directory.offset)
        end = entry.offset + entry.size
        entries.append(entry)
    return entries


def mended(
    source: Source, changed: Sequence[tuple[int, int]], checksum: Callable[[Entry], int] | None = None
) -> Iterator[tuple[int, bytes]]:
    """What is to be written where, so that the checksums are right after bytes of stored entries were changed.

    `source` is the changed file, `changed` the places (offset, size). A checksum stands in the central directory, and
    in the local header or behind the entry; what is 0 there, as torch has it in local headers, stays so. `checksum`
    gives an entry's CRC-32 where its bytes are not those of the source.
    """
    places = sorted(changed)
    ends = [offset + size for offset, size in places]
    for entry in read(source):
        end = entry.offset + entry.size
        first = bisect_right(ends, entry.offset)  # places do not overlap: their ends are in order, too
        if first == len(places) or places[first][0] >= end:
            continue
        crc = _checksum(source, entry) if checksum is None else checksum(entry)
        old, new = _CRC.pack(entry.crc), _CRC.pack(crc)
        described = bool(entry.flags & _DESCRIPTOR_FOLLOWS)
        signed = described and source.read(end, len(_DESCRIPTOR)) == _DESCRIPTOR
        yield entry.central + _CRC_IN_CENTRAL, new
        copies = [entry.local + _CRC_IN_LOCAL] if entry.crc or not described else []
        copies += [end + len(_DESCRIPTOR) * signed] if described else []
        yield from ((place, new) for place in copies if source.read(place, _CRC.size) == old)


def directory_row(source: Source, entry: Entry, place: int, patches: Mapping[int, bytes]) -> bytes:
    """An entry's row of a directory in which its local header lies at `place`, with `patches` of `mended` put in.

    Raises FormatError where the row would need another extra field, on one side of 4 GiB or the other.
    """
    head = bytearray(source.read(entry.central, _CENTRAL.size))
    row = head + source.read(entry.central + _CENTRAL.size, sum(_CENTRAL.unpack(head)[10:13]))
    fields = _CENTRAL.unpack(head)
    if fields[16] == _WIDE:
        if not _put_wide(row, _CENTRAL.size + fields[10], fields[11], (fields[8], fields[9]).count(_WIDE), place):
            raise FormatError(f"zip: entry {entry.name[:80]!r} has no zip64 extra field for where it lies")
    elif place >= _WIDE:
        raise FormatError(f"zip: entry {entry.name[:80]!r} would lie beyond 4 GiB")
    else:
        _OFFSET.pack_into(row, _OFFSET_IN_CENTRAL, place)
    for at in (_CRC_IN_CENTRAL, *_SIZES_IN_CENTRAL):
        new = patches.get(entry.central + at)
        row[at : at + 4] = new or row[at : at + 4]
    return bytes(row)


def _put_wide(row: bytearray, start: int, size: int, index: int, value: int) -> bool:
    """Put a number into a zip64 extra field, as its `index`-th; whether there is room for it."""
    at = start
    while at <= start + size - 4:
        kind, length = struct.unpack_from("<2H", row, at)
        if kind == _ZIP64_EXTRA and 8 * (index + 1) <= length <= start + size - at - 4:
            struct.pack_into("<Q", row, at + 4 + 8 * index, value)
            return True
        at += 4 + length
    return False


def renewed(record: bytes, entry: Entry, data: bytes) -> tuple[bytes, dict[int, bytes]]:
    """An entry's record (local header, bytes, and what follows) with other bytes, and patches for `directory_row`.

    Raises FormatError for one whose sizes stand elsewhere, as beyond 4 GiB.
    """
    start = entry.offset - entry.local
    head, tail = bytearray(record[:start]), bytearray(record[start + entry.size :])
    old, new = _SUMS.pack(entry.crc, entry.size, entry.size), _SUMS.pack(zlib.crc32(data), len(data), len(data))
    here = slice(_CRC_IN_LOCAL, _CRC_IN_LOCAL + _SUMS.size)
    behind = slice(len(_DESCRIPTOR) * tail.startswith(_DESCRIPTOR), None)
    described = bool(entry.flags & _DESCRIPTOR_FOLLOWS)
    if head[here] == old:
        head[here] = new
    elif not described or any(head[here]):
        raise FormatError(f"zip: the sizes of entry {entry.name[:80]!r} do not stand in its header")
    if described:
        if len(tail) - (behind.start or 0) != _SUMS.size or tail[behind] != old:
            raise FormatError(f"zip: the sizes of entry {entry.name[:80]!r} do not stand behind it")
        tail[behind] = new
    places = (_CRC_IN_CENTRAL, *_SIZES_IN_CENTRAL)
    patches = {entry.central + place: new[4 * index : 4 * index + 4] for index, place in enumerate(places)}
    return bytes(head) + data + bytes(tail), patches


def alignment(source: Source, entries: Sequence[Entry]) -> int:
    """What the places of entries that are padded, as torch does it, are multiples of."""
    places = 0
    for entry in entries:
        if _padding(source.read(entry.local, entry.offset - entry.local)) is not None:
            places |= entry.offset
    return min(places & -places, _MOST_ALIGNED) or 1


def moved_header(record: bytes, entry: Entry, place: int, aligned: int) -> bytes:
    """An entry's record that is to lie at `place`, padded as before, so that its bytes are aligned."""
    size = entry.offset - entry.local
    at = _padding(record[:size])
    if at is None:
        return record
    padding = -(place + at + _PADDING.size) % aligned
    head = bytearray(record[:at]) + _PADDING.pack(_PADDED, padding) + b"Z" * padding
    _EXTRA_SIZE.pack_into(head, _EXTRA_SIZE_IN_LOCAL, len(head) - _LOCAL.size - _LOCAL.unpack_from(head)[9])
    return bytes(head) + record[size:]


def _padding(head: bytes) -> int | None:
    """Where in a local header the extra field that pads it begins; None if it does not end with such."""
    at: int = _LOCAL.size + _LOCAL.unpack_from(head)[9]
    while at <= len(head) - _PADDING.size:
        kind, length = _PADDING.unpack_from(head, at)
        if kind == _PADDED and at + _PADDING.size + length == len(head):
            return at
        at += _PADDING.size + length
    return None


def moved_directory(source: Source, rows: Mapping[int, bytes], place: int) -> bytes:
    """The directory with these rows, by where they stood, and the end of the archive; it is to lie at `place`.

    Raises FormatError where it would need zip64 records that are not there.
    """
    directory = _find_directory(source)
    end = directory.offset + directory.size
    tail = bytearray(source.read(end, source.size - end))
    shift = place - directory.offset
    last = _find_end(bytes(tail))
    if _find_directory64(source, end + last) is not None:
        (record,) = struct.unpack_from("<Q", tail, last - _LOCATOR.size + 8) if last >= _LOCATOR.size else (0,)
        if record < end:
            raise FormatError("zip: the zip64 end record lies before the directory's end")
        struct.pack_into("<Q", tail, last - _LOCATOR.size + 8, record + shift)
        struct.pack_into("<Q", tail, record - end + _OFFSET_IN_END64, place)
    (offset,) = _OFFSET.unpack_from(tail, last + _OFFSET_IN_END)
    if offset != _WIDE:
        if offset + shift >= _WIDE:
            raise FormatError("zip: the directory would lie beyond 4 GiB")
        _OFFSET.pack_into(tail, last + _OFFSET_IN_END, offset + shift)
    return b"".join([*(rows[at] for at in sorted(rows)), tail])


def end_record(count: int, size: int, offset: int) -> bytes:
    """The end of an archive of `count` entries, whose directory of `size` bytes lies at `offset`.

    Raises FormatError where they are beyond what an archive without zip64 records can say.
    """
    if count >= 0xFFFF or max(size, offset) >= _WIDE:
        raise FormatError(f"zip: {count} entries before byte {offset} need a zip64 archive")
    return _END.pack(b"PK\x05\x06", 0, 0, count, count, size, offset, 0)


def _checksum(source: Source, entry: Entry) -> int:
    crc = 0
    for start in range(0, entry.size, _CHUNK_BYTES):
        crc = zlib.crc32(source.read(entry.offset + start, min(_CHUNK_BYTES, entry.size - start)), crc)
    return crc


def _find_directory(source: Source) -> _Directory:
    start = max(0, source.size - _END.size - 0xFFFF)
    tail = source.read(start, source.size - start)
    at = _find_end(tail)
    _, disk, first_disk, here, count, size, offset, _ = _END.unpack_from(tail, at)
    if (disk, first_disk) not in ((0, 0), (0xFFFF, 0xFFFF)) or here != count:
        raise FormatError("zip: the archive is spread over several disks")
    end = start + at
    directory = _find_directory64(source, end) or _Directory(offset, size, count)
    if directory.size > MAX_DIRECTORY_BYTES or directory.count > MAX_ENTRIES:
        raise FormatError(f"zip: a directory of {directory.count} entries, {directory.size} bytes is above the limits")
    if directory.offset > end - directory.size:
        raise FormatError(f"zip: the directory at {directory.offset} of {directory.size} bytes overlaps its end record")
    return directory


def _find_end(tail: bytes) -> int:
    """Where the end record begins in the file's last bytes: the last one whose comment ends where the file does."""
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at <= len(tail) - _END.size and at + _END.size + _END.unpack_from(tail, at)[7] == len(tail):
            return at
        at = tail.rfind(b"PK\x05\x06", 0, at + 3)
    raise FormatError("zip: there is no end record; the file is no zip archive, or it is cut off")


def _find_directory64(source: Source, end: int) -> _Directory | None:
    """The directory that the zip64 end record names; None where there is no locator just before the end record."""
    if end < _LOCATOR.size:
        return None
    signature, disk, record_offset, disks = _LOCATOR.unpack(source.read(end - _LOCATOR.size, _LOCATOR.size))
    if signature != b"PK\x06\x07":
        return None
    if record_offset > end - _LOCATOR.size - _END64.size:
        raise FormatError("zip: the zip64 end record lies outside of the file")
    record = _END64.unpack(source.read(record_offset, _END64.size))
    signature, _, _, _, this_disk, first_disk, here, count, size, offset = record
    if signature != b"PK\x06\x06":
        raise FormatError("zip: there is no zip64 end record where its locator points")
    if disk or this_disk or first_disk or disks > 1 or here != count:
        raise FormatError("zip: the archive is spread over several disks")
    return _Directory(offset, size, count)


def _parse_directory(data: bytes, directory: _Directory) -> list[_Header]:
    if directory.count * _CENTRAL.size > len(data):
        raise FormatError(f"zip: {directory.count} entries do not fit in {len(data)} bytes of directory")
    headers = []
    at = 0
    for _ in range(directory.count):
        if at > len(data) - _CENTRAL.size:
            raise FormatError("zip: the directory ends within an entry")
        fields = _CENTRAL.unpack_from(data, at)
        signature, _, _, flags, method, _, _, crc, size, unpacked, name_size, extra_size, comment_size = fields[:13]
        if signature != b"PK\x01\x02":
            raise FormatError(f"zip: there is no directory entry at byte {at} of the directory")
        begin = at
        name_end = at + _CENTRAL.size + name_size
        at = name_end + extra_size + comment_size
        if at > len(data):
            raise FormatError("zip: the directory ends within an entry")
        name = data[name_end - name_size : name_end]
        sizes = _widen(data[name_end : name_end + extra_size], (unpacked, size, fields[16]))
        headers.append(_Header(name, flags, method, crc, sizes[1], sizes[0], sizes[2], directory.offset + begin))
    return headers


def _widen(extra: bytes, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """Unpacked size, size and offset; those that are 0xFFFFFFFF are taken from the zip64 extra field, in that order."""
    if _WIDE not in sizes:
        return sizes
    at = 0
    while at <= len(extra) - 4:
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_EXTRA and length <= len(extra) - at - 4:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            unpacked, size, offset = (next(wide, value) if value == _WIDE else value for value in sizes)
            return unpacked, size, offset
        at += 4 + length
    return sizes


def _locate(source: Source, header: _Header, limit: int) -> Entry:
    """Where the entry's bytes begin, from its local header; they must end before `limit`."""
    shown = header.name[:80]
    if header.flags & _ENCRYPTED:
        raise FormatError(f"zip: entry {shown!r} is encrypted")
    if header.method == STORED and header.size != header.unpacked:
        raise FormatError(f"zip: entry {shown!r} is stored, but its two sizes differ")
    if header.offset > limit - _LOCAL.size - len(header.name):
        raise FormatError(f"zip: the local header of entry {shown!r} lies outside of the file")
    local = source.read(header.offset, _LOCAL.size + len(header.name))
    fields = _LOCAL.unpack_from(local)
    if fields[0] != b"PK\x03\x04" or fields[9] != len(header.name) or local[_LOCAL.size :] != header.name:
        raise FormatError(f"zip: there is no local header of entry {shown!r} where the directory says")
    offset = header.offset + len(local) + fields[10]
    if offset > limit - header.size:
        raise FormatError(f"zip: entry {shown!r} of {header.size} bytes at {offset} lies outside of the file")
    try:
        name = header.name.decode("utf-8" if header.flags & _UTF8 else "cp437")
    except UnicodeDecodeError as e:
        raise FormatError(f"zip: the name {shown!r} of an entry is no UTF-8") from e
    return Entry(name, header.method, offset, header.size, header.crc, header.flags, header.offset, header.at)
