"""The parameters that an update is for, found by the names in the user's file."""

from collections.abc import Mapping, Sequence

import pytest

from git_theta.errors import InputError
from git_theta.manifest import Manifest, Piece, Record, Step
from git_theta.targets import Targets, by_plain_name
from git_theta.tensor import View

STORE = (Step("dense", (Piece("0" * 64, 24, 0, 24),)),)


def record(
    shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] | None = None, views: Sequence[View] = ()
) -> Record:
    return Record("F32", shape, 24, "0" * 64, STORE, strides, tuple(views))


def targets(*names: str, **records: Record) -> Targets:
    parameters: Mapping[str, Record] = {name: record() for name in names} | records
    return Targets(Manifest("torch", 0, "0" * 64, record(), parameters))


@pytest.mark.parametrize(
    ("names", "wanted", "found"),
    [
        (["a.w", "b.w"], ["a.w", "b.w"], ["a.w", "b.w"]),
        (["bert.a.w", "bert.b.w"], ["a.w", "b.w"], ["bert.a.w", "bert.b.w"]),
        (["model/a.w", "model/b.w", "ema/a.w"], ["a.w", "b.w"], ["model/a.w", "model/b.w"]),
        (["state/model.a.w"], ["a.w"], ["state/model.a.w"]),
        (["a.w", "b.w"], ["bert.a.w", "bert.b.w"], ["a.w", "b.w"]),
        (["a.w", "bert.a.w"], ["a.w"], ["a.w"]),
        (["a~1w"], ["a/w"], ["a/w"]),
    ],
)
def test_names_as_they_are_or_with_one_prefix(names: list[str], wanted: list[str], found: list[str]) -> None:
    renamed = targets(*names).renaming(wanted)
    assert [renamed(name) for name in wanted] == found


@pytest.mark.parametrize(
    ("names", "wanted", "said"),
    [
        (["a.w"], ["a.w", "b.w"], "'b.w' is no parameter of the base"),
        (["x.a.w", "x.b.w"], ["a.w", "b.w", "c.w"], "'c.w' is no parameter of the base"),
        (["x.a.w", "y.b.w"], ["a.w", "b.w"], "'[ab].w' is no parameter of the base"),
        (["xa.w"], ["a.w"], "'a.w' is no parameter of the base"),
        (["x.a.w", "y.a.w"], ["a.w"], r"'a.w' may be the parameter 'x\.a\.w' or 'y\.a\.w'"),
        (["~bytes0", "a~storage"], ["~bytes0"], "is no parameter"),
        ([], ["\n"], r"'\\n' is no parameter"),
    ],
)
def test_names_without_one_meaning_are_refused(names: list[str], wanted: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        targets(*names).renaming(wanted)


def test_tied_weight_is_its_record() -> None:
    found = targets(wte=record(views=[View("head", "F32", (2, 3))])).get("head")
    assert (found.name, found.shared) == ("wte", ("wte",))
    assert targets(wte=record(views=[View("head", "F32", (2, 3))])).get("wte").shared == ("head",)


def test_part_of_a_storage_is_refused() -> None:
    parts = targets(**{"all~storage": record((6,), views=[View("a", "F32", (3,)), View("b", "F32", (3,), 3)])})
    with pytest.raises(InputError, match="'a' is part of the storage 'all~storage'"):
        parts.get("a")


def test_name_that_two_tensors_have_is_refused() -> None:
    twice = targets("a~1b", "a/b")
    with pytest.raises(InputError, match="two tensors of the base have this name"):
        twice.get("a/b")
    with pytest.raises(InputError, match="differ in '/' and nesting only"):
        by_plain_name(["a~1b", "a/b"])


def test_order_of_elements() -> None:
    assert targets(a=record()).get("a").stored_shape == (2, 3)
    turned = targets(a=record((2, 3), (1, 2))).get("a")
    assert (turned.is_turned, turned.stored_shape) == (True, (3, 2))
    with pytest.raises(InputError, match="order"):
        _ = targets(a=record((2, 1, 3), (1, 2, 2))).get("a").stored_shape
