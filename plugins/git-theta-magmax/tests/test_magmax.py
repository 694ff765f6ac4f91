"""`magmax`: the kit that every strategy passes, and values worked out by hand."""

import struct
from collections.abc import Sequence
from types import MappingProxyType

import pytest

from git_theta.merges.base import read_options
from git_theta.merges.running import Task, held, run
from git_theta.testing import MergeTests
from git_theta_magmax import MAGMAX


class TestMagMax(MergeTests):
    merge = MAGMAX
    one_sided = True
    symmetric = True


class TestScaledMagMax(MergeTests):
    merge = MAGMAX
    options = MappingProxyType({"lambda": 0.5})
    symmetric = True


def merged(base: Sequence[float], *sides: Sequence[float], scale: float = 1) -> bytes:
    base_value, *side_values = [held("F32", (len(row),), "", floats(row)) for row in (base, *sides)]
    task = Task("layer", "F32", (len(base),), tuple(side_values), base_value)
    return b"".join(run(MAGMAX, read_options(MAGMAX, {"lambda": scale}), task))


def floats(row: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(row)}f", *row)


BASE = [1.0, 1.0, 1.0, 1.0, -2.0, 0.0]
OURS = [4.0, 0.5, 1.0, 3.0, -5.0, 1.0]  # changes  3   -0.5   0    2   -3   1
THEIRS = [2.0, -1.0, 0.0, 2.0, 0.0, -1.0]  # changes  1   -2    -1    1    2  -1


def test_known_values() -> None:
    assert merged(BASE, OURS, THEIRS) == floats([4.0, -1.0, 0.0, 3.0, -5.0, 0.0])


def test_known_values_of_three_sides() -> None:
    further = [-3.0, 1.0, 2.0, 3.5, -2.0, 2.0]  # changes  -4   0    1    2.5   0   2
    assert merged(BASE, OURS, THEIRS, further) == floats([-3.0, -1.0, 1.0, 3.5, -5.0, 2.0])


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        pytest.param(0.5, [2.5, 0.0, 0.5, 2.0, -3.5, 0.0], id="half as far"),
        pytest.param(-1, [-2.0, 3.0, 2.0, -1.0, 1.0, 0.0], id="the other way"),
        pytest.param(0, BASE, id="the base"),
    ],
)
def test_known_values_with_lambda(scale: float, expected: Sequence[float]) -> None:
    assert merged(BASE, OURS, THEIRS, scale=scale) == floats(expected)


def test_a_side_is_taken_bit_for_bit_where_its_change_rounds() -> None:
    """1 - 2**-24 - 2**25 has no float of its own, so adding the change to the base would not give the side back."""
    base, side = 2.0**25, 1 - 2.0**-24
    assert merged([base], [side], [base]) == floats([side])


@pytest.mark.parametrize(
    ("base", "sides", "expected"),
    [
        pytest.param(1.0, (-0.0, 0.0), -0.0, id="lowered to both"),
        pytest.param(-1.0, (-0.0, 0.0), 0.0, id="raised to both"),
        pytest.param(1.0, (0.0, 0.0), 0.0, id="lowered to one"),
        pytest.param(-1.0, (-0.0, -0.0), -0.0, id="raised to one"),
    ],
)
def test_the_sign_of_zero_does_not_depend_on_the_order(
    base: float, sides: tuple[float, float], expected: float
) -> None:
    # Lengths on both sides of a vector register: libraries take other instructions for the rest.
    for count in (1, 37):
        rows = [[side] * count for side in sides]
        for given in (rows, rows[::-1]):
            assert merged([base] * count, *given) == floats([expected] * count)
