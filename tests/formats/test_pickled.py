"""Scalars in a pickle's text: each is found, and exchanged, and the pickle is one that Python would have made."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.errors import ConflictError, FormatError
from git_theta.formats import pickled
from git_theta.formats.base import NOTHING, refuse
from git_theta.formats.pickled import Side, Text

LAW = settings(deadline=None)
SCALARS = st.one_of(
    st.booleans(), st.none(), st.integers(-(2**70), 2**70), st.integers(0, 300), st.floats(), st.floats(width=16)
)
TRIPLES = st.one_of(
    st.tuples(SCALARS, SCALARS, SCALARS),
    SCALARS.map(lambda value: (value, value, value)),
    st.tuples(SCALARS, SCALARS).map(lambda pair: (pair[0], pair[0], pair[1])),
    st.tuples(SCALARS, SCALARS).map(lambda pair: (pair[0], pair[1], pair[0])),
)
KEYS = st.one_of(st.text(max_size=3), st.integers(0, 9))


class Leaf:
    """A place that has a scalar in each of base, ours and theirs."""

    def __init__(self, versions: tuple[object, object, object]) -> None:
        self.versions = versions

    @property
    def merged(self) -> object:
        """What a three-way merge makes of it that keeps ours in a conflict."""
        base, ours, theirs = map(_key, self.versions)
        return self.versions[2] if base == ours != theirs else self.versions[1]


TREES = st.recursive(
    TRIPLES.map(Leaf),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
    ),
    max_leaves=12,
)


def _key(value: object) -> object:
    return type(value), repr(value)


def _filled(tree: Any, pick: Any) -> Any:
    """The tree with a scalar at each place."""
    if isinstance(tree, Leaf):
        return pick(tree)
    if isinstance(tree, dict):
        return type(tree)((key, _filled(value, pick)) for key, value in tree.items())
    return type(tree)(_filled(value, pick) for value in tree)


def _dumped(value: object, protocol: int) -> bytes:
    """The value's pickle behind another one, as in a file of torch before 1.6."""
    return b"before" + pickle.dumps(value, protocol)


def _side(data: bytes) -> Side:
    text = pickled.parse(data, len(b"before"))
    return Side(text, text.structure())


def _ours(_name: str, base: object, ours: object, _theirs: object) -> object:
    assert base is not NOTHING
    return ours


@given(TREES, st.integers(0, 5))
@LAW
def test_merged_scalars_are_those_of_a_three_way_merge(tree: Any, protocol: int) -> None:
    dumped = [_dumped(_filled(tree, lambda leaf: leaf.versions[index]), protocol) for index in range(3)]  # noqa: B023  # called at once
    base, ours, theirs = map(_side, dumped)
    taken, text = pickled.merge(base, ours, theirs, _ours)
    made = taken.text.data[taken.text.start : taken.text.end] if text is None else text
    assert repr(pickle.loads(made)) == repr(_filled(tree, lambda leaf: leaf.merged))  # the test's own


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda data: b"\x80\x04" + data + b"."))
@LAW
def test_any_bytes_are_a_pickle_or_refused(data: bytes) -> None:
    try:
        text = pickled.parse(data)
    except FormatError:
        return
    assert text.written({}) == data[: text.end]


def _text(value: object) -> Text:
    return pickled.parse(pickle.dumps(value, 2))


def test_scalars_are_named_by_their_places_in_order() -> None:
    text = _text({"epoch": 3, "groups": [{"lr": 0.5, "betas": (0.9, 0.99)}], 7: None, "on": True, "by": "me"})
    assert list(text.scalars) == ["epoch", "groups/0/lr", "groups/0/betas/0", "groups/0/betas/1", "7", "on", "by"]
    assert [literal.value for literal in text.scalars.values()] == [3, 0.5, 0.9, 0.99, None, True, "me"]


def test_a_text_that_stands_in_two_places_is_structure() -> None:
    name = "adam"
    assert list(_text({"one": name, "other": name, "epoch": 1}).scalars) == ["epoch"]
    assert list(_text({"epoch": 1, "last": "epoch"}).scalars) == ["epoch"], "the key of the first is the second's text"


def test_a_container_that_stands_in_two_places_has_one_name() -> None:
    group = {"lr": 0.5}
    assert len(_text([group, group]).scalars) == 1


def test_a_long_sequence_is_one_scalar_where_it_stands_in_one_piece() -> None:
    assert list(_text({"few": [1] * 3, "many": list(range(17))}).scalars) == ["few/0", "few/1", "few/2", "many"]
    many = _text({"many": [1.5] * 1000}).scalars["many"]
    assert many.value == (1.5,) * 1000
    assert list(_text({"more": [1.5] * 1001, "epoch": 1}).scalars) == ["epoch"], "pickle writes a thousand at a time"


def test_a_sequence_of_another_length_may_stand_in_its_place() -> None:
    base, ours, theirs = (
        Side(text, text.structure())
        for text in (_text({"losses": [0.5] * count, "epoch": epoch}) for count, epoch in ((20, 1), (20, 2), (30, 1)))
    )
    taken, text = pickled.merge(base, ours, theirs, refuse)
    assert text is not None
    assert pickle.loads(text) == {"losses": [0.5] * 30, "epoch": 2}  # the test's own
    assert taken is ours


def test_one_object_in_many_places_ends() -> None:
    node: object = [1.5] * 100
    for _ in range(9):
        node = [node] * 10
    text = _text(node)
    assert len(text.scalars) == 1


def test_names_that_are_too_long_are_no_names() -> None:
    assert _text({"x" * 5000: 1, "y": 2}).scalars.keys() == {"y"}
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    assert _text(deep).scalars == {}


def test_frames_are_as_long_as_their_content() -> None:
    """The reader of the standard library goes by them."""
    text = pickled.parse(pickle.dumps({"epoch": 1, "note": "x" * 10}, 4))
    assert text.frames
    made = text.written({"epoch": pickle.BININT + (70_000).to_bytes(4, "little"), "note": b"\x8c\x01y"})
    assert pickle.loads(made) == {"epoch": 70_000, "note": "y"}  # the test's own
    pure = pickle._Unpickler(io.BytesIO(made))  # it checks frames, too
    assert pure.load() == {"epoch": 70_000, "note": "y"}


def test_a_structure_that_both_changed_is_a_conflict() -> None:
    base, ours, theirs = (Side(text, text.structure()) for text in map(_text, ({}, {"a": 1}, {"b": 1})))
    with pytest.raises(ConflictError, match="both sides changed what the file says beside its tensors"):
        pickled.merge(base, ours, theirs, refuse)
