"""What a change of a value amounts to: norms, elements and rows that changed, NaN and infinities before and after.

The two values go by in blocks, as they are decoded: memory does not grow with them. Sums are added up in float64, and
are of the elements that are finite on both sides. An element has changed where its bits have; across dtypes, where it
is another number. What a complex element, or its change, amounts to is its modulus.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol

from git_theta.elements import NUMBERS, Elements, are_alike
from git_theta.manifest import Record
from git_theta.tensor import DTYPES
from git_theta.updates.stream import Stream

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    Counts = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    Flags = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    Words = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

__all__ = ["BINS", "BLOCK", "LOWEST", "Statistics", "Values", "are_comparable", "measure", "total"]

BLOCK = 2**17
"""Elements that are looked at in one go: so few that they stay in a core's cache, so many that calls cost little."""

BINS = 24
LOWEST = -8
_STEP = 0.5
"""Of a histogram: bins of log10 |change|/|weight| of half a decade each, from 1e-8 on; what lies outside is in the
first or the last one."""
_CELL_SHIFT = 48


class Values(Protocol):
    """Where the values of a version are."""

    def runs(self, record: Record) -> Iterator[bytes | memoryview]:
        """The bytes of a record's value, in runs that are not written to again; an error at the end if they changed."""
        ...


@dataclass(frozen=True, slots=True)
class Statistics:
    """A change in numbers: of `elements` on both sides, `changed` have other bits.

    `rows` and `changed_rows` count along axis 0; both are 0 where there is no second axis. `before`, `after` and
    `change` are L2 norms, `largest` the largest |change|; None where the elements are no numbers. `nans` and
    `infinities` are of the whole values, before and after. On request alone: `histogram` counts the finite elements
    that are other numbers by log10 |change|/|weight|, in `BINS` bins; `rank` is the effective rank of the change.
    """

    elements: int
    changed: int
    rows: int = 0
    changed_rows: int = 0
    before: float | None = None
    after: float | None = None
    change: float | None = None
    largest: float | None = None
    nans: tuple[int, int] = (0, 0)
    infinities: tuple[int, int] = (0, 0)
    histogram: tuple[int, ...] | None = None
    rank: float | None = None

    @property
    def relative(self) -> float | None:
        """The norm of the change as a part of that of the value before; None where that is 0 and the change is not."""
        if self.change is None or self.before is None or not math.isfinite(self.change + self.before):
            return None
        return self.change / self.before if self.before else 0.0 if self.change == 0 else None

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between the values; None where one of them is zero."""
        if self.before is None or self.after is None or self.change is None:
            return None
        product = self.before * self.after
        if product == 0 or not math.isfinite(product):
            return None
        # 1 - cos, which is small, without the cancellation of sums that are nearly equal.
        distance = (self.change - abs(self.before - self.after)) * (self.change + abs(self.before - self.after))
        return max(-1.0, min(1.0, 1 - distance / (2 * product)))


def total(parts: Sequence[Statistics]) -> Statistics:
    """The statistics of values taken together, as if they were one.

    There are no norms where one part has none. A histogram is of those that have one, a rank of one value alone.
    """
    counts = [sum(getattr(part, name) for part in parts) for name in ("elements", "changed", "rows", "changed_rows")]
    norms: list[float | None] = [
        None if None in found else math.hypot(*(norm for norm in found if norm is not None))
        for found in ([getattr(part, name) for part in parts] for name in ("before", "after", "change"))
    ]
    largest = [part.largest for part in parts if part.largest is not None]
    histograms = [part.histogram for part in parts if part.histogram is not None]
    return Statistics(
        *(counts[0], counts[1], counts[2], counts[3]),
        *(norms[0], norms[1], norms[2]),
        max(largest) if len(largest) == len(parts) > 0 else None,
        (sum(part.nans[0] for part in parts), sum(part.nans[1] for part in parts)),
        (sum(part.infinities[0] for part in parts), sum(part.infinities[1] for part in parts)),
        tuple(map(sum, zip(*histograms, strict=True))) if histograms else None,
        parts[0].rank if len(parts) == 1 else None,
    )


def are_comparable(before: Record, after: Record) -> bool:
    """Whether the elements of two values can be told to be the same ones: all of them, or those of the shared rows."""
    if before.strides != after.strides or not all(_is_whole(record) for record in (before, after)):
        return False
    if before.dtype != after.dtype and not are_alike(before.dtype, after.dtype):
        return False
    if before.shape == after.shape:
        return before.dtype in DTYPES or before.size == after.size
    if len(before.shape) != len(after.shape) or before.shape[1:] != after.shape[1:]:
        return False
    # Of what is no number, rows need not be whole bytes.
    return bool(before.shape) and before.strides is None and before.dtype in NUMBERS


def measure(before: Record, after: Record, old: Values, new: Values, *, histogram: bool = False) -> Statistics:
    """The statistics of a change, for records that are comparable; the histogram on request.

    Both values are read through, and so verified. Raises MissingObjectError, DamagedObjectError or ManifestError where
    one cannot be.
    """
    import numpy as np

    tally = _Tally(before.dtype, after.dtype, histogram=histogram)
    streams = [
        Stream(record.dtype, record.shape, record.size, values.runs(record))
        for record, values in ((before, old), (after, new))
    ]
    has_rows = len(before.shape) > 1 and before.strides is None and before.dtype in NUMBERS
    row = math.prod(before.shape[1:]) if has_rows else 0
    elements = _elements(before, after)
    with np.errstate(all="ignore"):
        for count, ends in _blocks(elements, row):
            taken = [stream.take(count * width) for stream, width in zip(streams, tally.widths, strict=True)]
            tally.add(taken[0], taken[1], row, ends=ends)
        for side, (record, stream, width) in enumerate(zip((before, after), streams, tally.widths, strict=True)):
            left = record.size - elements * width
            for start in range(0, left, BLOCK * width):
                tally.see(side, stream.take(min(BLOCK * width, left - start)))
            stream.finish()
    return tally.result(elements, elements // row if row else 0)


def _is_whole(record: Record) -> bool:
    """Whether a value has the bytes of its dtype and shape."""
    if record.dtype not in DTYPES:
        return True
    return math.prod(record.shape) * DTYPES[record.dtype].bits == 8 * record.size


def _elements(before: Record, after: Record) -> int:
    """How many elements are on both sides; bytes, where they are no numbers."""
    if before.dtype not in NUMBERS:
        return min(before.size, after.size)
    return min(math.prod(before.shape), math.prod(after.shape))


def _blocks(elements: int, row: int) -> Iterator[tuple[int, bool]]:
    """Runs of elements, each with whether it ends with a row: several rows, or a part of one, or any number if 0."""
    if row <= BLOCK:
        step = BLOCK // row * row if row else BLOCK
        for start in range(0, elements, step):
            yield min(step, elements - start), True
        return
    for _ in range(elements // row):
        for start in range(0, row, BLOCK):
            yield min(BLOCK, row - start), start + BLOCK >= row


class _Tally:
    """Sums over the blocks of two values."""

    def __init__(self, before: str, after: str, *, histogram: bool) -> None:
        import numpy as np

        self._np = np
        self._elements = [Elements(dtype, BLOCK) for dtype in (before, after)]
        self._parts = self._elements[0].parts
        self._same_dtype = before == after
        self._are_numbers = before in NUMBERS
        self._difference: Floats = np.empty(BLOCK * self._parts, "<f8")
        self._mask: Flags = np.empty(BLOCK * self._parts, np.bool_)
        self._row_changed = False
        self._changed = self._changed_rows = 0
        self._squares = [0.0, 0.0, 0.0]
        self._largest = 0.0
        self._nans = [0, 0]
        self._infinities = [0, 0]
        self._histogram = np.zeros(BINS, "<i8") if histogram and self._are_numbers else None

    @property
    def widths(self) -> tuple[int, int]:
        """Bytes of an element, before and after."""
        return self._elements[0].width, self._elements[1].width

    def add(self, old: memoryview, new: memoryview, row: int, *, ends: bool) -> None:
        """A block of elements of both sides, of several rows or of a part of one."""
        np = self._np
        words = [item.words(data) for item, data in zip(self._elements, (old, new), strict=True)]
        mask = self._mask[: len(words[0])]
        bits = words
        if not self._same_dtype:
            bits = [item.numbers(given).view("<u8") for item, given in zip(self._elements, words, strict=True)]
        np.not_equal(bits[0], bits[1], out=mask)
        mask = self._by_element(mask)
        changed = int(np.count_nonzero(mask))
        if self._are_numbers:
            self._add_numbers(words, changed)
        self._changed += changed
        if row > BLOCK:
            self._row_changed = self._row_changed or changed > 0
            if ends:
                self._changed_rows += self._row_changed
                self._row_changed = False
        elif row and changed:
            rows = mask.reshape(-1, row)
            self._changed_rows += len(rows) if changed == len(mask) else int(np.count_nonzero(rows.any(axis=1)))

    def see(self, side: int, data: memoryview) -> None:
        """Elements of one side that the other has not."""
        item = self._elements[side]
        if self._are_numbers and item.floating:
            self._count_specials(side, item.numbers(item.words(data)))

    def _by_element(self, flags: "Flags") -> "Flags":
        """Of each element, whether it has a part with a flag."""
        if self._parts == 1:
            return flags
        both: Flags = flags[::2] | flags[1::2]
        return both

    def _sizes(self, numbers: "Floats") -> "Floats":
        """The modulus of each element."""
        return self._np.abs(numbers) if self._parts == 1 else self._np.hypot(numbers[::2], numbers[1::2])

    def _add_numbers(self, words: "list[Words]", changed: int) -> None:
        """The sums over a block; where no bits changed, the one side stands for both."""
        np = self._np
        old = self._elements[0].numbers(words[0])
        square = float(old @ old)
        if not changed and math.isfinite(square):
            self._squares[0] += square
            self._squares[1] += square
            return
        new = self._elements[1].numbers(words[1])
        squares = [square, float(new @ new)]
        if not all(map(math.isfinite, squares)):
            self._count_specials(0, old)
            self._count_specials(1, new)
            finite = ~self._by_element(~(np.isfinite(old) & np.isfinite(new))).repeat(self._parts)
            old, new = np.where(finite, old, 0), np.where(finite, new, 0)
            squares = [float(old @ old), float(new @ new)]
        difference = self._difference[: len(old)]
        np.subtract(new, old, out=difference)
        for index, value in enumerate((*squares, float(difference @ difference))):
            self._squares[index] += value
        if self._parts > 1:
            squared = difference[::2] ** 2 + difference[1::2] ** 2
            self._largest = max(self._largest, math.sqrt(squared.max(initial=0)))
        elif len(difference):
            self._largest = max(self._largest, float(difference.max()), -float(difference.min()))
        if self._histogram is not None:
            self._histogram += _histogram(self._sizes(difference), self._sizes(old))

    def _count_specials(self, side: int, numbers: "Floats") -> None:
        np = self._np
        self._nans[side] += int(np.count_nonzero(self._by_element(np.isnan(numbers))))
        self._infinities[side] += int(np.count_nonzero(self._by_element(np.isinf(numbers))))

    def result(self, elements: int, rows: int) -> Statistics:
        """The statistics of all that was added."""
        if not self._are_numbers:
            return Statistics(elements, self._changed)
        before, after, change = map(math.sqrt, self._squares)
        nans, infinities = (self._nans[0], self._nans[1]), (self._infinities[0], self._infinities[1])
        counts = elements, self._changed, rows, self._changed_rows
        histogram = None if self._histogram is None else tuple(map(int, self._histogram))
        return Statistics(*counts, before, after, change, self._largest, nans, infinities, histogram)


def _histogram(difference: "Floats", old: "Floats") -> "Counts":
    """How many elements of a block changed by how much, by both moduli; one that was 0 is in the last bin."""
    import numpy as np

    ratios = np.abs(difference / old)  # 0 / 0 has a sign
    bins, edges = _bins()
    places = (ratios.view("<u8") >> _CELL_SHIFT).view("<i8")
    found = np.bincount(bins[places] + (ratios >= edges[places]), minlength=BINS)
    found[0] -= len(difference) - np.count_nonzero(difference)
    return found


@cache
def _bins() -> "tuple[Counts, Floats]":
    """By the first 16 bits of a float64 that is not negative: its bin, and from where on it is the next one.

    So few numbers share these that there is one edge at most between them. Logarithms take many
    times as long. NaN, which is 0 / 0, is in the first bin.
    """
    import numpy as np

    starts = (np.arange(2**15, dtype="<u8") << _CELL_SHIFT).view("<f8")
    edges = 10.0 ** (LOWEST + _STEP * np.arange(1, BINS))
    bins = np.searchsorted(edges, starts, side="right")
    bins[np.isnan(starts)] = 0
    following = np.append(edges, np.inf)[bins]
    following[bins == BINS - 1] = np.nan  # there is none: nothing is as large
    return bins, following
