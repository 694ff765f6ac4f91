"""The `magmax` merge strategy: of each element, the change that goes furthest from the base.

Marczak et al., "MagMax: Leveraging Model Merging for Seamless Continual Learning", arXiv:2407.06322: with t_i what side
i added to the base, the result is base + lambda * t_k, where k is the side whose abs(t_k) is largest.

Said otherwise, it is the highest or the lowest of the sides, whichever is further from the base. So it does not depend
on the order of the sides, and a side's element is taken as it is, not as base + (side - base), which is another number
in floats. The paper says nothing of changes that are equally large and opposite: here the base stays, as in their mean.
"""

from collections.abc import Sequence

from git_theta.merges.base import Array, Inputs, Namespace, Option, Options, Strategy

__all__ = ["MAGMAX"]


def _magmax(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    highest = _highest(xp, inputs.sides)
    lowest = -_highest(xp, [-side for side in inputs.sides])
    up, down = highest - inputs.base, inputs.base - lowest
    furthest = xp.where(up > down, highest, xp.where(down > up, lowest, inputs.base))
    scale = options.number("lambda")
    return furthest if scale == 1 else inputs.base + (furthest - inputs.base) * scale


def _highest(xp: Namespace, arrays: Sequence[Array]) -> Array:
    """The highest of each element; of zeros their sum, which does not depend on the order, as a maximum may."""
    made = arrays[0]
    for array in arrays[1:]:
        zeros = (made == 0) & (array == 0)
        made = xp.where(zeros, made + array, xp.maximum(made, array))
    return made


MAGMAX = Strategy(
    "magmax",
    "Of each element, the change that goes furthest from the base.",
    "https://arxiv.org/abs/2407.06322",
    _magmax,
    options=(Option("lambda", 1.0, "What the change is multiplied by.", least=-100, most=100),),
    needs_base=True,
    elementwise=True,
)
