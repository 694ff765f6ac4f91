"""Strategies that take values as they are: one side's, the base's, or the larger of them."""

from git_theta.merges.base import BOOLEAN, FLOAT, INTEGER, Array, Inputs, Namespace, Options, Strategy

__all__ = ["BASE", "MAX", "OURS", "THEIRS"]

_ALL = frozenset({FLOAT, INTEGER, BOOLEAN})


def _max(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    made = inputs.ours
    for side in inputs.sides[1:]:
        made = xp.maximum(made, side)
    return made


OURS = Strategy(
    "ours",
    "Our value, bit for bit.",
    "",
    lambda xp, inputs, options: inputs.ours,
    kinds=_ALL,
    elementwise=True,
    finite=False,
)
THEIRS = Strategy(
    "theirs",
    "Their value, bit for bit.",
    "",
    lambda xp, inputs, options: inputs.theirs,
    kinds=_ALL,
    most_sides=2,
    elementwise=True,
    finite=False,
)
BASE = Strategy(
    "base",
    "The common ancestor's value, bit for bit: both changes are dropped.",
    "",
    lambda xp, inputs, options: inputs.base,
    kinds=_ALL,
    needs_base=True,
    elementwise=True,
    finite=False,
)
MAX = Strategy(
    "max", "The larger of each element: for counters, such as batches seen.", "", _max, kinds=_ALL, elementwise=True
)
