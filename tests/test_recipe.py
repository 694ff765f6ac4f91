"""Recipes: the steps of two values put together, and when the mean of both is stored so."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from git_theta import recipe
from git_theta.config import Settings
from git_theta.depot import Depot
from git_theta.manifest import Piece, Record, Step
from tests.checkpoints import opened

EVEN = (0.5, 0.5)


@pytest.fixture
def depot(tmp_path: Path) -> Iterator[Depot]:
    with opened(tmp_path, Settings(threads=1)) as depot:
        yield depot


def step(update: str, number: int, *bases: int, size: int = 100) -> Step:
    """A step whose object is told apart by a number."""
    return Step(update, (Piece(f"{number:064x}", size, 0, size),), bases)


def value(*steps: Step, dtype: str = "F32") -> Record:
    return Record(dtype, (50,), 200, "0" * 64, steps)


BASE = step("dense", 0)
OURS = value(BASE, step("delta", 1, 0))
THEIRS = value(BASE, step("sparse", 2, 0))


def test_steps_that_both_have_stand_once() -> None:
    assert recipe.combined(OURS, THEIRS) == ((BASE, step("delta", 1, 0), step("sparse", 2, 0)), (1, 2))
    assert recipe.combined(OURS, OURS) == (OURS.store, (1, 1))
    assert recipe.combined(OURS, value(BASE)) == (OURS.store, (1, 0))
    assert recipe.combined(value(BASE), OURS) == (OURS.store, (0, 1))


def test_the_same_object_on_another_base_is_another_step() -> None:
    other = value(step("dense", 7), step("delta", 1, 0))
    assert recipe.combined(OURS, other) == (
        (BASE, step("delta", 1, 0), step("dense", 7), step("delta", 1, 2)),
        (1, 3),
    )


def test_recipes_are_put_together_as_graphs() -> None:
    steps, places = recipe.combined(OURS, THEIRS)
    mean = value(*steps, Step("average", (), places))
    ours, theirs = (value(*mean.store, step("delta", number, 3)) for number in (8, 9))
    made, ends = recipe.combined(ours, theirs)
    assert [(one.update, one.bases) for one in made] == [
        ("dense", ()),
        ("delta", (0,)),
        ("sparse", (0,)),
        ("average", (1, 2)),
        ("delta", (3,)),
        ("delta", (3,)),
    ]
    assert ends == (4, 5)


def test_a_mean_takes_no_object_or_one_for_its_weights(depot: Depot) -> None:
    steps = recipe.mean([OURS, THEIRS], EVEN, depot)
    assert steps is not None
    assert steps[-1] == Step("average", (), (1, 2))
    uneven = [recipe.mean(sides, (0.25, 0.75), depot) for sides in ([OURS, THEIRS], [THEIRS, OURS])]
    pieces = [one[-1].pieces for one in uneven if one]
    assert pieces[0] == pieces[1]  # one object, however many values have these weights
    assert [piece.size for piece in pieces[0]] == [16]


@pytest.mark.parametrize(
    "sides",
    [
        [OURS],
        [OURS, THEIRS, THEIRS],
        [OURS, replace(THEIRS, shape=(25, 2))],
        [OURS, replace(THEIRS, dtype="BF16")],
        [replace(OURS, dtype="I32"), replace(THEIRS, dtype="I32")],
        [OURS, value(BASE, *(step("delta", 10 + index, index) for index in range(6)))],
        [OURS, value(BASE, step("delta", 5, 0, size=101))],
    ],
    ids=["one", "three", "shapes", "dtypes", "integers", "chain", "bytes"],
)
def test_what_has_no_recipe(depot: Depot, sides: list[Record]) -> None:
    assert recipe.mean(sides, (1 / len(sides),) * len(sides), depot) is None


def test_the_bounds_are_inclusive(depot: Depot) -> None:
    longest = value(BASE, *(step("delta", 10 + index, index, size=20) for index in range(5)))
    assert len(recipe.mean([OURS, longest], EVEN, depot) or ()) == 8
    assert recipe.mean([OURS, value(BASE, step("delta", 5, 0))], EVEN, depot) is not None


def test_a_recipe_whose_reader_would_hold_too_much_is_none(depot: Depot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sides with a low-rank step each, of rank 16 and 64 columns in F32."""
    sides = []
    for number in (1, 2):
        with depot.store.writer() as writer:
            writer.write(struct.pack("<BBBBIQdQQ", 2, 2, 2, 255, 16, 64, float(number), 100, 100))
            sides.append(
                value(replace(BASE, pieces=(Piece("0" * 64, 1000, 0, 1000),)), Step("low-rank", writer.finish(), (0,)))
            )
    assert recipe.mean(sides, EVEN, depot) is not None
    monkeypatch.setattr(recipe, "MAX_HELD_BYTES", 2 * 16 * 64 * 12 - 1)
    assert recipe.mean(sides, EVEN, depot) is None


@pytest.mark.parametrize(
    "settings", [Settings(updates=("delta", "sparse")), Settings(compression="none"), Settings(updates=("dense",))]
)
def test_the_settings_may_want_none(tmp_path: Path, settings: Settings) -> None:
    with opened(tmp_path, settings) as depot:
        assert recipe.mean([OURS, THEIRS], EVEN, depot) is None
