"""Git's packet lines, as the long-running filter protocol uses them.

Source: gitprotocol-common(5), "pkt-line Format": four hex digits give the packet's length including themselves; 0000 is
a flush. gitattributes(5), "Long Running Filter Process": a packet carries at most 65516 bytes.
"""

import os
from collections.abc import Iterable, Iterator
from io import FileIO

from git_theta.errors import RepositoryError

__all__ = ["MAX_DATA_BYTES", "PacketReader", "PacketWriter"]

MAX_DATA_BYTES = 65516
_READ_BYTES = 2**19  # more than a packet; and what stays in a processor's cache is read again from there
_PIPE_BYTES = 2**20
_FLUSH = b"0000"
_PACKETS_PER_CALL = 256
_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ, which Python has since 3.10 on Linux alone


class PacketReader:
    """Packets from a file descriptor.

    Their data lies in one buffer that is used again and again: a view of it holds until the next packet is asked for.
    """

    def __init__(self, fd: int) -> None:
        self._file = FileIO(fd, "r", closefd=False)
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._start = self._end = 0
        _widen_pipe(fd)

    def packet(self) -> memoryview | None:
        """The next packet's data; None for a flush. Raises EOFError at the end of the stream."""
        head = bytes(self._take(4))
        try:
            size = int(head, 16)
        except ValueError as error:
            raise RepositoryError(f"this is not Git's filter protocol: a packet that begins with {head!r}") from error
        if size == 0:
            return None
        if size < 4 or size > MAX_DATA_BYTES + 4:
            raise RepositoryError(f"Git sent a packet of {size} bytes, which the filter protocol does not know")
        return self._take(size - 4)

    def packets(self) -> Iterator[memoryview]:
        """The data of the packets up to the next flush."""
        while (data := self.packet()) is not None:
            yield data

    def lines(self) -> list[str]:
        """The packets up to the next flush, as text without their newline."""
        return [os.fsdecode(bytes(data)).removesuffix("\n") for data in self.packets()]

    def _take(self, size: int) -> memoryview:
        left = self._end - self._start
        if left < size:
            self._buffer[:left] = self._buffer[self._start : self._end]
            self._start, self._end = 0, left
            while self._end < size:
                count = self._file.readinto(self._buffer[self._end :])
                if not count:
                    raise EOFError
                self._end += count
        self._start += size
        return self._buffer[self._start - size : self._start]


class PacketWriter:
    """Packets to a file descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _widen_pipe(fd)

    def lines(self, lines: Iterable[str]) -> None:
        """Each line as a packet, then a flush."""
        encoded = [os.fsencode(line + "\n") for line in lines]
        self._write([b"".join(b"%04x%s" % (len(line) + 4, line) for line in encoded), _FLUSH])

    def content(self, runs: Iterable[bytes | memoryview]) -> None:
        """All bytes of the runs, in packets; the flush is the caller's, by `lines`, once it knows how it went."""
        for run in runs:
            view = memoryview(run)
            packets: list[bytes | memoryview] = []
            for start in range(0, len(view), MAX_DATA_BYTES):
                data = view[start : start + MAX_DATA_BYTES]
                packets += (b"%04x" % (len(data) + 4), data)
            for start in range(0, len(packets), 2 * _PACKETS_PER_CALL):
                self._write(packets[start : start + 2 * _PACKETS_PER_CALL])

    def flush(self) -> None:
        """A flush packet."""
        self._write([_FLUSH])

    def _write(self, buffers: list[bytes | memoryview]) -> None:
        if not hasattr(os, "writev"):
            buffers = [b"".join(buffers)]
        while buffers:
            count = os.writev(self._fd, buffers) if hasattr(os, "writev") else os.write(self._fd, buffers[0])
            while buffers and count >= len(buffers[0]):
                count -= len(buffers.pop(0))
            if count:
                buffers[0] = memoryview(buffers[0])[count:]


def _widen_pipe(fd: int) -> None:
    """Let a pipe hold 1 MiB where the system allows it: fewer switches between Git and this process."""
    try:
        import fcntl

        fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
    except (ImportError, OSError):
        pass
