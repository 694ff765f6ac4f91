"""The effective rank of a change: in how many directions a matrix moved, and how evenly.

Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, definition 1: the
exponential of the entropy of the singular values, as parts of their sum. A low-rank update of rank r has at most r.
"""

import math

from git_theta.manifest import Record
from git_theta.merges.arrays import KINDS
from git_theta.statistics import BLOCK, Loader, Values, are_comparable
from git_theta.updates.stream import Stream

__all__ = ["MOST_ELEMENTS", "effective_rank", "has_rank"]

MOST_ELEMENTS = 2**24
"""Of a matrix whose singular values are computed: in float64 it takes 128 MiB, three times, and about a minute."""


def has_rank(before: Record, after: Record) -> bool:
    """Whether a change is one of a matrix of numbers, and not too large a one."""
    if len(before.shape) != 2 or before.shape != after.shape or (before.strides, after.strides) != (None, None):
        return False
    are_numbers = all(record.dtype in KINDS for record in (before, after))
    return are_numbers and are_comparable(before, after) and 0 < math.prod(before.shape) <= MOST_ELEMENTS


def effective_rank(before: Record, after: Record, old: Values, new: Values) -> float | None:
    """The effective rank of a change that has one, from 1 up; None where it is zero or not finite everywhere.

    Both values are read through, and so verified, with the errors of `statistics.measure`.
    """
    import numpy as np

    change = np.empty(math.prod(before.shape), "<f8")
    streams = [
        Stream(record.dtype, record.shape, record.size, values.runs(record))
        for record, values in ((before, old), (after, new))
    ]
    loaders = [Loader(record.dtype) for record in (before, after)]
    with np.errstate(all="ignore"):
        for start in range(0, len(change), BLOCK):
            part = change[start : start + BLOCK]
            one, two = (
                item.numbers(item.words(stream.take(len(part) * item.width)))
                for item, stream in zip(loaders, streams, strict=True)
            )
            np.subtract(two, one, out=part)
    for stream in streams:
        stream.finish()
    largest = float(np.abs(change).max())
    if largest == 0 or not math.isfinite(largest):
        return None
    change /= largest  # lest squares be too large or too small for float64
    singular = np.linalg.svd(change.reshape(before.shape), compute_uv=False)
    parts = singular[singular > 0] / singular.sum()
    return math.exp(-float(parts @ np.log(parts)))
