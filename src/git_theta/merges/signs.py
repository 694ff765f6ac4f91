"""Strategies that have the sides elect a sign for each element, and average those that agree with it.

TIES: Yadav et al. 2023. SCE: Wan et al. 2024 (FuseChat).
"""

import math
from collections.abc import Sequence

from git_theta.merges.arrays import dot, kth_smallest
from git_theta.merges.base import Array, Inputs, Namespace, Option, Options, Strategy
from git_theta.merges.task_vectors import LAMBDA

__all__ = ["SCE", "TIES", "VOTES", "agreed", "count_of", "trimmed"]

VOTES = Option(
    "weights",
    (),
    "What each side's change counts for, ours first; only their ratios count.",
    least=0,
    most=1_000_000,
    ratios=True,
)


def count_of(share: float, count: int) -> int:
    """That share of `count` elements, rounded up: of a few elements some are left."""
    return min(count, math.ceil(round(share * count, 6)))


def trimmed(xp: Namespace, change: Array, density: float) -> Array:
    """The change with only its largest elements left; those that are as large as the smallest of these are, too."""
    sizes = xp.abs(change)
    count = math.prod(sizes.shape)
    kept = count_of(density, count)
    if kept == count:
        return change
    return xp.where(sizes >= kth_smallest(xp, sizes, count - kept + 1), change, 0.0)


def agreed(xp: Namespace, changes: Sequence[Array], weights: Sequence[float]) -> Array:
    """For each element, the weighted mean of the changes with the sign of their weighted sum; 0 where that is 0."""
    votes = [change * weight for change, weight in zip(changes, weights, strict=True)]
    total = votes[0]
    for vote in votes[1:]:
        total = total + vote
    elected = xp.sign(total)
    above = below = xp.zeros_like(total)
    for vote, weight in zip(votes, weights, strict=True):
        agrees = vote * elected > 0
        above = above + xp.where(agrees, vote, 0.0)
        below = below + xp.where(agrees, xp.zeros_like(total) + weight, 0.0)
    return xp.where(below > 0, above / xp.where(below > 0, below, 1.0), 0.0)


def _ties(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    changes = [trimmed(xp, change, options.number("density")) for change in inputs.changes]
    return inputs.base + agreed(xp, changes, options.shares(len(changes))) * options.number("lambda")


def _sce(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """Select the elements that vary most between sides, calculate a weight of each side, erase minority signs."""
    changes = list(inputs.changes)
    count = len(changes)
    kept = count_of(options.number("select"), math.prod(inputs.ours.shape))
    if kept < math.prod(inputs.ours.shape):
        mean = sum(changes[1:], changes[0]) * (1 / count)
        squares = [(change - mean) * (change - mean) for change in changes]
        spread = sum(squares[1:], squares[0])
        least = kth_smallest(xp, spread, math.prod(inputs.ours.shape) - kept + 1)
        changes = [xp.where(spread >= least, change, 0.0) for change in changes]
    powers = [dot(xp, change, change) for change in changes]
    total = math.fsum(powers)
    weights = [power / total if total else 1 / count for power in powers]
    elected = sum(changes[1:], changes[0])
    agreeing = [xp.where(change * xp.sign(elected) > 0, change, 0.0) for change in changes]
    above = below = xp.zeros_like(elected)
    for change, weight in zip(agreeing, weights, strict=True):
        above = above + change * weight
        below = below + xp.where(change != 0, xp.zeros_like(elected) + weight, 0.0)
    return inputs.base + xp.where(below > 0, above / xp.where(below > 0, below, 1.0), 0.0)


TIES = Strategy(
    "ties",
    "The largest of each side's changes; of these, the mean of those that agree on a sign.",
    "https://arxiv.org/abs/2306.01708",
    _ties,
    options=(
        Option("density", 0.2, "The share of each side's changes that is kept.", above=0, most=1),
        VOTES,
        LAMBDA,
    ),
    needs_base=True,
)
SCE = Strategy(
    "sce",
    "The mean of the changes that agree on a sign, each side weighted by the square of its change.",
    "https://arxiv.org/abs/2408.07990",
    _sce,
    options=(
        Option("select", 1.0, "The share of elements, those that vary most, that is merged at all.", above=0, most=1),
    ),
    needs_base=True,
)
