"""The outline of a checkpoint: its file without the values, for what stands beside them."""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from git_theta.errors import ChangedError
from git_theta.layout import Layout

__all__ = ["Outline"]


class Outline:
    """The bytes of a file of this layout, those of parameters being zeros; a `Source` (source.py)."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._ends = list(accumulate(part.size for part in layout.parts))
        lengths = (part.size if part.name is None else 0 for part in layout.parts)
        self._skeleton_ends = list(accumulate(lengths))
        self.size = layout.size

    def has(self, offset: int, size: int) -> bool:
        """Whether all of these bytes are skeleton."""
        return all(part_name is None for part_name, _, _ in self._runs(offset, size))

    def read(self, offset: int, size: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        skeleton = self._layout.skeleton
        return b"".join(
            bytes(count) if name is not None else skeleton[start : start + count]
            for name, start, count in self._runs(offset, size)
        )

    def read_into(self, offset: int, buffer: memoryview) -> None:
        data = self.read(offset, len(buffer))
        if len(data) != len(buffer):
            raise ChangedError(f"{len(buffer)} bytes at {offset} of {self.size}")
        buffer[:] = data

    def _runs(self, offset: int, size: int) -> Iterator[tuple[str | None, int, int]]:
        """What lies there, part by part: the part's name, where its bytes begin in the skeleton, and how many."""
        index = bisect_right(self._ends, offset)
        while size > 0 and index < len(self._ends):
            count = min(size, self._ends[index] - offset)
            yield self._layout.parts[index].name, self._skeleton_ends[index] - (self._ends[index] - offset), count
            offset, size, index = offset + count, size - count, index + 1
