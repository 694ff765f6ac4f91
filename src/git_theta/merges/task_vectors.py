"""Strategies on task vectors, what each side added to the base: their sum, or how far along their mean to go.

Task arithmetic: Ilharco et al. 2022. Model Stock: Jang et al. 2024.
"""

import itertools
import math

from git_theta.merges.arrays import dot
from git_theta.merges.averages import blend
from git_theta.merges.base import Array, Inputs, Namespace, Option, Options, Strategy

__all__ = ["LAMBDA", "MODEL_STOCK", "SIDE_WEIGHTS", "TASK_ARITHMETIC"]

LAMBDA = Option("lambda", 1.0, "What the merged change is multiplied by.", least=-100, most=100)
SIDE_WEIGHTS = Option(
    "weights", (), "What each side's change is multiplied by, ours first.", least=-1_000_000, most=1_000_000
)


def _task_arithmetic(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """base + lambda * sum w_i t_i; an element that one side alone changed is that side's, where nothing scales it."""
    factors = [options.number("lambda") * weight for weight in options.weights(len(inputs.sides))]
    changes = inputs.changes
    total = xp.zeros_like(inputs.ours)
    for change, factor in zip(changes, factors, strict=True):
        total = total + change * factor
    made = inputs.base + total
    for index, (side, factor) in enumerate(zip(inputs.sides, factors, strict=True)):
        if factor == 1:
            others = [change == 0 for place, change in enumerate(changes) if place != index]
            alone = changes[index] != 0
            for other in others:
                alone = alone & other
            made = xp.where(alone, side, made)
    return made


def _model_stock(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """s * mean + (1 - s) * base, with s = N c / (1 + (N - 1) c) and c the mean cosine of pairs of changes.

    A change of no length has the cosine 0 with any other.
    """
    count = len(inputs.sides)
    changes = inputs.changes
    lengths = [math.sqrt(dot(xp, change, change)) for change in changes]
    cosines = [
        dot(xp, changes[one], changes[other]) / (lengths[one] * lengths[other])
        if lengths[one] * lengths[other]
        else 0.0
        for one, other in itertools.combinations(range(count), 2)
    ]
    cosine = max(0.0, math.fsum(cosines) / len(cosines))
    share = min(1.0, count * cosine / (1 + (count - 1) * cosine))
    mean = blend(xp, inputs.sides, (1 / count,) * count)
    return mean * share + inputs.base * (1 - share)


TASK_ARITHMETIC = Strategy(
    "task-arithmetic",
    "The base and the sum of what the sides added to it.",
    "https://arxiv.org/abs/2212.04089",
    _task_arithmetic,
    options=(SIDE_WEIGHTS, LAMBDA),
    needs_base=True,
    elementwise=True,
)
MODEL_STOCK = Strategy(
    "model-stock",
    "Between the base and the mean of the sides: the nearer to the mean, the more alike their changes are.",
    "https://arxiv.org/abs/2403.19522",
    _model_stock,
    needs_base=True,
)
