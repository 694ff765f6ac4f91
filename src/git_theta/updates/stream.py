"""A value as a stream: what an update builds on, taken from the runs that make it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from git_theta.errors import DamagedObjectError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[tuple[int, ...], np.dtype[np.intp]]

__all__ = ["Memo", "Stream"]

_KEPT_BYTES = 32 * 2**20


class Memo:
    """What was worked out from the bytes of one value, for those who read it after each other or side by side.

    The first 32 MiB of it are kept, and the last one. Not for use from several threads at once.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int, int], Array] = {}
        self._last: tuple[tuple[str, int, int], Array] | None = None
        self._room = _KEPT_BYTES

    def recall(self, key: tuple[str, int, int], make: "Callable[[], Array]") -> "Array":
        """What `make` gave for this key: a name, and an offset and a size in the value."""
        if key in self._kept:
            return self._kept[key]
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        made = make()
        if made.nbytes <= self._room:
            self._room -= made.nbytes
            self._kept[key] = made
        else:
            self._last = key, made
        return made


class Stream:
    """A base's bytes in order, taken from the runs that rebuild it; a `Base` (base.py)."""

    def __init__(
        self,
        dtype: str,
        shape: tuple[int, ...],
        size: int,
        given: Iterator[bytes | memoryview],
        memo: Memo | None = None,
    ) -> None:
        """`memo`: one for all streams of the same value."""
        self.dtype = dtype
        self.shape = shape
        self.size = size
        self._left = size
        self._given = given
        self._memo = memo
        self._taken = (0, 0)
        self._run = memoryview(b"")

    def take(self, size: int) -> memoryview:
        self._taken = sum(self._taken), size
        if self._left and not self._run:
            self._next()
        if size <= len(self._run):
            taken, self._run = self._run[:size], self._run[size:]
            return taken
        filled = memoryview(bytearray(size))
        at = 0
        while at < size and (self._run or self._left):
            if not self._run:
                self._next()
            count = min(size - at, len(self._run))
            filled[at : at + count] = self._run[:count]
            at, self._run = at + count, self._run[count:]
        return filled.toreadonly()

    def derived(self, name: str, make: "Callable[[], Array]") -> "Array":
        return make() if self._memo is None else self._memo.recall((name, *self._taken), make)

    def finish(self) -> None:
        """Have the whole value made, so that its digest is checked."""
        for _run in self._given:
            pass

    def _next(self) -> None:
        run = next(self._given, None)
        if run is None or len(run) > self._left:
            raise DamagedObjectError(f"a base that has not the {self.size} bytes of its dtype and shape")
        self._run = memoryview(run).cast("B")
        self._left -= len(run)
