"""The effective rank of a change: in how many directions a matrix moved, and how evenly.

Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, definition 1: the
exponential of the entropy of the singular values, as parts of their sum. A low-rank update of rank r has at most r.
"""

import math

from git_theta.elements import NUMBERS, Elements, parts_of
from git_theta.manifest import Record
from git_theta.statistics import BLOCK, Values, are_comparable
from git_theta.updates.stream import Stream

__all__ = ["MOST_ELEMENTS", "effective_rank", "has_rank"]

MOST_ELEMENTS = 2**24
"""Of a matrix whose singular values are computed: in float64 it takes 128 MiB, three times, and about a minute. Complex
elements count twice."""


def has_rank(before: Record, after: Record) -> bool:
    """Whether a change is one of a matrix of numbers, and not too large a one."""
    if len(before.shape) != 2 or before.shape != after.shape or (before.strides, after.strides) != (None, None):
        return False
    are_numbers = all(record.dtype in NUMBERS for record in (before, after))
    numbers = math.prod(before.shape) * parts_of(before.dtype)
    return are_numbers and are_comparable(before, after) and 0 < numbers <= MOST_ELEMENTS


def effective_rank(before: Record, after: Record, old: Values, new: Values) -> float | None:
    """The effective rank of a change that has one, from 1 up; None where it is zero or not finite everywhere.

    Both values are read through, and so verified, with the errors of `statistics.measure`.
    """
    import numpy as np

    parts = parts_of(before.dtype)
    change = np.empty(math.prod(before.shape) * parts, "<f8")
    streams = [
        Stream(record.dtype, record.shape, record.size, values.runs(record))
        for record, values in ((before, old), (after, new))
    ]
    sides = [Elements(record.dtype, BLOCK) for record in (before, after)]
    with np.errstate(all="ignore"):
        for start in range(0, len(change), BLOCK * parts):
            part = change[start : start + BLOCK * parts]
            one, two = (
                side.numbers(side.words(stream.take(len(part) // parts * side.width)))
                for side, stream in zip(sides, streams, strict=True)
            )
            np.subtract(two, one, out=part)
    for stream in streams:
        stream.finish()
    largest = float(np.abs(change).max())
    if largest == 0 or not math.isfinite(largest):
        return None
    change /= largest  # lest squares be too large or too small for float64
    matrix = (change.view("<c16") if parts > 1 else change).reshape(before.shape)
    singular = np.linalg.svd(matrix, compute_uv=False)
    shares = singular[singular > 0] / singular.sum()
    return math.exp(-float(shares @ np.log(shares)))
