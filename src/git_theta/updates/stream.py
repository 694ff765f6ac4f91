"""A value as a stream: what an update builds on, taken from the runs that make it."""

from collections.abc import Iterator

from git_theta.errors import DamagedObjectError

__all__ = ["Stream"]


class Stream:
    """A base's bytes in order, taken from the runs that rebuild it; a `Base` (base.py)."""

    def __init__(self, dtype: str, shape: tuple[int, ...], size: int, given: Iterator[bytes | memoryview]) -> None:
        self.dtype = dtype
        self.shape = shape
        self.size = size
        self._left = size
        self._given = given
        self._run = memoryview(b"")

    def take(self, size: int) -> memoryview:
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
