"""The interface of an update: how a value's bytes become a payload, and a payload the value's bytes again.

An update is pure and exact: `decode` gives back every bit that `encode` was given, on any machine, in memory that does
not grow with the value. The core compares and keeps a payload only if it is equal and smaller; bytes that do not match
their digest are damage, never a fallback.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from git_theta.source import Source
from git_theta.tensor import Tensor

if TYPE_CHECKING:
    from git_theta.updates.stream import Array

__all__ = ["CHUNK_BYTES", "Base", "Described", "Holding", "Supplied", "Supplier", "Update", "Value"]

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

    def derived(self, name: str, make: "Callable[[], Array]") -> "Array":
        """What `make` works out from the bytes that were last taken; `name` says what, and of what it depends else.

        It may be what another reader of the same value was given, and is not to be written to.
        """
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


class Supplied(Update, Protocol):
    """An update of one parameter whose content the user brought (`git theta add --update-path`).

    `encode` stores what was brought, and whatever it takes besides to be exact; None where the value is not what the
    update makes of its base, as far as that can be told.
    """

    def apply(self, base: Base) -> Iterator[bytes | memoryview]:
        """The value that the update makes of its base, of the base's dtype, shape and size, in runs of a few MiB.

        What comes out is the same on every machine.
        """
        ...


@runtime_checkable
class Supplier(Protocol):
    """An update that users may bring the content of: a plugin that has this method beside those of `Update`."""

    def supplied(self, tensors: Mapping[str, Tensor], dtype: str, shape: tuple[int, ...]) -> Supplied:
        """The update of a parameter of this dtype and shape by `tensors`, the ones that the user's file has for it.

        Their names are the update's own, such as "R" and "C". Raises InputError, without the parameter's name, where
        one is missing or unknown, does not fit, is not finite, or where a parameter of this dtype cannot be updated so.
        """
        ...


@runtime_checkable
class Described(Protocol):
    """An update of whose payloads there is something to say: a plugin that has this method beside those of `Update`."""

    def described(self, payload: Source) -> str:
        """What a diff says of a payload behind the update's name, such as "r=16"; "" for nothing.

        Reads a few bytes of it, which may be anyone's.
        """
        ...


@runtime_checkable
class Holding(Protocol):
    """An update that holds a part of its payload while it decodes: a plugin that has this method beside those of
    `Update`. The core bounds what all the updates of a value hold at once.
    """

    def held(self, payload: Source) -> int:
        """Bytes that `decode` will hold for this payload beside a few MiB; 0 where `decode` will refuse it.

        Reads a few bytes of it, which may be anyone's.
        """
        ...
