"""What changed between two versions, on manifests alone."""

from dataclasses import replace

import pytest

from git_theta.changes import Change, Kind, compare, rows
from git_theta.manifest import Manifest, Piece, Step
from git_theta.tensor import View
from tests.manifests import manifest, record

OLD = manifest(w=1, k=0)


def kinds(before: Manifest | None, after: Manifest | None) -> list[tuple[str, Kind]]:
    return [(item.name, item.kind) for item in compare(before, after).items]


def only(before: Manifest, after: Manifest) -> Change:
    [item] = compare(before, after).items
    return item


def test_nothing_changed() -> None:
    made = compare(OLD, OLD)
    assert (made.items, made.unchanged, made.is_layout_new, made.added_bytes) == ((), 2, False, 0)


def test_added_removed_and_changed() -> None:
    made = compare(OLD, manifest(w=2, new=3))
    assert [(item.name, item.kind) for item in made.items] == [
        ("k", Kind.REMOVED),
        ("new", Kind.ADDED),
        ("w", Kind.CHANGED),
    ]
    assert made.unchanged == 0
    assert made.is_layout_new, "the file has other names in it"
    assert [item.name for item in made.of(Kind.ADDED)] == ["new"]
    assert compare(OLD, manifest(w=2, k=0)).unchanged == 1


def test_a_checkpoint_that_is_new_or_gone() -> None:
    assert kinds(None, OLD) == [("k", Kind.ADDED), ("w", Kind.ADDED)]
    assert kinds(OLD, None) == [("k", Kind.REMOVED), ("w", Kind.REMOVED)]
    made = compare(None, OLD)
    assert made.added_bytes == sum(step.size for row in OLD.records() for step in row.store)
    assert compare(OLD, None).added_bytes == 0
    assert compare(None, None).items == ()


def test_names_are_in_natural_order() -> None:
    new = manifest(**{f"layers.{number}": number for number in range(12)})
    assert [name for name, _ in kinds(manifest(), new)] == [f"layers.{number}" for number in range(12)]


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (record(1), record(1, "BF16"), Kind.CONVERTED),
        (record(1), record(2, "BF16", (9, 9)), Kind.CONVERTED),
        (record(1), record(2, shape=(4, 3)), Kind.RESIZED),
        (record(1, shape=(6,)), record(2, shape=(7,)), Kind.RESIZED),
        (record(1), record(1, shape=(3, 2)), Kind.RESHAPED),
        (record(1), record(1, shape=(6,)), Kind.RESHAPED),
        (record(1, shape=()), record(1, shape=(1,)), Kind.RESHAPED),
        (record(1), record(2, strides=(1, 2)), Kind.REORDERED),
        (record(1), record(2), Kind.CHANGED),
        (record(1), record(1, views={"w.half": View("w.half", "F32", (1, 3))}), Kind.VIEWS),
    ],
)
def test_what_happened_to_a_value(old: object, new: object, kind: Kind) -> None:
    assert kinds(manifest(w=old), manifest(w=new)) == [("w", kind)]
    assert kinds(manifest(w=new), manifest(w=old)) == [("w", kind)]


def test_rows_that_are_added_or_removed() -> None:
    assert rows(record(1, shape=(32000, 4)), record(2, shape=(32004, 4))) == 4
    assert rows(record(1, shape=(5,)), record(2, shape=(2,))) == -3
    assert rows(record(1, shape=(2, 3)), record(2, shape=(2, 4))) is None
    assert rows(record(1, shape=()), record(2, shape=(1,))) is None
    turned = record(2, shape=(4, 3), strides=(1, 4))
    assert rows(record(1), turned) is None, "its rows do not stand one after another"


def test_a_rename_is_told_by_the_content() -> None:
    item = only(OLD, manifest(v=1, k=0))
    assert item.kind is Kind.RENAMED
    assert item.before is not None
    assert (item.before.name, item.name, item.pair) == ("w", "v", None)
    assert kinds(OLD, manifest(v=2, k=0)) == [("v", Kind.ADDED), ("w", Kind.REMOVED)]


def test_ties() -> None:
    tied = manifest(w=record(1, views={"k": None}))
    item = only(OLD, tied)
    assert item.kind is Kind.TIED
    assert item.after is not None
    assert (item.name, item.after.owner, item.after.record) == ("k", "w", tied.parameters["w"])
    assert item.steps == (), "nothing is stored for another name"
    assert item.reversed() == only(tied, OLD)
    assert only(tied, OLD).kind is Kind.UNTIED
    assert only(manifest(w=1), tied) == Change(Kind.TIED, None, item.after)
    assert only(tied, manifest(w=1)) == Change(Kind.UNTIED, item.after, None)


def test_a_tie_that_is_turned_round_is_no_change() -> None:
    one, other = (manifest(**{name: record(1, views={tied: None})}) for name, tied in (("w", "k"), ("k", "w")))
    made = compare(one, other)
    assert (made.items, made.unchanged, made.is_layout_new) == ((), 1, True)
    trained = manifest(k=record(2, views={"w": None}))
    item = only(one, trained)
    assert (item.kind, item.name) == (Kind.CHANGED, "k")
    assert item.pair == (one.parameters["w"], trained.parameters["k"])


def test_only_the_rest_of_the_file_changed() -> None:
    made = compare(manifest("one order", w=1, k=0), manifest("another", w=1, k=0))
    assert (made.items, made.unchanged, made.is_layout_new, made.is_only_beside) == ((), 2, True, True)
    made = compare(manifest("one order", w=1, k=0), manifest("another", w=2, k=0))
    assert (len(made.items), made.is_only_beside) == (1, True)
    assert not compare(manifest(w=1, k=0), manifest(w=1)).is_only_beside, "a header has the names"


def test_only_what_is_chosen() -> None:
    made = compare(OLD, manifest(w=2, kept=0, key=3), lambda name: name.startswith("k"))
    assert [(item.name, item.kind) for item in made.items] == [("kept", Kind.RENAMED), ("key", Kind.ADDED)]
    assert (made.parameters, made.unchanged) == (2, 0)
    made = compare(OLD, manifest(w=2, k=0), lambda name: name == "k")
    assert (made.items, made.parameters, made.unchanged) == ((), 1, 1)


def test_updates_and_bytes_are_those_that_came_to_it() -> None:
    base = record(1)
    step = Step("sparse", (Piece("ab" * 32, 900, 100, 20), Piece("cd" * 32, 7, 0, 7)))
    grown = replace(record(2), store=(*base.store, step))
    before = manifest(w=base)
    after = replace(before, parameters={"w": grown})
    made = compare(before, after)
    assert made.items[0].steps == (step,)
    assert made.added_bytes == 27
    assert compare(after, before).items[0].steps == ()
    resized = replace(record(3, shape=(4, 3)), store=(replace(base.store[0], shape=(2, 3)), step))
    [item] = compare(before, replace(before, parameters={"w": resized})).items
    assert item.steps == (step,), "the step of the old value is the same one, though it now says its shape"
    assert compare(after, before).added_bytes == 0
    assert only(OLD, manifest(w=2, k=0)).steps == record(2).store
