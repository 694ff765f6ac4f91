"""A merge stored as its recipe: the steps of both sides, and a last one that takes their mean.

Nothing of the merged value is encoded or stored, and whoever has both sides has it. A reader decodes both, so a recipe
is written only as long as that stays bounded: by the length of chains, and by what lies behind the first step.
"""

from collections.abc import Sequence
from dataclasses import replace

from git_theta.choice import MAX_CHAIN, MAX_HELD_BYTES
from git_theta.depot import Depot
from git_theta.manifest import Record, Step
from git_theta.updates.average import AVERAGE, payload_of
from git_theta.updates.floats import FLOATS
from git_theta.value import MAX_DECODED, decoded_values, held_bytes

__all__ = ["combined", "mean"]

_MAX_LATER = 2
"""What the steps behind the first one may take, as a multiple of it: each side's alone may take as much as it does."""


def combined(first: Record, second: Record) -> tuple[tuple[Step, ...], tuple[int, int]]:
    """The steps of two values of one dtype and shape, those that both have once, and the places of the two values."""
    steps = list(first.store)
    places: list[int] = []
    for step in second.store:
        moved = replace(step, bases=tuple(places[base] for base in step.bases))
        if moved not in steps:
            steps.append(moved)
        places.append(steps.index(moved))
    return tuple(steps), (len(first.store) - 1, places[-1])


def mean(sides: Sequence[Record], weights: Sequence[float], depot: Depot) -> tuple[Step, ...] | None:
    """The steps of the weighted mean of two values, after storing the weights; None where it is no recipe that pays."""
    kinds = {(side.dtype, side.shape) for side in sides}
    dtype, _ = kinds.pop()
    if len(sides) != 2 or kinds or dtype not in FLOATS or AVERAGE.name not in depot.settings.updates:
        return None
    steps, bases = combined(*sides)
    if len(steps) >= MAX_CHAIN or sum(step.size for step in steps[1:]) > _MAX_LATER * steps[0].size:
        return None
    last = Step(AVERAGE.name, (), bases)
    if depot.settings.compression == "none" or decoded_values((*steps, last)) > MAX_DECODED:
        return None
    if sum(held_bytes(side.store, depot.store) for side in sides) > MAX_HELD_BYTES:
        return None
    if payload := payload_of((weights[0], weights[1])):
        with depot.store.writer() as writer:
            writer.write(payload)
            last = replace(last, pieces=writer.finish())
    return (*steps, last)
