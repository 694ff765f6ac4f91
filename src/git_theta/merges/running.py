"""One parameter merged: the sides' bytes go in, the merged value's bytes come out.

A strategy that is elementwise gets a run of elements at a time, so memory does not grow with the value. Floats are
computed in float32, or in float64 where one of them is F64, and rounded once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from git_theta.errors import ConflictError
from git_theta.merges.arrays import KINDS, Backend, decode, encode, numpy_backend
from git_theta.merges.base import FLOAT, Inputs, Merge, Options
from git_theta.tensor import DTYPES, nbytes

if TYPE_CHECKING:
    from git_theta.merges.arrays import Numbers

__all__ = ["RUN_ELEMENTS", "Operand", "Task", "check_result", "held", "run"]

RUN_ELEMENTS = 2**18


@dataclass(frozen=True, slots=True)
class Operand:
    """A value that goes in: `take` gives its next bytes in order, as many as it is asked for."""

    dtype: str
    shape: tuple[int, ...]
    digest: str
    take: Callable[[int], bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Task:
    """What to merge: a parameter's name, the dtype and shape of the result, and what is known of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sides: tuple[Operand, ...]
    base: Operand | None = None
    files: Mapping[str, tuple[Operand, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = [*self.sides, *([self.base] if self.base else [])]
        kinds = {KINDS.get(value.dtype) for value in values} | {KINDS.get(self.dtype)}
        if kinds != {FLOAT} and (None in kinds or {value.dtype for value in values} != {self.dtype}):
            raise ConflictError("its dtypes cannot be computed with, or not with each other; take a side")
        if any(value.shape != self.shape for value in values):
            raise ConflictError("its sides are of different shapes; take a side")


def held(dtype: str, shape: tuple[int, ...], digest: str, data: bytes) -> Operand:
    """An operand whose bytes are in memory."""
    view = memoryview(data)
    at = 0

    def take(size: int) -> memoryview:
        nonlocal at
        at += size
        return view[at - size : at]

    return Operand(dtype, shape, digest, take)


def run(
    merge: Merge, options: Options, task: Task, backend: Backend | None = None, *, most_elements: int = RUN_ELEMENTS
) -> Iterator[bytes]:
    """The bytes of the merged value, in runs of `most_elements` at most where the strategy is elementwise.

    Raises ConflictError, without the parameter's name, where there is none. The error may come behind the first runs:
    nothing of them may then be used.
    """
    kind = KINDS[task.dtype]
    if kind not in merge.kinds:
        raise ConflictError(f"strategy '{merge.name}' does not merge values of dtype {task.dtype}; take a side")
    if merge.needs_base and task.base is None:
        raise ConflictError(f"strategy '{merge.name}' needs a common ancestor's value, and there is none; take a side")
    if len(task.sides) > merge.most_sides:
        raise ConflictError(f"strategy '{merge.name}' merges {merge.most_sides} sides, and there are {len(task.sides)}")
    _check_files(merge, task)
    wide = "F64" in {task.dtype, *(side.dtype for side in task.sides)}
    xp = backend if backend is not None and kind == FLOAT else numpy_backend()
    count = nbytes(task.dtype, task.shape) // DTYPES[task.dtype].word
    step = most_elements if merge.elementwise else max(1, count)
    for start in range(0, count, step):
        taking = min(step, count - start)
        shape = (taking,) if merge.elementwise else task.shape
        sides = [_read(side, taking, shape, wide=wide) for side in task.sides]
        base = _read(task.base, taking, shape, wide=wide) if task.base else None
        _check_finite(merge, sides, base)
        files = {name: _read_files(merge, found, taking, wide=wide) for name, found in task.files.items()}
        inputs = Inputs(
            task.name,
            tuple(map(xp.load, sides)),
            None if base is None else xp.load(base),
            tuple(side.digest for side in task.sides),
            {name: tuple(map(xp.load, found)) for name, found in files.items()},
            start,
        )
        made = encode(_compute(xp, merge, inputs, options), task.dtype)
        check_result(made, task.dtype, [*sides, *([base] if base is not None else [])])
        yield made


def _check_files(merge: Merge, task: Task) -> None:
    """Raise ConflictError for a further file's tensor that is no float, or does not have the parameter's shape."""
    for name, operands in task.files.items():
        for operand in operands:
            if KINDS.get(operand.dtype) != FLOAT or (merge.elementwise and operand.shape != task.shape):
                got = f"{operand.dtype} {list(operand.shape[:8])}"
                raise ConflictError(f"its '{name}' file has {got} for it; make the file again, or take a side")


def _read(operand: Operand, count: int, shape: tuple[int, ...], *, wide: bool) -> "Numbers":
    data = operand.take(count * DTYPES[operand.dtype].word)
    return decode(data, operand.dtype, wide=wide).reshape(shape)


def _read_files(merge: Merge, operands: Sequence[Operand], count: int, *, wide: bool) -> list["Numbers"]:
    """The tensors of a further file; whole ones are of any shape."""
    import numpy as np

    found = []
    for operand in operands:
        size = nbytes(operand.dtype, operand.shape) // DTYPES[operand.dtype].word
        whole = not merge.elementwise
        array = _read(operand, size if whole else count, operand.shape if whole else (count,), wide=wide)
        if not np.isfinite(array).all():
            raise ConflictError("a file has NaN or infinity for it; make the file again")
        found.append(array)
    return found


def _compute(xp: Backend, merge: Merge, inputs: Inputs, options: Options) -> "Numbers":
    import numpy as np

    with np.errstate(all="ignore"):
        made = xp.dump(merge.merge(xp, inputs, options))
    wanted = xp.dump(inputs.ours)
    if made.shape != wanted.shape or made.dtype != wanted.dtype:
        raise TypeError(f"strategy '{merge.name}' made {made.dtype} {made.shape} of {wanted.dtype} {wanted.shape}")
    return made


def _check_finite(merge: Merge, sides: Sequence["Numbers"], base: "Numbers | None") -> None:
    """Raise ConflictError for a NaN or an infinity that the strategy would make more of."""
    import numpy as np

    if not merge.finite:
        return
    names = ["ours", "theirs", *(f"side {index}" for index in range(3, len(sides) + 1))]
    given = [*zip(names, sides, strict=False), *([("the base", base)] if base is not None and merge.needs_base else [])]
    for name, array in given:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ConflictError(f"{name} has NaN or infinite values; take a side")


def check_result(made: bytes, dtype: str, inputs: Sequence["Numbers"]) -> None:
    """Raise ConflictError where finite inputs gave NaN, or a number that is too large for the dtype."""
    import numpy as np

    if KINDS[dtype] != FLOAT:
        return
    bad = ~np.isfinite(decode(made, dtype, wide=dtype == "F64"))
    if bad.any():
        for array in inputs:
            bad &= np.isfinite(array).reshape(-1)
        if bad.any():
            raise ConflictError(f"the merged value goes beyond what {dtype} can hold; take a side or another strategy")
