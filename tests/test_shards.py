"""The index of a sharded checkpoint, as transformers writes it and as a merge makes it anew."""

import json

import pytest

from git_theta import shards
from git_theta.errors import ConflictError
from git_theta.manifest import Manifest
from tests.manifests import manifest

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
OLD = {"metadata": {"total_size": 48, "total_parameters": 12, "format": "pt"}, "weight_map": {"a": ONE, "b": TWO}}


def index(document: object) -> shards.Index:
    found = shards.parse(json.dumps(document).encode())
    assert found is not None
    return found


def test_the_text_is_that_of_transformers() -> None:
    text = (json.dumps(OLD, indent=2, sort_keys=True) + "\n").encode()
    found = shards.parse(text)
    assert found is not None
    assert found.files == (ONE, TWO)
    assert shards.format(found) == text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": 1}}',
        b'{"weight_map": {"a": "../x"}}',
        b"<<<<<<<",
    ],
)
def test_what_is_no_index(text: bytes) -> None:
    assert shards.parse(text) is None


def test_an_index_made_anew() -> None:
    ours = index({**OLD, "weight_map": {**OLD["weight_map"], "c": TWO}})  # type: ignore[dict-item]  # it is a dict
    made = shards.regenerate([ours, index(OLD)], {ONE: manifest(a=1, d=4), TWO: manifest(b=2, c=3)})
    assert made.weight_map == {"a": ONE, "d": ONE, "b": TWO, "c": TWO}
    assert made.others == {"metadata": {"total_size": 4 * 24, "total_parameters": 24, "format": "pt"}}


def test_keys_are_those_of_the_file_and_not_escaped() -> None:
    made = shards.regenerate([index({"weight_map": {"a/b": ONE, "7": ONE}})], {ONE: manifest(**{"a~1b": 1, "~s7": 2})})
    assert made.weight_map == {"a/b": ONE, "7": ONE}


def test_a_parameter_in_two_shards_is_a_conflict() -> None:
    with pytest.raises(ConflictError, match=r"'a' is in .*00001.* and in .*00002"):
        shards.regenerate([index(OLD)], {ONE: manifest(a=1), TWO: manifest(a=2, b=1)})


BASE = {ONE: manifest(a=1, c=3), TWO: manifest(b=2)}
TRAINED = {ONE: manifest(a=10, c=3), TWO: manifest(b=2)}
MOVED = {ONE: manifest(c=3), TWO: manifest(a=1, b=2)}


@pytest.mark.parametrize(
    ("result", "base", "sides", "file"),
    [
        # decided in the first one
        ({ONE: manifest(a=10), TWO: manifest(a=11)}, BASE, [TRAINED, MOVED], ONE),
        ({ONE: manifest(a=1), TWO: manifest(a=11)}, BASE, [TRAINED, MOVED], ONE),
        # one is new
        ({ONE: manifest(a=1), TWO: manifest(a=11)}, BASE, [BASE, BASE], TWO),
        # none is new, or they are the same: the index
        ({ONE: manifest(a=1), TWO: manifest(a=1)}, BASE, [BASE, BASE], ONE),
        ({ONE: manifest(a=5), TWO: manifest(a=5)}, BASE, [BASE, BASE], ONE),
        # nothing tells
        ({ONE: manifest(a=10), TWO: manifest(a=11)}, BASE, [BASE, BASE], None),
        ({ONE: manifest(a=10), TWO: manifest(a=11)}, {}, [BASE, MOVED], None),
    ],
)
def test_which_of_two_shards_counts(
    result: dict[str, Manifest],
    base: dict[str, Manifest],
    sides: list[dict[str, Manifest]],
    file: str | None,
) -> None:
    found = shards.kept(result, [base], sides, index(OLD))
    assert found == ({} if file is None else {"a": file})
    if file:
        assert shards.regenerate([index(OLD)], result, found).weight_map == {"a": file}
