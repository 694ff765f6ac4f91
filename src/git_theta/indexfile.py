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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta.errors import RepositoryError

__all__ = ["Held", "Noted", "Seen", "blob_oid", "holding", "matching", "note"]

Noted = tuple[str, os.stat_result]
"""The oid of the blob whose content a file has, and how it lies on the disk."""

Seen = tuple[str, int]
"""The oid of a blob, and the size in bytes that the index notes of the file that was written of it."""

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


def note(index: Path, files: Mapping[bytes, Noted]) -> bool:
    """Note how these files, by their path in the repository, lie on the disk; False where that is left to Git.

    An entry that has another blob by now is passed over. The index is replaced under its lock, as Git does it.
    """
    if os.name == "nt" or not files or any(_is_ambiguous(status) for _, status in files.values()):
        return False
    try:
        with holding(index) as held:
            held.note(files)
    except (OSError, RepositoryError):
        # An index that is cut off, of a later version, or on a full disk: Git will say what there is to say.
        return False
    return True


def matching(index: Path, files: Mapping[bytes, Seen]) -> set[bytes]:
    """Those of the paths, with one kind of oids, at which the index has this blob and notes this size."""
    return set(_matching(_read(index)[0], files)) if files else set()


@contextmanager
def holding(index: Path) -> Iterator["Held"]:
    """Hold an index, so that nobody else replaces it; raises OSError where another process does."""
    lock = index.with_name(index.name + ".lock")
    fd = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
    held = Held(index, lock, fd)
    try:
        yield held
    finally:
        os.close(fd)
        if not held.is_replaced:
            lock.unlink(missing_ok=True)


class Held:
    """An index whose lock we hold. Raises RepositoryError for one that only Git can read, or nobody."""

    def __init__(self, index: Path, lock: Path, fd: int) -> None:
        self.is_replaced = False
        self._index = index
        self._lock = lock
        self._fd = fd

    def forget(self, files: Mapping[bytes, Seen]) -> set[bytes]:
        """Have the index forget how the files lie on the disk of which it has this blob and this size; their paths.

        Git then compares contents. Without that, a file of another size than the index notes is modified, whatever its
        content.
        """
        content, status = _read(self._index)
        found = _matching(content, files)
        if not found:
            return set()
        length = len(next(iter(files.values()))[0])

        def zero(entry: _Entry, fields: tuple[int, ...]) -> bytes | None:
            return _STAT.pack(*fields[:9], 0) if entry.path in found else None

        revised = _revised(content, status, length, zero)
        temporary = self._index.with_name(f"{self._index.name}.git-theta-{os.getpid()}")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
                file.write(revised)
            temporary.replace(self._index)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return set(found)

    def note(self, files: Mapping[bytes, Noted]) -> None:
        """As the function `note`; the lock is given back."""
        content, status = _read(self._index)

        def noted(entry: _Entry, fields: tuple[int, ...]) -> bytes | None:
            oid, wanted = files.get(entry.path, ("", None))
            if wanted is None or oid != entry.oid or entry.stage or _is_ambiguous(wanted):
                return None
            return _stat_data(wanted, mode=fields[6])

        revised = _revised(content, status, len(next(iter(files.values()))[0]), noted)
        os.fchmod(self._fd, stat.S_IMODE(status.st_mode))
        with os.fdopen(self._fd, "wb", closefd=False) as file:
            file.write(revised)
        self._lock.replace(self._index)
        self.is_replaced = True


def _revised(
    content: bytearray,
    status: os.stat_result,
    oid_length: int,
    edit: Callable[["_Entry", tuple[int, ...]], bytes | None],
) -> bytearray:
    """The content of an index that lay on the disk so, with the stat data that `edit` gives for an entry, if any."""
    hasher = _HASHES[oid_length]
    end = len(content) - oid_length // 2
    hashed = any(content[end:])  # Git leaves zeros there with `index.skipHash`
    if hashed and hasher(content[:end]).digest() != content[end:]:
        raise RepositoryError("the checksum of Git's index is wrong; run: git fsck")
    for entry in _listed(content, oid_length):
        at = slice(entry.start, entry.start + _STAT.size)
        fields = _STAT.unpack(content[at])
        if (made := edit(entry, fields)) is not None:
            content[at] = made
        elif fields[2] >= int(status.st_mtime):
            # Such a file may have been written to after the index was, within one second. Git would not look at it
            # again once the index is younger, were its size not noted as 0: as when Git itself writes an index.
            content[at] = _STAT.pack(*fields[:9], 0)
    if hashed:
        content[end:] = hasher(content[:end]).digest()
    return content


def _matching(content: bytearray, files: Mapping[bytes, Seen]) -> dict[bytes, int]:
    """The paths at which an index has the blob and the size, and where their stat data stands."""
    rows = _listed(content, len(next(iter(files.values()))[0]))
    return {
        row.path: row.start
        for row in rows
        if row.path in files
        and not row.stage
        and files[row.path] == (row.oid, _STAT.unpack_from(content, row.start)[9])
    }


def _is_ambiguous(status: os.stat_result) -> bool:
    """Git notes the size modulo 2**32, and versions of Git differ in what they make of a remainder of 0."""
    return status.st_size % 2**32 == 0


def _read(index: Path) -> tuple[bytearray, os.stat_result]:
    """The content of an index, and how it lies on the disk."""
    with os.fdopen(os.open(index, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        return bytearray(file.read(_MAX_INDEX_BYTES)), os.fstat(file.fileno())


def _stat_data(status: os.stat_result, *, mode: int) -> bytes:
    times = (divmod(ns, 10**9) for ns in (status.st_ctime_ns, status.st_mtime_ns))
    fields = (*(part for time in times for part in time), status.st_dev, status.st_ino)
    rest = (mode, status.st_uid, status.st_gid, status.st_size)
    return _STAT.pack(*(field % 2**32 for field in (*fields, *rest)))


def _listed(content: bytearray, oid_length: int) -> list[_Entry]:
    """The entries; raises RepositoryError where they cannot be told."""
    try:
        return list(_entries(content, len(content) - oid_length // 2, oid_length // 2))
    except (ValueError, IndexError, struct.error) as error:
        raise RepositoryError(f"Git's index cannot be read here: {error}") from error


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
