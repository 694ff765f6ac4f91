"""How files lie on the disk, noted in Git's index as Git does it after a checkout of its own.

Git has no command for that: `add --refresh` has the whole content cleaned first, which for a checkpoint that was
written and verified a moment ago is reading it twice more. Here the stat data of its entry is replaced, and nothing
else. Whatever is unusual about an index is left to Git.

Source: gitformat-index(5); Documentation/technical/racy-git.txt.
"""

import hashlib
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Noted", "blob_oid", "note", "sizes"]

Noted = tuple[str, os.stat_result]
"""The oid of the blob whose content a file has, and how it lies on the disk."""

_HEADER = struct.Struct(">4sII")
_STAT = struct.Struct(">10I")  # ctime and mtime, each in seconds and nanoseconds; dev, ino, mode, uid, gid, size
_FLAGS = struct.Struct(">H")
_EXTENSION = struct.Struct(">4sI")
_EXTENDED, _STAGE = 0x4000, 0x3000
_HASHES = {40: hashlib.sha1, 64: hashlib.sha256}
_MAX_INDEX_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry whose stat data stands at `start`; `stage` is 0 unless the path is in conflict."""

    start: int
    path: bytes
    oid: str
    stage: int


def blob_oid(content: bytes, length: int) -> str:
    """The oid of a blob, in a repository whose oids have `length` characters."""
    return _HASHES[length](b"blob %d\0%s" % (len(content), content)).hexdigest()


def sizes(index: Path, oid_length: int) -> dict[bytes, int] | None:
    """The sizes that the index notes of its files, 0 where none is; None for an index that only Git can read."""
    try:
        content = _read(index)[0]
        oid_bytes = oid_length // 2
        rows = list(_entries(content, len(content) - oid_bytes, oid_bytes))
    except (OSError, ValueError, IndexError, struct.error):
        return None
    return {row.path: _STAT.unpack_from(content, row.start)[9] for row in rows if not row.stage}


def note(index: Path, files: Mapping[bytes, Noted]) -> bool:
    """Note how these files, by their path in the repository, lie on the disk; False where that is left to Git.

    An entry that has another blob by now is passed over. The index is replaced under its lock, as Git does it.
    """
    # Git notes the size modulo 2**32, and versions of Git differ in what they make of a remainder of 0.
    if os.name == "nt" or not files or any(status.st_size % 2**32 == 0 for _, status in files.values()):
        return False
    lock = index.with_name(index.name + ".lock")
    try:
        fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    except OSError:
        return False
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(_noted(index, fd, files))
        lock.replace(index)
    except BaseException as error:
        lock.unlink(missing_ok=True)
        # An index that is cut off, of a later version, or on a full disk: Git will say what there is to say.
        if isinstance(error, (OSError, ValueError, IndexError, struct.error)):
            return False
        raise
    return True


def _noted(index: Path, lock_fd: int, files: Mapping[bytes, Noted]) -> bytearray:
    """The content of the index with the stat data of `files`; gives the lock its mode."""
    content, status = _read(index)
    os.fchmod(lock_fd, stat.S_IMODE(status.st_mode))
    hasher = _HASHES[len(next(iter(files.values()))[0])]
    end = len(content) - hasher().digest_size
    hashed = any(content[end:])  # Git leaves zeros there with `index.skipHash`
    if hashed and hasher(content[:end]).digest() != content[end:]:
        raise ValueError("an index whose checksum is wrong")
    for entry in list(_entries(content, end, hasher().digest_size)):
        at = slice(entry.start, entry.start + _STAT.size)
        found = _STAT.unpack(content[at])
        oid, wanted = files.get(entry.path, ("", None))
        if wanted is not None and oid == entry.oid and not entry.stage:
            content[at] = _stat_data(wanted, mode=found[6])
        elif found[2] >= int(status.st_mtime):
            # Such a file may have been written to after the index was, within one second. Git would not look at it
            # again once the index is younger, were its size not noted as 0: as when Git itself writes an index.
            content[at] = _STAT.pack(*found[:9], 0)
    if hashed:
        content[end:] = hasher(content[:end]).digest()
    return content


def _read(index: Path) -> tuple[bytearray, os.stat_result]:
    with os.fdopen(os.open(index, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        return bytearray(file.read(_MAX_INDEX_BYTES)), os.fstat(file.fileno())


def _stat_data(status: os.stat_result, *, mode: int) -> bytes:
    times = (divmod(ns, 10**9) for ns in (status.st_ctime_ns, status.st_mtime_ns))
    fields = (*(part for time in times for part in time), status.st_dev, status.st_ino)
    rest = (mode, status.st_uid, status.st_gid, status.st_size)
    return _STAT.pack(*(field % 2**32 for field in (*fields, *rest)))


def _entries(content: bytearray, end: int, oid_bytes: int) -> Iterator[_Entry]:
    """The entries of an index whose checksum begins at `end`; raises ValueError for one that is not all there."""
    signature, version, count = _HEADER.unpack_from(content)
    if signature != b"DIRC" or version not in (2, 3, 4):
        raise ValueError("an index of no known version")
    start, path = _HEADER.size, b""
    for _ in range(count):
        oid = content[start + _STAT.size : start + _STAT.size + oid_bytes].hex()
        at = start + _STAT.size + oid_bytes
        (flags,) = _FLAGS.unpack_from(content, at)
        at += 2 * _FLAGS.size if flags & _EXTENDED else _FLAGS.size
        if version == 4:
            dropped, at = _varint(content, at)
            path = path[: len(path) - dropped]
        else:
            path = b""
        stop = content.index(0, at, end)
        path += content[at:stop]
        yield _Entry(start, path, oid, flags & _STAGE)
        start = stop + 1 if version == 4 else start + (stop - start + 8) // 8 * 8
    while start < end:
        name, size = _EXTENSION.unpack_from(content, start)
        if name[:1].islower() and name != b"sdir":
            raise ValueError("an index that is not all there, as a split one")
        start += _EXTENSION.size + size
    if start != end:
        raise ValueError("an index that is cut off")


def _varint(content: bytearray, at: int) -> tuple[int, int]:
    """The number at an offset, as in pack files ("offset encoding"), and where it ends."""
    number = content[at] & 0x7F
    while content[at] & 0x80:
        at += 1
        number = (number + 1 << 7) + (content[at] & 0x7F)
    return number, at + 1
