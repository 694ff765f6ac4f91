"""Interpolation along the arc between two sides instead of the straight line.

Shoemake, Animating rotation with quaternion curves, 1985, on the whole value as one vector.
"""

import math

from git_theta.merges.arrays import dot
from git_theta.merges.averages import WEIGHTS, blend
from git_theta.merges.base import Array, Inputs, Namespace, Option, Options, Strategy

__all__ = ["NUSLERP", "SLERP"]

_PARALLEL = 0.9995


def _slerp(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    return _arc(xp, inputs.ours, inputs.theirs, options.number("t"))


def _nuslerp(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    _, t = options.shares(2)
    if inputs.base is None:
        return _arc(xp, inputs.ours, inputs.theirs, t)
    ours, theirs = inputs.changes
    return inputs.base + _arc(xp, ours, theirs, t)


def _arc(xp: Namespace, ours: Array, theirs: Array, t: float) -> Array:
    """sin((1 - t) a) / sin a * ours + sin(t a) / sin a * theirs, a being the angle between the two.

    The straight line where they are nearly parallel or opposite, or one of them has no length.
    """
    length = math.sqrt(dot(xp, ours, ours)) * math.sqrt(dot(xp, theirs, theirs))
    cosine = dot(xp, ours, theirs) / length if length else 1.0
    if not abs(cosine) <= _PARALLEL:
        return blend(xp, (ours, theirs), (1 - t, t))
    angle = math.acos(cosine)
    return ours * (math.sin((1 - t) * angle) / math.sin(angle)) + theirs * (math.sin(t * angle) / math.sin(angle))


_SHOEMAKE = "https://dl.acm.org/doi/10.1145/325165.325242"
SLERP = Strategy(
    "slerp",
    "From ours to theirs along the arc between them.",
    _SHOEMAKE,
    _slerp,
    options=(Option("t", 0.5, "How far to go: 0 is ours, 1 is theirs.", least=0, most=1),),
    most_sides=2,
)
NUSLERP = Strategy(
    "nuslerp",
    "The same by weights, along the arc between the changes where there is a base.",
    _SHOEMAKE,
    _nuslerp,
    options=(WEIGHTS,),
    uses_base=True,
    most_sides=2,
)
