"""The manifest's text: what is written, what is read, and what is refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from git_theta import manifest
from git_theta.errors import ManifestError
from git_theta.manifest import Manifest, Piece, Record, Step
from git_theta.tensor import View
from tests.checkpoints import linux_only

A, B, C = "a" * 64, "b" * 64, "c" * 64

EVERYTHING = Manifest(
    "safetensors",
    2**63 - 1,
    A,
    Record("opaque", (97,), 97, B, (Step("dense", (Piece(A, 97, 0, 97),)),)),
    {
        "w": Record("F32", (2, 3), 24, C, (Step("dense", (Piece(B, 24, 0, 24),)),), (1, 2)),
        "block/0/~s0": Record(
            "BF16",
            (4,),
            8,
            C,
            (
                Step("dense", (Piece(B, 24, 4, 8), Piece(C, 2**63 - 1, 0, 2**63 - 1))),
                Step("low-rank", (Piece(B, 24, 0, 0),), (0,)),
                Step("dense", (), (), "F32", (2,)),
                Step("mean", (Piece(A, 97, 0, 97),), (0, 2)),
            ),
        ),
        'a"\\\n\x00\x7fé\U0001f600\ud800': Record("I2_new", (5,), 3, A, (Step("dense", (Piece(B, 24, 0, 24),)),)),
        "empty": Record("F4", (0, 2**63 - 1), 0, A, (Step("dense", ()),)),
        "shared~storage": Record(
            "F32",
            (8,),
            32,
            B,
            (Step("dense", (Piece(A, 97, 0, 32),)),),
            None,
            (
                View("tied", "F32", (8,)),
                View("slice", "F16", (2, 2), 3, (4, 1)),
            ),
        ),
        "turned": Record(
            "F32", (2, 2), 16, B, (Step("dense", (Piece(A, 97, 0, 16),)),), (1, 2), (View("plain", "F32", (2, 2)),)
        ),
    },
)
TEXT = (
    '{"git-theta": 1, "about": "checkpoint kept by git-theta; to get it: '
    'pip install git-theta; git theta install; git theta pull",\n'
    f'"format": "safetensors", "size": 9223372036854775807, "digest": "{A}",\n'
    f'"layout": {{"size": 97, "digest": "{B}", "store": [["dense", [["{A}", 97]]]]}},\n'
    '"parameters": {\n'
    '"a\\"\\\\\\n\\u0000\\u007f\\u00e9\\ud83d\\ude00\\ud800": {"dtype": "I2_new", "shape": [5], "size": 3, '
    f'"digest": "{A}", "store": [["dense", [["{B}", 24]]]]}},\n'
    f'"block/0/~s0": {{"dtype": "BF16", "shape": [4], "digest": "{C}", "store": '
    f'[["dense", [["{B}", 24, 4, 8], ["{C}", 9223372036854775807]]], ["low-rank", [["{B}", 24, 0, 0]]], '
    f'["dense", [], {{"bases": [], "dtype": "F32", "shape": [2]}}], ["mean", [["{A}", 97]], {{"bases": [0, 2]}}]]}},\n'
    f'"empty": {{"dtype": "F4", "shape": [0, 9223372036854775807], "digest": "{A}", "store": [["dense", []]]}},\n'
    f'"shared~storage": {{"dtype": "F32", "shape": [8], "digest": "{B}", "store": [["dense", [["{A}", 97, 0, 32]]]], '
    '"views": [{"name": "tied"}, '
    '{"name": "slice", "dtype": "F16", "shape": [2, 2], "offset": 3, "strides": [4, 1]}]},\n'
    f'"turned": {{"dtype": "F32", "shape": [2, 2], "strides": [1, 2], "digest": "{B}", '
    f'"store": [["dense", [["{A}", 97, 0, 16]]]], "views": [{{"name": "plain", "strides": null}}]}},\n'
    f'"w": {{"dtype": "F32", "shape": [2, 3], "strides": [1, 2], "digest": "{C}", '
    f'"store": [["dense", [["{B}", 24]]]]}}\n'
    "}}\n"
).encode()
NO_PARAMETERS = (
    b'{"git-theta": 1, "about": "checkpoint kept by git-theta; to get it: '
    b'pip install git-theta; git theta install; git theta pull",\n'
    b'"format": "opaque", "size": 0, "digest": "' + A.encode() + b'",\n'
    b'"layout": {"size": 0, "digest": "' + A.encode() + b'", "store": [["dense", []]]},\n'
    b'"parameters": {\n}}\n'
)


@pytest.mark.parametrize("text", [TEXT, NO_PARAMETERS], ids=["everything", "no parameters"])
def test_the_canonical_text_is_read_and_written(text: bytes) -> None:
    assert manifest.format(manifest.parse(text)) == text


def test_the_canonical_text_holds_the_manifest() -> None:
    assert manifest.parse(TEXT) == EVERYTHING
    assert manifest.format(EVERYTHING) == TEXT
    assert [record.digest for record in EVERYTHING.records()] == [B, C, C, A, A, B, B]
    assert EVERYTHING.objects() == {A: 97, B: 24, C: 2**63 - 1}


def test_there_is_one_text_whatever_the_order_of_the_parameters() -> None:
    turned = dict(reversed([*EVERYTHING.parameters.items()]))
    assert manifest.format(replace(EVERYTHING, parameters=turned)) == TEXT


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda root: json.dumps(root, indent=3),
        lambda root: json.dumps(root, sort_keys=True, separators=(",", ":")),
        lambda root: json.dumps({key: root[key] for key in reversed(root)}),
        lambda _: TEXT.decode().replace("checkpoint kept", "what a later release says \U0001f600"),
        lambda _: TEXT.decode().replace("\\ud83d\\ude00", "\U0001f600").replace("\\u00e9", "é"),
        lambda _: TEXT.decode().replace(f'["{B}", 24]', f'["{B}", 24, 0, 24]'),
        lambda _: TEXT.decode().replace('{"name": "tied"}', '{"name": "tied", "shape": [8], "offset": 0}'),
        lambda _: TEXT.decode().replace('"low-rank", [', '"low\\u002drank", [').replace("\n", "\r\n"),
        lambda _: TEXT.decode().replace("24, 0, 0]]]", '24, 0, 0]], {"bases": [0]}]'),
    ],
    ids=["indented", "sorted", "reversed", "about", "UTF-8", "long piece", "view defaults", "escapes", "default bases"],
)
def test_any_json_of_the_value_is_read(rewrite: Callable[[dict[str, Any]], str]) -> None:
    text = rewrite(json.loads(TEXT)).encode()
    assert text != TEXT
    assert manifest.parse(text) == EVERYTHING
    assert manifest.format(manifest.parse(text)) == TEXT


_GONE = object()
_WORD_BUT_LONG = "w" * 33
_W = ("parameters", "w")
_STEP = (*_W, "store", 0)
_PIECE = (*_STEP, 1, 0)
_VIEW = ("parameters", "shared~storage", "views", 1)
_NEW = ("parameters", 'a"\\\n\x00\x7fé\U0001f600\ud800')
_CHAIN = ("parameters", "block/0/~s0", "store")
_HOSTILE_PLACES: dict[str, tuple[object, ...]] = {
    "size": ("size",),
    "layout size": ("layout", "size"),
    "dimension": (*_W, "shape", 0),
    "stride": (*_W, "strides", 0),
    "record size": (*_NEW, "size"),
    "object size": (*_PIECE, 1),
    "offset": ("parameters", "turned", "store", 0, 1, 0, 2),
    "length": ("parameters", "turned", "store", 0, 1, 0, 3),
    "base": (*_CHAIN, 3, 2, "bases", 0),
    "step dimension": (*_CHAIN, 2, 2, "shape", 0),
    "view offset": (*_VIEW, "offset"),
    "view dimension": (*_VIEW, "shape", 0),
    "view stride": (*_VIEW, "strides", 0),
}
_HOSTILE_NUMBERS = {
    "2**63": 2**63,
    "2**70": 2**70,
    "negative": -1,
    "true": True,
    "float": 2.0,
    "text": "2",
    "null": None,
    "infinite": float("inf"),
    "nan": float("nan"),
    "list": [2],
}
_HOSTILE_HASHES = {
    "upper case": "A" * 64,
    "63 characters": "a" * 63,
    "65 characters": "a" * 65,
    "newline": "a" * 63 + "\n",
    "newline after": "a" * 64 + "\n",
    "path": "../../" + "a" * 58,
    "passwd": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "drive": "c:" + "a" * 62,
    "NUL": "a" * 63 + "\0",
    "other digits": "\u0661" * 64,
    "number": int("1" * 64),
    "null": None,
    "list": ["a" * 64],
}
_HOSTILE_WORDS = {
    "empty": "",
    "upper case": "Dense",
    "long": _WORD_BUT_LONG,
    "path": "../dense",
    "escape": "dense\x1b[31m",
    "newline": "dense\n",
    "first digit": "1dense",
    "null": None,
    "module": "os:system",
}
_HOSTILE_DTYPES = {
    "empty": "",
    "long": "F" * 33,
    "escape": "F32\x1b[31m",
    "newline": "F32\n",
    "path": "../F32",
    "null": None,
    "list": ["F32"],
    "number": 32,
}


def _edited(path: tuple[object, ...], value: object) -> bytes:
    root: Any = json.loads(TEXT)
    at = root
    for key in path[:-1]:
        at = at[key]
    if value is _GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return json.dumps(root).encode()


def _expect_refused(text: bytes) -> str:
    """The message, which is one short line without control characters."""
    with pytest.raises(ManifestError) as caught:
        manifest.parse(text)
    message = str(caught.value)
    assert message.isprintable()
    assert message.isascii()
    assert 0 < len(message) < 500
    return message


@pytest.mark.parametrize("value", _HOSTILE_NUMBERS.values(), ids=_HOSTILE_NUMBERS)
@pytest.mark.parametrize("path", _HOSTILE_PLACES.values(), ids=_HOSTILE_PLACES)
def test_a_number_that_is_no_size_is_refused(path: tuple[object, ...], value: object) -> None:
    _expect_refused(_edited(path, value))


@pytest.mark.parametrize("value", _HOSTILE_HASHES.values(), ids=_HOSTILE_HASHES)
@pytest.mark.parametrize(
    "path", [(*_PIECE, 0), (*_W, "digest"), ("digest",), ("layout", "digest")], ids=["oid", "digest", "whole", "layout"]
)
def test_a_hash_that_is_not_64_hex_characters_is_refused(path: tuple[object, ...], value: object) -> None:
    _expect_refused(_edited(path, value))


@pytest.mark.parametrize("value", _HOSTILE_WORDS.values(), ids=_HOSTILE_WORDS)
@pytest.mark.parametrize("path", [("format",), (*_STEP, 0)], ids=["format", "update"])
def test_a_name_of_a_plugin_that_is_no_word_is_refused(path: tuple[object, ...], value: object) -> None:
    _expect_refused(_edited(path, value))


@pytest.mark.parametrize("value", _HOSTILE_DTYPES.values(), ids=_HOSTILE_DTYPES)
@pytest.mark.parametrize(
    "path", [(*_NEW, "dtype"), (*_CHAIN, 2, 2, "dtype"), (*_VIEW, "dtype")], ids=["record", "step", "view"]
)
def test_a_dtype_that_is_no_word_is_refused(path: tuple[object, ...], value: object) -> None:
    _expect_refused(_edited(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param((*path, key), value, id=f"{where} {what} {key}")
        for where, path, keys in [
            ("root", (), ("about", "format", "size", "digest", "layout", "parameters")),
            ("layout", ("layout",), ("size", "digest", "store")),
            ("record", _W, ("dtype", "shape", "digest", "store")),
            ("view", _VIEW, ("name",)),
        ]
        for what, value in [("lacks", _GONE), ("has null as", None)]
        for key in keys
    ]
    + [
        pytest.param((*path, key), [], id=f"{where} has unknown key {key!r}")
        for where, path in [("root", ()), ("layout", ("layout",)), ("record", _W), ("view", _VIEW)]
        for key in ("delta", "\x1b]0;owned\x07\n", "")
    ]
    + [pytest.param((*_CHAIN, 3, 2, "key"), 1, id="more has unknown key")],
)
def test_a_key_too_many_or_too_few_is_refused(path: tuple[object, ...], value: object) -> None:
    _expect_refused(_edited(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param((*_W, "store"), [], id="no steps"),
        pytest.param((*_W, "store"), {}, id="steps in an object"),
        pytest.param((*_W, "store"), [["dense", []]] * 17, id="17 steps"),
        pytest.param(_STEP, ["dense"], id="step without pieces"),
        pytest.param(_STEP, ["dense", [], {}, {}], id="step of four items"),
        pytest.param(_STEP, ["dense", [], []], id="step whose third item is a list"),
        pytest.param(_STEP, "dense", id="step that is text"),
        pytest.param((*_STEP, 1), {}, id="pieces in an object"),
        pytest.param((*_STEP, 1), [[B, 24]] * 65_537, id="65,537 pieces"),
        pytest.param(_PIECE, [B, 24, 0], id="piece of three items"),
        pytest.param(_PIECE, [B, 24, 0, 24, 0], id="piece of five items"),
        pytest.param(_PIECE, B, id="piece that is text"),
        pytest.param(_PIECE, [B, 24, 20, 5], id="piece that leaves its object"),
        pytest.param(_PIECE, [B, 24, 25, 0], id="piece behind its object"),
        pytest.param(_PIECE, [B, 24, 2**63 - 1, 2**63 - 1], id="piece whose end is above 2**63"),
        pytest.param(_PIECE, [B, 25], id="object of two sizes"),
        pytest.param((*_CHAIN, 3, 2, "bases"), [3], id="step on itself"),
        pytest.param((*_CHAIN, 2, 2, "bases"), [3], id="step on a later one"),
        pytest.param((*_CHAIN, 2, 2, "bases"), [16], id="step on none"),
        pytest.param((*_CHAIN, 2, 2, "bases"), [0] * 65, id="65 bases"),
        pytest.param((*_CHAIN, 2, 2, "bases"), 0, id="bases that are a number"),
        pytest.param((*_CHAIN, 0), ["dense", [], {"bases": [0]}], id="first step on itself"),
        pytest.param((*_W, "shape"), [1] * 65, id="65 dimensions"),
        pytest.param((*_W, "shape"), [2**62, 2**62], id="value above 2**63 bytes"),
        pytest.param((*_W, "shape"), 6, id="shape that is a number"),
        pytest.param((*_W, "shape"), {}, id="shape that is an object"),
        pytest.param((*_W, "strides"), [1], id="too few strides"),
        pytest.param((*_W, "strides"), None, id="strides null"),
        pytest.param((*_W, "size"), 25, id="size that is not the dtype's"),
        pytest.param((*_W, "dtype"), "I2_new", id="unknown dtype without size"),
        pytest.param(("parameters", "empty", "shape"), [3], id="F4 that ends inside a byte"),
        pytest.param((*_VIEW, "name"), "n" * 4097, id="view name of 4,097 characters"),
        pytest.param(("parameters", "n" * 4097), json.loads(TEXT)["parameters"]["w"], id="name of 4,097 characters"),
        pytest.param(("parameters", "w"), [], id="record that is a list"),
        pytest.param((*_VIEW[:-1],), [], id="no views"),
        pytest.param((*_VIEW[:-1],), [{"name": "v"}] * 65_537, id="65,537 views"),
        pytest.param((*_VIEW[:-1],), {"name": "v"}, id="views in an object"),
        pytest.param(_VIEW, "name", id="view that is text"),
        pytest.param((*_VIEW, "strides"), [1], id="view with too few strides"),
        pytest.param(("parameters",), [], id="parameters in a list"),
        pytest.param(("layout",), [], id="layout that is a list"),
        pytest.param(("about",), 1, id="about that is a number"),
    ],
)
def test_a_contradiction_is_refused(path: tuple[object, ...], value: object) -> None:
    _expect_refused(_edited(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param((*_W, "store"), [["dense", [[B, 24]]]] * 16, id="16 steps"),
        pytest.param((*_STEP, 1), [[B, 24, 24, 0]] * 65_536, id="65,536 pieces"),
        pytest.param((*_W, "strides"), [2**63 - 1, 0], id="stride of 2**63 - 1"),
        pytest.param(("parameters", "empty", "shape"), [2**63 - 1] * 63 + [0], id="64 dimensions"),
        pytest.param((*_VIEW, "name"), "\n" * 4096, id="view name of 4,096 characters"),
        pytest.param(("parameters", "\x00" * 4096), json.loads(TEXT)["parameters"]["w"], id="name of 4,096 characters"),
        pytest.param((*_VIEW[:-1],), [{"name": "v"}] * 65_536, id="65,536 views"),
        pytest.param(("parameters", "../../etc/passwd"), json.loads(TEXT)["parameters"]["w"], id="name like a path"),
        pytest.param(("format",), "f" * 32, id="format that is not installed"),
        pytest.param((*_STEP, 0), "u" * 32, id="update that is not installed"),
        pytest.param(("about",), "", id="about that says nothing"),
    ],
)
def test_what_is_within_its_bounds_is_read(path: tuple[object, ...], value: object) -> None:
    text = _edited(path, value)
    made = manifest.parse(text)
    assert made != EVERYTHING or path == ("about",)
    assert manifest.parse(manifest.format(made)) == made


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(TEXT[:-3], id="cut short"),
        pytest.param(TEXT + b"}", id="one brace more"),
        pytest.param(TEXT + TEXT, id="twice"),
        pytest.param(b"\xff" + TEXT, id="no UTF-8"),
        pytest.param(TEXT.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(TEXT.replace(b"\\ud800", b"\xed\xa0\x80"), id="surrogate in UTF-8"),
        pytest.param(TEXT.replace(b'"w"', b'"\xed\x00\x80"'), id="NUL in a name"),
        pytest.param(b"[" * 100_000, id="nesting bomb"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, id="closed nesting bomb"),
        pytest.param(b'{"git-theta":' * 100_000, id="nested objects"),
        pytest.param(b'{"git-theta": ' + b"[" * 900 + b"]" * 900 + b"}", id="version nested 900 deep"),
        pytest.param(b'{"git-theta": ' + b"9" * 5_000 + b"}", id="version of 5,000 digits"),
        pytest.param(b'{"git-theta": ' + b"9" * 4_000 + b"}", id="version of 4,000 digits"),
        pytest.param(b'{"git-theta": "' + b"\\u001b[2J\\n" * 9 + b'"}', id="version with control characters"),
        pytest.param(b'{"git-theta": 2, "later": "key"}', id="version 2"),
        pytest.param(b'{"git-theta": 0}', id="version 0"),
        pytest.param(b'{"git-theta": true}', id="version true"),
        pytest.param(b'{"git-theta": 1.0}', id="version 1.0"),
        pytest.param(b'{"git-theta": null}', id="version null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"1", id="number"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(TEXT.replace(b'"size": 97', b'"size": 97, "size": 97'), id="key twice in the layout"),
        pytest.param(TEXT.replace(b'"git-theta": 1', b'"git-theta": 2, "git-theta": 1'), id="version twice"),
        pytest.param(TEXT.replace(b'"empty"', b'"w"'), id="parameter twice"),
        pytest.param(TEXT.replace(b'"empty"', b'"\\u0077"'), id="parameter twice, once escaped"),
        pytest.param(TEXT.replace(b'{"name": "tied"', b'{"name": "x", "name": "tied"'), id="view name twice"),
        pytest.param(TEXT.replace(b'"bases": []', b'"bases": [], "bases": []'), id="bases twice"),
        pytest.param(TEXT.replace(b'"size": 97', b'"size": 097'), id="leading zero"),
        pytest.param(TEXT.replace(b'"size": 97', b'"size": 9.7e1'), id="exponent"),
        pytest.param(TEXT.replace(b'"size": 97', b'"size": 1e999'), id="infinite number"),
        pytest.param(TEXT.replace(b'"size": 97', b'"size": NaN'), id="NaN"),
        pytest.param(TEXT.replace(b'"size": 97', b'"size": ' + b"[" * 900 + b"]" * 900), id="size nested 900 deep"),
        pytest.param(b" " * (64 * 2**20 - len(TEXT) + 1) + TEXT, id="above 64 MiB"),
        pytest.param(
            TEXT.replace(b'"format"', b"<<<<<<< HEAD\n" + b'"format"').replace(b'"layout"', b"=======\n" + b'"layout"'),
            id="conflict markers",
        ),
    ],
)
def test_text_that_is_no_manifest_is_refused(text: bytes) -> None:
    _expect_refused(text)


def test_a_later_version_is_named_before_other_keys_are_looked_at() -> None:
    assert "version 2" in _expect_refused(b'{"new": [], "git-theta": 2}')


@pytest.mark.parametrize("unit", [b"[],", b'"aa",', b'{"k":0},'], ids=bytes.decode)
@linux_only
def test_a_text_of_64_mib_takes_bounded_memory(unit: bytes) -> None:
    program = """
import sys
from git_theta import manifest
unit = sys.argv[1].encode()
head = b'{"git-theta": 1, "about": ['
try:
    manifest.parse(head + unit * ((manifest.MAX_MANIFEST_BYTES - len(head) - 3) // len(unit)) + b"0]}")
except manifest.ManifestError:
    [peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(peak) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, unit], check=True, capture_output=True)
    assert int(done.stdout) < 768


@pytest.mark.parametrize(
    ("content", "starts", "looks", "markers"),
    [
        pytest.param(TEXT, True, True, False, id="manifest"),
        pytest.param(NO_PARAMETERS, True, True, False, id="manifest without parameters"),
        pytest.param(TEXT[:20], True, True, False, id="first bytes"),
        pytest.param(TEXT[len(TEXT) // 2 :], False, True, False, id="second half"),
        pytest.param(
            b"<<<<<<< ours\n" + TEXT + b"=======\n" + TEXT + b">>>>>>> theirs\n", False, True, True, id="both"
        ),
        pytest.param(TEXT.replace(b"\n", b"\n=======\r\n", 1), True, True, True, id="one marker, CR LF"),
        pytest.param(TEXT + b"\0", True, False, False, id="NUL behind"),
        pytest.param(b"\x80\x02}q\0" + TEXT, False, False, False, id="pickle that holds a manifest"),
        pytest.param(b"", False, False, False, id="nothing"),
        pytest.param(b'{"git-theta":1}', False, True, False, id="compact JSON"),
        pytest.param(b'{"parameters": {\n "layout": {"size": 3}}}', False, False, False, id="another JSON"),
        pytest.param(b"a\n======= b\n", False, False, True, id="text with a marker"),
        pytest.param(b"a\n========\n x<<<<<<< y\n", False, False, False, id="text without markers"),
    ],
)
def test_what_looks_like_a_manifest(content: bytes, starts: bool, looks: bool, markers: bool) -> None:
    assert manifest.starts_like(content) == starts
    assert manifest.looks_like(content) == looks
    assert manifest.has_conflict_markers(content) == markers


def test_no_text_is_written_that_is_too_long_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = manifest.format(EVERYTHING)
    monkeypatch.setattr(manifest, "MAX_MANIFEST_BYTES", len(text))
    assert manifest.format(EVERYTHING) == text
    monkeypatch.setattr(manifest, "MAX_MANIFEST_BYTES", len(text) - 1)
    with pytest.raises(ManifestError, match=f"{len(text)} bytes.*theta.updates=dense"):
        manifest.format(EVERYTHING)
