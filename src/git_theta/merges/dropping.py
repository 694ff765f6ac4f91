"""Strategies that drop a part of each side's change before they merge the rest.

DARE: Yu et al. 2023. DELLA: Deep et al. 2024. Model Breadcrumbs: Davari and Belilovsky 2023.
"""

import math

from git_theta.errors import ConfigError
from git_theta.merges.arrays import kth_smallest
from git_theta.merges.base import Array, Inputs, Namespace, Option, Options, Strategy
from git_theta.merges.masks import SEED, threshold, uniform
from git_theta.merges.signs import VOTES, agreed, count_of
from git_theta.merges.task_vectors import LAMBDA, SIDE_WEIGHTS

__all__ = ["BREADCRUMBS", "DARE_LINEAR", "DARE_TIES", "DELLA"]

_DENSITY = Option("density", 0.5, "The share of each side's changes that is kept.", above=0, most=1)


def _sum(xp: Namespace, inputs: Inputs, changes: list[Array], options: Options) -> Array:
    total = xp.zeros_like(inputs.ours)
    for change, weight in zip(changes, options.weights(len(changes)), strict=True):
        total = total + change * (weight * options.number("lambda"))
    return inputs.base + total


def _election(xp: Namespace, inputs: Inputs, changes: list[Array], options: Options) -> Array:
    return inputs.base + agreed(xp, changes, options.shares(len(changes))) * options.number("lambda")


def _dropped(xp: Namespace, inputs: Inputs, options: Options) -> list[Array]:
    """Each change with a random share of its elements left, divided by that share."""
    density = options.number("density")
    return [
        xp.where(uniform(xp, inputs, index, options) < threshold(density), change, 0.0) * (1 / density)
        for index, change in enumerate(inputs.changes)
    ]


def _dare_linear(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    return _sum(xp, inputs, _dropped(xp, inputs, options), options)


def _dare_ties(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    return _election(xp, inputs, _dropped(xp, inputs, options), options)


def _della(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """Each change with elements left by chance, the more likely the larger they are in their row."""
    density, eps = options.number("density"), options.number("eps")
    kept = []
    for index, change in enumerate(inputs.changes):
        chances = _ranks(xp, change) * (2 * eps) + (density - eps)
        kept.append(xp.where(uniform(xp, inputs, index, options) < chances, change / chances, 0.0))
    return _election(xp, inputs, kept, options)


def _ranks(xp: Namespace, change: Array) -> Array:
    """Where each element stands in its row by size, from 0 to 1; 0.5 in a row of one. A vector is one row."""
    shape = tuple(change.shape)
    width = math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)
    if width < 2:
        return xp.zeros_like(change) + 0.5
    rows = xp.reshape(xp.abs(change), (-1, width))
    places = xp.argsort(xp.argsort(rows))
    return xp.reshape(xp.astype(places, change.dtype) * (1 / (width - 1)), shape)


def _check_della(options: Options) -> None:
    density, eps = options.number("density"), options.number("eps")
    if not (density - eps > 0 and density + eps <= 1):
        raise ConfigError(
            f"density {density:g} and eps {eps:g}: density - eps must be above 0, density + eps at most 1"
        )


def _breadcrumbs(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    """Each change without its largest elements, and without all but a share of the others."""
    density, gamma = options.number("density"), options.number("gamma")
    changes = []
    for change in inputs.changes:
        sizes = xp.abs(change)
        count = math.prod(sizes.shape)
        top = min(math.floor(round(gamma * count, 6)), count - 1)
        kept = min(count_of(density, count), count - top)
        most = kth_smallest(xp, sizes, count - top)
        least = kth_smallest(xp, sizes, count - top - kept + 1)
        changes.append(xp.where((sizes >= least) & (sizes <= most), change, 0.0))
    return _sum(xp, inputs, changes, options)


def _check_breadcrumbs(options: Options) -> None:
    density, gamma = options.number("density"), options.number("gamma")
    if density + gamma > 1:
        raise ConfigError(f"density {density:g} and gamma {gamma:g} add up to more than 1")


_DARE = "https://arxiv.org/abs/2311.03099"
DARE_LINEAR = Strategy(
    "dare-linear",
    "The sum of the changes, of which a random share is kept and scaled up.",
    _DARE,
    _dare_linear,
    options=(_DENSITY, SIDE_WEIGHTS, LAMBDA, SEED),
    needs_base=True,
    elementwise=True,
)
DARE_TIES = Strategy(
    "dare-ties",
    "The same, and of these the mean of those that agree on a sign.",
    _DARE,
    _dare_ties,
    options=(_DENSITY, VOTES, LAMBDA, SEED),
    needs_base=True,
    elementwise=True,
)
DELLA = Strategy(
    "della",
    "Like dare-ties, with large changes more likely to be kept than small ones.",
    "https://arxiv.org/abs/2406.11617",
    _della,
    options=(
        _DENSITY,
        Option(
            "eps", 0.15, "How much likelier the largest, and less likely the smallest, change is kept.", least=0, most=1
        ),
        VOTES,
        LAMBDA,
        SEED,
    ),
    needs_base=True,
    checking=_check_della,
)
BREADCRUMBS = Strategy(
    "breadcrumbs",
    "The sum of the changes, without the very largest and the many small ones.",
    "https://arxiv.org/abs/2312.06795",
    _breadcrumbs,
    options=(
        Option("density", 0.1, "The share of each side's changes that is kept.", above=0, most=1),
        Option("gamma", 0.01, "The share of the largest changes that is dropped.", least=0, most=1),
        SIDE_WEIGHTS,
        LAMBDA,
    ),
    needs_base=True,
    checking=_check_breadcrumbs,
)
