"""Manifests that are parsed with the help of the one before: the same as without it, whatever the texts are."""

import itertools
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta import manifest
from git_theta.errors import ManifestError
from git_theta.manifest import Manifest, Step
from git_theta.rows import Rows
from tests import manifests

BASE = manifests.manifest(**{f"layers__{number}": number for number in range(12)})
TEXT = manifest.format(BASE)


def other(**parameters: object) -> bytes:
    """The text of the base with some other parameters."""
    more = manifests.manifest(**parameters).parameters
    return manifest.format(replace(BASE, parameters={**BASE.parameters, **more}))


def outcome(text: bytes) -> Manifest | str:
    try:
        return manifest.parse(text)
    except ManifestError as error:
        return str(error)


def with_help(known: bytes, text: bytes) -> Manifest | str:
    """What the second text is found to be, after the first one."""
    rows = Rows()
    with suppress(ManifestError):
        rows.parse(known)
    try:
        return rows.parse(text)
    except ManifestError as error:
        return str(error)


def test_a_line_that_two_have_is_one_record() -> None:
    rows = Rows()
    before, after = rows.parse(TEXT), rows.parse(other(layers__3="new", added=1))
    assert after == manifest.parse(other(layers__3="new", added=1))
    shared = [name for name in after.parameters if after.parameters[name] is before.parameters.get(name)]
    assert shared == [name for name in sorted(BASE.parameters) if name != "layers.3"]
    assert rows.parse(other(layers__3="new", added=1)) is after


LINES = TEXT.split(b"\n")
ROW = LINES[6]
HOSTILE = {
    "as it was": TEXT,
    "one more": other(a=1, z=2),
    "one less": TEXT.replace(ROW + b"\n", b""),
    "a line twice": TEXT.replace(ROW, ROW + b"\n" + ROW),
    "a name twice": TEXT.replace(LINES[7], LINES[7].replace(b"layers.11", b"layers.1", 1)),
    "a comma less": TEXT.replace(ROW, ROW[:-1]),
    "a comma more": TEXT.replace(b"\n}}", b",\n}}"),
    "a row cut in two": TEXT.replace(ROW, ROW.replace(b', "digest"', b',\n"digest"')),
    "two rows in a line": TEXT.replace(ROW + b"\n", ROW),
    "a row cut, and two joined": TEXT.replace(LINES[8] + b"\n", LINES[8]).replace(
        ROW, ROW.replace(b', "digest"', b',\n"digest"')
    ),
    "a line inside of a row": TEXT.replace(ROW, b'"x": {"dtype": "F32",\n' + LINES[5] + b'\n"shape": [1]},'),
    "a line inside of views": TEXT.replace(ROW, ROW[:-2] + b', "views": [{\n' + LINES[5] + b"\n}]},"),
    "a row that closes too much": TEXT.replace(ROW, ROW[:-1] + b'}, "more": {' + ROW),
    "another order": b"\n".join([*LINES[:4], LINES[6], LINES[5], LINES[4], *LINES[7:]]),
    "no row": b"\n".join([*LINES[:4], *LINES[-2:]]),
    "an empty line": TEXT.replace(ROW, ROW + b"\n"),
    "spaces": TEXT.replace(b": ", b" :  "),
    "another head": TEXT.replace(b'"format": "safetensors"', b'"format": "torch"'),
    "a head that is none": TEXT.replace(b'"size"', b'"site"', 1),
    "a later version": TEXT.replace(b'{"git-theta": 1', b'{"git-theta": 2'),
    "rows in the head": TEXT.replace(LINES[1], b'"parameters": {' + ROW[:-1] + b"}, " + LINES[1]),
    "a row that is not right": TEXT.replace(b"F32", b"F33", 1),
    "an object of two sizes": TEXT.replace(b", 24]", b", 24, 0, 24]", 1).replace(b", 24, 0, 24]", b", 25, 0, 24]", 1),
    "a byte that is no text": TEXT.replace(b"layers.3", b"layers.\xff"),
    "half of it": TEXT[: len(TEXT) // 2],
    "conflict": TEXT.replace(ROW, b"<<<<<<< ours\n" + ROW + b"\n=======\n" + ROW + b"\n>>>>>>> theirs"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_what_it_is_without_help(name: str) -> None:
    for known, text in itertools.chain(
        ((known, HOSTILE[name]) for known in HOSTILE.values()), ((HOSTILE[name], text) for text in HOSTILE.values())
    ):
        assert with_help(known, text) == outcome(text)


def test_an_object_has_one_size_in_lines_of_both() -> None:
    """Of two lines that are right by themselves, one is known, and the other one is not."""
    [step] = BASE.parameters["layers.0"].store
    liar = replace(BASE.parameters["layers.0"], store=(Step("dense", (replace(step.pieces[0], size=25),)),))
    text = manifest.format(replace(BASE, parameters={**BASE.parameters, "liar": liar}))
    assert "two sizes" in str(outcome(text))
    assert with_help(TEXT, text) == outcome(text)


@given(st.lists(st.tuples(st.integers(0, len(TEXT) - 1), st.binary(max_size=4)), max_size=3))
@settings(deadline=None, max_examples=300)
def test_whatever_is_written_into_a_manifest(edits: list[tuple[int, bytes]]) -> None:
    text = bytearray(TEXT)
    for place, new in edits:
        text[place : place + len(new)] = new
    assert with_help(TEXT, bytes(text)) == outcome(bytes(text))
    assert with_help(bytes(text), TEXT) == outcome(TEXT)
