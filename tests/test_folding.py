"""Folding names: exact, in natural order, and reversible."""

import re
import time
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.folding import fold, frame, natural_order


def names(rows: list[str], *, siblings: bool = False) -> list[str]:
    return [item.name for item in fold(rows, siblings=siblings)]


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
        (
            [f"l.{i}.e.{j}" for i in range(32) for j in range(8 if i < 31 else 4)],
            ["l.{0-30}.e.{0-7}", "l.31.e.{0-3}"],
        ),
        (
            [f"l.{i}.e.{j}" for i in range(6) for j in range(9) if j != i % 2],
            ["l.{0,2,4}.e.{1-8}", "l.{1,3,5}.e.{0,2-8}"],
        ),
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


@pytest.mark.parametrize(
    ("given_names", "expected"),
    [
        ([], []),
        (
            [f"layers.{i}.self_attn.{w}_proj.weight" for i in range(32) for w in "qv"],
            ["layers.{0-31}.self_attn.{q,v}_proj.weight"],
        ),
        (["norm.weight", "norm.bias"], ["norm.{bias,weight}"]),
        (["h.0.q.weight", "h.0.q.bias", "h.0.k.weight", "h.0.k.bias"], ["h.0.{k,q}.{bias,weight}"]),
        (["h.0.q.weight", "h.0.q.bias", "h.0.k.weight"], ["h.0.{k,q}.weight", "h.0.q.bias"]),
        (["h.0.q", "h.1.q", "h.0.k"], ["h.{0-1}.q", "h.0.k"]),  # k is not in every layer that has q
        (["a.0.q", "a.1.q", "a.0.k", "a.1.k", "a.0.v"], ["a.{0-1}.{k,q}", "a.0.v"]),
        (["x.a.b", "x.c.d"], ["x.a.b", "x.c.d"]),  # two words differ
        (["a.b", "a/b", "a_b"], ["a.b", "a/b", "a_b"]),  # separators are no words
        ([f"w.{word}" for word in "abcdefgh"], ["w.{a,b,c,d,e,...,h}"]),
        (["", "a"], ["", "a"]),
    ],
)
def test_siblings(given_names: list[str], expected: list[str]) -> None:
    assert sorted(names(given_names, siblings=True)) == sorted(expected)


def test_siblings_of_one_kind_only() -> None:
    found = fold(["a.k", "a.q", "a.v"], lambda name: name == "a.v", siblings=True)
    assert [item.name for item in found] == ["a.{k,q}", "a.v"]


def test_members_of_siblings_are_in_natural_order() -> None:
    [item] = fold([f"l.{i}.{w}" for w in "ba" for i in (10, 9)], siblings=True)
    assert item.members == ("l.9.a", "l.9.b", "l.10.a", "l.10.b")


@given(st.sets(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.sampled_from("de")), min_size=1))
def test_a_fold_of_siblings_stands_for_exactly_its_members(rows: set[tuple[int, str, str]]) -> None:
    given_names = {f"{number}.{first}.{second}" for number, first, second in rows}
    found = fold(given_names, siblings=True)
    assert sorted(name for item in found for name in item.members) == sorted(given_names)
    for item in found:
        number, first, second = item.name.split(".")
        words = [text.strip("{}").split(",") for text in (first, second)]
        assert set(item.members) == {f"{n}.{a}.{b}" for n, a, b in product(sorted(expand(number)), *words)}


def test_names_made_up_to_take_long_are_left_alone() -> None:
    long = ["." * 2100 + "a" * number + ".b" * 2 for number in range(4)]
    slow = [".".join(f"{word}x" for word in text) for text in ("a" * 2040, "b" + "a" * 2039)]
    assert names(slow, siblings=True) == slow
    assert names(long, siblings=True) != long


def test_frames() -> None:
    assert frame("layers.3.w") == frame("layers.12.w") != frame("layers.w")


def test_natural_order() -> None:
    rows = ["b", "a.10", "a.9.z", "a.9", "a", "a.x"]
    assert sorted(rows, key=natural_order) == ["a", "a.9", "a.9.z", "a.10", "a.x", "b"]


@given(st.sets(st.from_regex(r"[a-b]?\.?[0-9]{0,2}\.?[a-b]?[0-9]{0,2}", fullmatch=True), max_size=40))
def test_every_name_is_in_exactly_one_fold(given_names: set[str]) -> None:
    found = fold(given_names)
    assert sorted(name for item in found for name in item.members) == sorted(given_names)
    assert len({item.name for item in found}) == len(found)


def test_many_names_of_no_order_are_folded_in_time() -> None:
    numbers = [(seed * 7919) % 10_007 for seed in range(60_000)]
    made = {f"a{x % 61}.b{x % 53 * y % 47}.c{y % 59}.d{x * y % 31}" for x, y in pairwise(numbers)}
    started = time.process_time()
    found = fold(made)
    assert time.process_time() - started < 30
    assert sorted(name for item in found for name in item.members) == sorted(made)


def test_names_made_up_of_many_numbers_are_left_alone() -> None:
    """Each differs from every other one in two places of a thousand, and so every cut parts one from the rest."""
    made = [".".join("1" if place == number else "0" for place in range(1000)) for number in range(800)]
    started = time.process_time()
    assert sorted(name for item in fold(made) for name in item.members) == sorted(made)
    assert time.process_time() - started < 30


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
