"""Sources: bytes that are read at offsets, from a file or from memory, without a shared position."""

import os
import threading
from dataclasses import dataclass
from typing import Protocol

from git_theta.errors import ChangedError

__all__ = ["BytesSource", "FileSource", "PartSource", "Source", "Stamp", "stamp_of"]

Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes and modification time in nanoseconds of a file."""


class Source(Protocol):
    """A run of `size` bytes; safe to read from several threads."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`; fewer only at the end. The caller bounds `size`."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`; raises ChangedError where the bytes end early."""
        ...


@dataclass(frozen=True, slots=True)
class BytesSource:
    """A source over bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > len(self.data):
            raise ChangedError(f"{len(buffer)} bytes at {offset} of {len(self.data)}")
        buffer[:] = memoryview(self.data)[offset : offset + len(buffer)]


@dataclass(frozen=True, slots=True)
class PartSource:
    """The `size` bytes at `start` of another source, which has them."""

    source: Source
    start: int
    size: int

    def read(self, offset: int, size: int) -> bytes:
        return self.source.read(self.start + offset, max(0, min(size, self.size - offset)))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        if offset + len(buffer) > self.size:
            raise ChangedError(f"{len(buffer)} bytes at {offset} of {self.size}")
        self.source.read_into(self.start + offset, buffer)


class FileSource:
    """A source over an open file descriptor, which stays the caller's to close.

    It reads rather than maps: a map of a file that someone truncates kills the process with SIGBUS, and reading into a
    buffer that is used again costs no more (docs/design/001-reading-files.md).
    """

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self.stamp = stamp_of(os.fstat(fd))
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        return self.stamp[2]

    def read(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        if hasattr(os, "pread"):
            data = os.pread(self._fd, size, offset)
            if len(data) == size:
                return data
        buffer = bytearray(size)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            count = self._read_some(offset + done, buffer[done:])
            if count == 0:
                raise ChangedError(f"{self._name}: it became shorter while it was read; try again")
            done += count

    if hasattr(os, "preadv"):

        def _read_some(self, offset: int, buffer: memoryview) -> int:
            return os.preadv(self._fd, [buffer], offset)
    else:  # Windows has no positioned read

        def _read_some(self, offset: int, buffer: memoryview) -> int:
            with self._lock:
                os.lseek(self._fd, offset, os.SEEK_SET)
                data = os.read(self._fd, len(buffer))
            buffer[: len(data)] = data
            return len(data)

    def check_unchanged(self) -> None:
        """Raise ChangedError if the file was written to since this source was made."""
        if stamp_of(os.fstat(self._fd)) != self.stamp:
            raise ChangedError(f"{self._name}: it was written to while it was read; try again")


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes when a file is written to, or another one takes its place."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
