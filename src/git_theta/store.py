"""The object store: immutable files named by the SHA-256 of their bytes, in the layout of Git LFS.

Objects lie at `<git common dir>/theta/objects/ab/cd/<oid>`. An object is written to a temporary file and renamed into
place, never edited: a reader, a `git lfs push` or a hard link of git-lfs' file:// agent sees all of it or none. A
process that is killed leaves a file under `theta/tmp`, which a later one removes.
"""

import contextlib
import copy
import errno
import hashlib
import os
import re
import secrets
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from git_theta.config import Settings
from git_theta.errors import DamagedObjectError, MissingObjectError, RepositoryError, SpaceError
from git_theta.manifest import Piece
from git_theta.names import shown_path
from git_theta.sharing import Sharing
from git_theta.source import FileSource

__all__ = ["PayloadReader", "PayloadWriter", "Store", "check_room", "open_store", "reporting_full_disk"]

STALE_TEMPORARY_S = 24 * 3600
_FRESH_S = 1800
_READ_BYTES = 2**20
_OID = re.compile(r"[0-9a-f]{64}\Z")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Store:
    """The objects below one `theta` directory; safe to use from several threads and processes.

    `threads` read where many objects are read at once.
    """

    def __init__(
        self, root: Path, *, max_object_bytes: int, fsync: bool, threads: int = 1, sharing: Sharing = Sharing()
    ) -> None:
        self.root = root
        self.max_object_bytes = max_object_bytes
        self.fsync = fsync
        self.threads = threads
        self.sharing = sharing
        self._swept = False
        self._wait: Callable[[Mapping[str, int]], None] | None = None
        self.file_mode = sharing.file_mode(0o444 & ~_umask())

    def path(self, oid: str) -> Path:
        """Where the object lies or would lie."""
        return self.root / "objects" / oid[:2] / oid[2:4] / oid

    def has(self, oid: str, size: int) -> bool:
        """Whether an object of this name and size is here; its bytes are checked when they are read."""
        try:
            return self.path(oid).stat().st_size == size
        except OSError:
            return False

    def freshen(self, oid: str) -> None:
        """Make an object young again: what takes it into use may not be seen in any index or commit for a while.

        `prune` leaves objects alone that are younger than an hour. A store that cannot be written is not pruned.
        """
        path = self.path(oid)
        with contextlib.suppress(OSError, RepositoryError, SpaceError):
            if path.stat().st_mtime < time.time() - _FRESH_S:
                try:
                    os.utime(path)
                except PermissionError:  # another's, in a shared store
                    self.renew(oid)

    def renew(self, oid: str) -> None:
        """Put a copy in an object's place: a file of this user and of this store, linked to none elsewhere."""
        with self.path(oid).open("rb") as file, self.writer() as writer:
            while block := file.read(_READ_BYTES):
                writer.write(block)
            writer.finish()

    def remove(self, oid: str, before: float) -> bool:
        """Remove an object that was last made young before a time; whether it was there and is gone.

        Whoever takes it into use meanwhile makes it young, and then either it is given its name back or was not found.
        """
        path, aside = self.path(oid), self._new_temporary()
        try:
            self.sharing.make_folder(aside.parent)
            path.rename(aside)
        except FileNotFoundError:
            return False
        with contextlib.suppress(FileNotFoundError):  # a writer has swept it
            if aside.stat().st_mtime >= before:
                aside.replace(path)
                return False
            aside.unlink()
        return True

    def objects(self) -> Iterator[Path]:
        """The files of all objects that are here."""
        for path in (self.root / "objects").glob("??/??/*"):
            if _OID.match(path.name):
                yield path

    def missing(self, objects: dict[str, int]) -> dict[str, int]:
        """Those of the objects (oid to size in bytes) that are not here."""
        return {oid: size for oid, size in objects.items() if not self.has(oid, size)}

    def where(self, missing: Iterable[str]) -> str:
        """Where `missing` objects are not; a file of the name, which has not the size, is seen."""
        return "whole on this machine" if any(self.path(oid).exists() for oid in missing) else "on this machine"

    def check_writable(self) -> None:
        """Raise RepositoryError where the permissions let nothing be put here."""
        for folder in (self.root, self.root / "objects", self.root / "tmp"):
            if folder.is_dir() and not os.access(folder, os.W_OK):
                raise RepositoryError(f"{folder}: it cannot be written to; check its owner and permissions")

    def writer(self) -> "PayloadWriter":
        """A writer for one payload; leaving its `with` block without `finish` leaves nothing behind."""
        if not self._swept:
            self._swept = True
            self._sweep()
        return PayloadWriter(self)

    def reader(self, pieces: Sequence[Piece]) -> "PayloadReader":
        """A source over the payload that these pieces make up; close it."""
        if self._wait is not None:
            self._wait({piece.oid: piece.size for piece in pieces})
        return PayloadReader(self, pieces)

    def awaiting(self, wait: Callable[[Mapping[str, int]], None]) -> "Store":
        """The same store, whose readers call `wait` first for the objects (oid to size in bytes) that they need."""
        store = copy.copy(self)
        store._wait = wait
        return store

    def is_intact(self, oid: str) -> bool:
        """Whether the object is here and its bytes hash to its name; reads all of it."""
        if not self.path(oid).is_file():  # a device has no end, and a pipe perhaps no beginning
            return False
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_READ_BYTES))
        try:
            with self.path(oid).open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    digest.update(buffer[:count])
        except OSError:
            return False
        return digest.hexdigest() == oid

    def damaged(
        self, objects: Mapping[str, int], progress: Callable[[int], None] = lambda size_bytes: None
    ) -> list[str]:
        """Those of the objects (oid to size in bytes) that are not here whole; reads all of them, in threads.

        `progress` is told of bytes read, from several threads.
        """
        # Only a push and an audit pay for the import.
        from concurrent.futures import ThreadPoolExecutor

        def is_whole(oid: str) -> bool:
            whole = self.has(oid, objects[oid]) and self.is_intact(oid)
            progress(objects[oid])
            return whole

        # The largest first, or one of them would be the last, with one thread at work.
        oids = sorted(objects, key=objects.__getitem__, reverse=True)
        with ThreadPoolExecutor(self.threads) as pool:
            return [oid for oid, whole in zip(oids, pool.map(is_whole, oids), strict=True) if not whole]

    def temporary(self) -> tuple[int, Path]:
        """A new empty file under `theta/tmp`, open for reading and writing, and its path."""
        path = self._new_temporary()
        folder = path.parent
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        try:
            with reporting_full_disk(self.root):
                self.sharing.make_folder(folder)
                return os.open(path, flags, 0o600), path
        except OSError as error:
            raise RepositoryError(
                f"{folder}: it cannot be written to ({error.strerror}); check its owner and permissions"
            ) from error

    def _new_temporary(self) -> Path:
        return self.root / "tmp" / f"git-theta-{os.getpid()}-{secrets.token_hex(8)}"

    def _sweep(self) -> None:
        """Remove what killed processes left; a file younger than a day may belong to a running one."""
        limit = time.time() - STALE_TEMPORARY_S
        with contextlib.suppress(OSError):
            for path in (self.root / "tmp").glob("git-theta-*"):
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < limit:
                        path.unlink()


def open_store(theta_dir: Path, settings: Settings) -> Store:
    """The store below `<git common dir>/theta`."""
    return Store(
        theta_dir,
        max_object_bytes=settings.max_object_bytes,
        fsync=settings.fsync,
        threads=settings.thread_count,
        sharing=settings.sharing,
    )


class PayloadWriter:
    """Writes one payload as objects of at most `max_object_bytes`; nothing has its final name before `finish`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fd = -1
        self._path = Path()
        self._hash = hashlib.sha256()
        self._size = 0
        self._written: list[tuple[Path, Piece]] = []

    def __enter__(self) -> "PayloadWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        for path, _piece in self._written:
            path.unlink(missing_ok=True)
        self._written.clear()

    @property
    def size(self) -> int:
        """Bytes of the payload so far."""
        return self._size + sum(piece.size for _, piece in self._written)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the payload; raises SpaceError on a full disk."""
        view = memoryview(data).cast("B")
        while view:
            if self._fd < 0:
                self._fd, self._path = self._store.temporary()
            room = self._store.max_object_bytes - self._size
            with reporting_full_disk(self._store.root):
                count = os.write(self._fd, view[:room])
            self._hash.update(view[:count])
            self._size += count
            view = view[count:]
            if self._size == self._store.max_object_bytes:
                self._end_object()

    def finish(self) -> tuple[Piece, ...]:
        """Give the objects their final names; the pieces that make up the payload."""
        if self._size:
            self._end_object()
        pieces = tuple(piece for _, piece in self._written)
        while self._written:
            path, piece = self._written[0]
            self._place(path, self._store.path(piece.oid))
            self._written.pop(0)
        return pieces

    def _end_object(self) -> None:
        with reporting_full_disk(self._store.root):
            if hasattr(os, "fchmod"):
                os.fchmod(self._fd, self._store.file_mode)
            if self._store.fsync:
                os.fsync(self._fd)
            # A descriptor is closed once: after a failure, its number may be another thread's already.
            fd, self._fd = self._fd, -1
            os.close(fd)
        self._written.append((self._path, Piece(self._hash.hexdigest(), self._size, 0, self._size)))
        self._path = Path()
        self._hash = hashlib.sha256()
        self._size = 0

    def _place(self, path: Path, target: Path) -> None:
        try:
            with reporting_full_disk(self._store.root):
                self._store.sharing.make_folder(target.parent)
                # Replacing an object of the same name is harmless, and mends one that has rotted.
                path.replace(target)
        except OSError as error:
            # On Windows a file that someone reads cannot be replaced; it is the same object.
            if not isinstance(error, PermissionError) or not target.exists():
                raise RepositoryError(
                    f"{target.parent}: it cannot be written to ({error.strerror}); check its owner and permissions"
                ) from error
            path.unlink()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # the file is thrown away
                os.close(fd)
        if self._path.name:
            self._path.unlink(missing_ok=True)


class PayloadReader:
    """A `Source` over the concatenation of pieces of objects, opened as they are needed.

    Raises MissingObjectError or DamagedObjectError for an object that is not here or not as long as its name's owner
    said. Not for use from several threads at once.
    """

    def __init__(self, store: Store, pieces: Sequence[Piece]) -> None:
        self._store = store
        self._pieces = pieces
        self._ends = list(accumulate(piece.length for piece in pieces))
        self._open: tuple[int, int, FileSource] | None = None
        self.size = self._ends[-1] if self._ends else 0

    def __enter__(self) -> "PayloadReader":
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            os.close(self._open[1])
            self._open = None

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`; fewer only at the end."""
        size = max(0, min(size, self.size - offset))
        index = bisect_right(self._ends, offset)
        if size and offset + size <= self._ends[index]:
            piece = self._pieces[index]
            return self._source(index).read(piece.offset + piece.length - (self._ends[index] - offset), size)
        buffer = bytearray(size)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`; raises DamagedObjectError where the payload ends before that."""
        while buffer:
            index = bisect_right(self._ends, offset)
            if index == len(self._ends):
                raise DamagedObjectError(f"the payload ends at byte {self.size}, where more was expected")
            piece, left = self._pieces[index], self._ends[index] - offset
            count = min(len(buffer), left)
            self._source(index).read_into(piece.offset + piece.length - left, buffer[:count])
            buffer, offset = buffer[count:], offset + count

    def _source(self, index: int) -> FileSource:
        if self._open is None or self._open[0] != index:
            self.__exit__()
            piece = self._pieces[index]
            path = self._store.path(piece.oid)
            try:
                fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
            except FileNotFoundError as error:
                raise MissingObjectError(f"object {piece.oid} is not on this machine") from error
            except OSError as error:
                raise RepositoryError(f"object {piece.oid} cannot be read: {error.strerror}") from error
            self._open = (index, fd, FileSource(fd, str(path)))
            if self._open[2].size != piece.size:
                raise DamagedObjectError(f"object {piece.oid} has {self._open[2].size} bytes instead of {piece.size}")
        return self._open[2]


def check_room(folder: Path, size: int) -> None:
    """Raise SpaceError unless the disk of a folder has room for so many bytes."""
    from shutil import disk_usage  # few need it, and each start of the filter would pay for it

    free = disk_usage(folder).free
    if size > free:
        what = f"{size} bytes are needed and {free} are free"
        raise SpaceError(f"{shown_path(str(folder))}: {what}; nothing was written")


@contextlib.contextmanager
def reporting_full_disk(where: Path) -> Iterator[None]:
    """Turn the errors of a full disk, quota or file-size limit into a SpaceError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SpaceError(f"{where}: no space left ({error.strerror}); free some and try again") from error
        raise


def _umask() -> int:
    """The process's umask; there is no way to read it but to set it."""
    value = os.umask(0o077)
    os.umask(value)
    return value
