"""The interface of an update: how a value's bytes become a payload, and a payload the value's bytes again.

An update is pure and exact: `decode` gives back every bit that `encode` was given, on any machine, in memory that does
not grow with the value. The core compares and keeps a payload only if it is equal and smaller; bytes that do not match
their digest are damage, never a fallback.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from git_theta.source import Source

__all__ = ["CHUNK_BYTES", "Base", "Update", "Value"]

CHUNK_BYTES = 2 * 2**20


class Value(Protocol):
    """A parameter's raw bytes, little-endian, in the order in which they stand in the file."""

    @property
    def dtype(self) -> str:
        """A name of `tensor.DTYPES`, or of a dtype outside of it."""
        ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset`; fewer only at the end."""
        ...

    def chunks(self) -> Iterator[memoryview]:
        """The bytes in order, in chunks of CHUNK_BYTES (the last is shorter), each valid until the next is taken."""
        ...


class Base(Protocol):
    """The value that an update builds on: its bytes in order, once; an endless run of zero bytes follows them."""

    @property
    def dtype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size(self) -> int:
        """Bytes, without the zeros behind them."""
        ...

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, which the caller has bounded; not to be written to."""
        ...


class Update(Protocol):
    """A way to store a value, found by the entry-point group `git_theta.updates`."""

    @property
    def name(self) -> str:
        """Lower-case letters, digits and '-'; written into the manifest."""
        ...

    @property
    def bases(self) -> int:
        """On how many values it builds: as many as `encode` and `decode` are given."""
        ...

    def encode(self, value: Value, bases: Sequence[Base]) -> Iterator[bytes] | None:
        """The payload for `value`, in runs; None where this update has nothing to gain.

        Must read the value through exactly one pass of `value.chunks()`, whose bytes the core hashes; `value.read` is
        for a look ahead. The core also has samples of a value encoded, to judge by their size.
        """
        ...

    def decode(self, payload: Source, size: int, bases: Sequence[Base]) -> Iterator[bytes | memoryview]:
        """The `size` bytes of the value, in runs of a few MiB that are not written to again.

        The payload may be hostile: every length in it is checked before anything is allocated for it. Raises
        DamagedObjectError where it is not one that `encode` writes.
        """
        ...
