"""Merging a few numbers by a strategy, as tests write them down."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from blake3 import blake3

from git_theta.merges.arrays import KINDS, decode, encode
from git_theta.merges.base import FLOAT, Merge, read_options
from git_theta.merges.running import Operand, Task, held, run

__all__ = ["merged", "operand", "task"]

Numbers = Sequence[object] | float


def operand(values: Numbers, dtype: str = "F32") -> Operand:
    """An operand that holds these numbers."""
    array = np.asarray(values, "<f8" if KINDS[dtype] == FLOAT else "<i8")
    data = encode(array, dtype)
    return held(dtype, array.shape, blake3(data).hexdigest(), data)


def task(
    base: Numbers | None,
    *sides: Numbers,
    dtype: str = "F32",
    name: str = "layer",
    files: Mapping[str, Sequence[Numbers]] | None = None,
) -> Task:
    """A parameter that is to be merged."""
    made = tuple(operand(side, dtype) for side in sides)
    named = {file: tuple(map(operand, numbers)) for file, numbers in (files or {}).items()}
    return Task(name, dtype, made[0].shape, made, None if base is None else operand(base, dtype), named)


def merged(merge: Merge, given: Task, **options: object) -> list[Any]:
    """What becomes of it, as Python's numbers."""
    parsed = read_options(merge, {name.rstrip("_"): value for name, value in options.items()})
    data = b"".join(run(merge, parsed, given))
    found: list[Any] = decode(data, given.dtype, wide=given.dtype == "F64").reshape(given.shape).tolist()
    return found
