"""Folding names: exact, in natural order, and reversible."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.folding import fold, natural_order


def names(rows: list[str]) -> list[str]:
    return [item.name for item in fold(rows)]


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        ([], []),
        (["weight"], ["weight"]),
        (["a.0.w"], ["a.0.w"]),
        (["a.0.w", "a.1.w", "a.10.w", "a.2.w"], ["a.{0-2,10}.w"]),
        ([f"layers.{i}.w" for i in range(32)], ["layers.{0-31}.w"]),
        ([f"l.{i}.e.{j}" for i, j in product(range(3), range(1, 9))], ["l.{0-2}.e.{1-8}"]),
        (["l.0.e.0", "l.0.e.1", "l.1.e.0"], ["l.0.e.{0-1}", "l.1.e.0"]),
        ([f"block{i}.conv{i}" for i in range(3)], ["block{0-2}.conv{0-2}"]),
        (["a.0.w", "a.1.w", "b.w"], ["a.{0-1}.w", "b.w"]),
        (["p-00001", "p-00002", "p-00003"], ["p-{00001-00003}"]),
        (["x1", "x01", "x001"], ["x{001,01,1}"]),
        ([f"s.{2 * i}" for i in range(20)], ["s.{0,2,4,6,8,...,38}"]),
        (["hash.12345678901234567890", "hash.12345678901234567891"],) * 2,
        (["{0-1}.0", "{0-1}.1"], ["{0-1}.{0-1}"]),
        (["0", "1"], ["{0-1}"]),
    ],
)
def test_folds(given_names: list[str], expected: list[str]) -> None:
    assert names(given_names) == expected


def test_only_names_of_one_kind_share_a_fold() -> None:
    kinds = {"fc.0": "a", "fc.1": "b", "fc.2": "a"}
    found = fold(kinds, kinds.__getitem__)
    assert [(item.name, item.members) for item in found] == [("fc.{0,2}", ("fc.0", "fc.2")), ("fc.1", ("fc.1",))]


def test_natural_order() -> None:
    rows = ["b", "a.10", "a.9.z", "a.9", "a", "a.x"]
    assert sorted(rows, key=natural_order) == ["a", "a.9", "a.9.z", "a.10", "a.x", "b"]


@given(st.sets(st.from_regex(r"[a-b]?\.?[0-9]{0,2}\.?[a-b]?[0-9]{0,2}", fullmatch=True), max_size=40))
def test_every_name_is_in_exactly_one_fold(given_names: set[str]) -> None:
    found = fold(given_names)
    assert sorted(name for item in found for name in item.members) == sorted(given_names)
    assert len({item.name for item in found}) == len(found)


@given(st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_a_fold_stands_for_exactly_its_members(pairs: set[tuple[int, int]]) -> None:
    found = fold({f"{first}.{second}" for first, second in pairs})
    for item in found:
        sets = [expand(text) for text in item.name.split(".")]
        possible = {f"{first}.{second}" for first, second in product(*sets)}
        linked = {f"{first}.{second}" for first, second in zip(*map(sorted, sets), strict=False)}
        assert set(item.members) in (possible, linked)


def expand(text: str) -> set[str]:
    spans = [re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part) for part in text.strip("{}").split(",")]
    return {str(n) for span in spans if span for n in range(int(span[1]), int(span[2] or span[1]) + 1)}
