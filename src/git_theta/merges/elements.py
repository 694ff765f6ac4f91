"""Strategies that look at each element by itself: who changed it, or how far the sides are apart."""

from git_theta.errors import ConflictError
from git_theta.merges.averages import AVERAGE
from git_theta.merges.base import (
    BOOLEAN,
    FLOAT,
    INTEGER,
    Array,
    Inputs,
    Merge,
    Namespace,
    Option,
    Options,
    Strategy,
    read_options,
)
from git_theta.merges.copies import BASE, MAX, OURS, THEIRS
from git_theta.merges.task_vectors import TASK_ARITHMETIC

__all__ = ["CONFLICT", "NEARSWAP", "THREE_WAY"]

CONFLICT = "conflict"


def _three_way(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """What sides made of each element that they changed, if they made the same of it; else the inner strategy's value.

    Integers and booleans that sides changed to different values are a conflict unless the inner strategy takes them.
    """
    made = inputs.ours
    taken = ~_same(xp, made, inputs.base)
    clashing = taken & ~taken
    for side in inputs.sides[1:]:
        changed = ~_same(xp, side, inputs.base)
        clashing = clashing | (changed & taken & ~_same(xp, side, made))
        made = xp.where(changed & ~taken, side, made)
        taken = taken | changed
    if not bool(xp.any(clashing)):
        return made
    inner = _INNER.get(options.text("inner"))
    whole = inputs.ours.dtype not in (xp.float32, xp.float64)
    if inner is None or (whole and not inner.kinds & {INTEGER, BOOLEAN}):
        raise ConflictError("both sides changed the same elements to different values; take a side")
    if not whole and inner.finite and any(bool(xp.any(clashing & ~xp.isfinite(side))) for side in inputs.sides):
        raise ConflictError("a side has NaN or infinity where both changed it; take a side")
    return xp.where(clashing, inner.merge(xp, inputs, read_options(inner, {})), made)


def _same(xp: Namespace, left: Array, right: Array) -> Array:
    """Whether elements are the same: zeros of different signs are not, NaNs are."""
    if left.dtype not in (xp.float32, xp.float64):
        return left == right
    return ((left == right) & (xp.signbit(left) == xp.signbit(right))) | (xp.isnan(left) & xp.isnan(right))


def _nearswap(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """ours + clamp(t / abs(d), 0, 1) * d, with d = theirs - ours: theirs where d is at most t, else a step of t."""
    gap = inputs.theirs - inputs.ours
    t = options.number("t")
    return xp.where(xp.abs(gap) <= t, inputs.theirs, inputs.ours + xp.sign(gap) * t)


_INNER: dict[str, Merge] = {inner.name: inner for inner in (AVERAGE, TASK_ARITHMETIC, OURS, THEIRS, BASE, MAX)}

THREE_WAY = Strategy(
    "three-way",
    "Each element by itself, as Git merges lines: what one side changed is taken, and what both did is merged.",
    "",
    _three_way,
    options=(
        Option(
            "inner",
            "average",
            "What becomes of elements that both sides changed.",
            choices=(*_INNER, CONFLICT),
        ),
    ),
    kinds=frozenset({FLOAT, INTEGER, BOOLEAN}),
    needs_base=True,
    elementwise=True,
    finite=False,
)
NEARSWAP = Strategy(
    "nearswap",
    "Ours, moved toward theirs by at most t: elements that are alike become theirs.",
    "https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    _nearswap,
    options=(Option("t", 0.001, "How far an element may move.", above=0, most=1_000_000),),
    most_sides=2,
    elementwise=True,
)
