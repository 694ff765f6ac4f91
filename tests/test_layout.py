"""The layout: cutting a file into parts, and reading back how it was cut."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from git_theta import layout, manifest
from git_theta.errors import FormatError, ManifestError
from git_theta.formats.base import Span
from git_theta.layout import Layout, Part
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest, Piece, Record, Step
from git_theta.source import BytesSource
from git_theta.tensor import View
from tests.checkpoints import linux_only, noise

MIB = 2**20
W = Span("w", 8, 4, "F32", (1,))


@pytest.mark.parametrize(
    ("spans", "size", "covered"),
    [
        pytest.param([], 0, [], id="empty file"),
        pytest.param([], MIB, [], id="1 MiB of skeleton"),
        pytest.param([], MIB + 1, [("~bytes0", 0, MIB + 1)], id="more than 1 MiB of nothing known"),
        pytest.param([W], 12, [("w", 8, 4)], id="up to the end"),
        pytest.param(
            [W, replace(W, name="e", size=0, shape=(0,))], 20, [("e", 8, 0), ("w", 8, 4)], id="nothing, then a tensor"
        ),
        pytest.param(
            [replace(W, name="e", offset=12, size=0, shape=(0,)), W],
            12,
            [("w", 8, 4), ("e", 12, 0)],
            id="nothing at the end",
        ),
        pytest.param(
            [replace(W, name="y", offset=2 * MIB), W, replace(W, name="x", offset=12)],
            4 * MIB,
            [
                ("w", 8, 4),
                ("x", 12, 4),
                ("~bytes0", 16, 2 * MIB - 16),
                ("y", 2 * MIB, 4),
                ("~bytes1", 2 * MIB + 4, 2 * MIB - 4),
            ],
            id="gaps in file order",
        ),
    ],
)
def test_spans_cover_the_file(spans: Sequence[Span], size: int, covered: list[tuple[str, int, int]]) -> None:
    assert [(span.name, span.offset, span.size) for span in layout.cover(spans, size)] == covered


_HUGE = 10**5000
_VIEW = View("v", "F32", (1,))


@pytest.mark.parametrize(
    ("spans", "size"),
    [
        pytest.param([W, replace(W, name="v", offset=11)], 99, id="overlap by a byte"),
        pytest.param([W, replace(W, name="e", offset=9, size=0, shape=(0,))], 99, id="nothing within a tensor"),
        pytest.param([W], 11, id="ends behind the file"),
        pytest.param([replace(W, offset=100)], 99, id="begins behind the file"),
        pytest.param([replace(W, offset=-1)], 99, id="begins before the file"),
        pytest.param([replace(W, size=-4, shape=(-1,))], 99, id="negative size"),
        pytest.param([replace(W, offset=_HUGE)], 99, id="offset of 5,000 digits"),
        pytest.param([replace(W, size=8)], 99, id="size that is not the shape's"),
        pytest.param([W, replace(W, offset=12)], 99, id="name twice"),
        pytest.param([replace(W, views=(_VIEW, _VIEW))], 99, id="view name twice"),
        pytest.param([replace(W, views=(replace(_VIEW, name="w"),))], 99, id="view named as its tensor"),
        pytest.param([replace(W, name="~bytes0")], 2 * MIB, id="name of a gap"),
        pytest.param([replace(W, name="n" * 4097)], 99, id="name of 4,097 characters"),
        pytest.param([replace(W, name="\ud83d\ude00")], 99, id="name of surrogates"),
        pytest.param([replace(W, dtype="F32\n", shape=(1,))], 99, id="dtype that is no word"),
        pytest.param([replace(W, dtype="Q4", shape=(2**63,))], 99, id="dimension of 2**63"),
        pytest.param([replace(W, dtype="Q4", shape=(_HUGE,))], 99, id="dimension of 5,000 digits"),
        pytest.param([replace(W, size=0, shape=(0, 2**64))], 99, id="empty tensor with a dimension of 2**64"),
        pytest.param([replace(W, dtype="Q4", shape=(1,) * 65)], 99, id="65 dimensions"),
        pytest.param([replace(W, dtype="Q4", shape=(True,))], 99, id="dimension true"),
        pytest.param([replace(W, strides=(1, 1))], 99, id="too many strides"),
        pytest.param([replace(W, strides=(-1,))], 99, id="negative stride"),
        pytest.param([replace(W, strides=(2**63,))], 99, id="stride of 2**63"),
        pytest.param([replace(W, views=(replace(_VIEW, offset=-1),))], 99, id="negative view offset"),
        pytest.param([replace(W, views=(replace(_VIEW, offset=2**63),))], 99, id="view offset of 2**63"),
        pytest.param([replace(W, views=(replace(_VIEW, shape=(-1,)),))], 99, id="negative view dimension"),
        pytest.param([replace(W, views=(replace(_VIEW, shape=(1,) * 65),))], 99, id="view of 65 dimensions"),
        pytest.param([replace(W, views=(replace(_VIEW, strides=()),))], 99, id="view with too few strides"),
        pytest.param([replace(W, views=(replace(_VIEW, dtype="\n"),))], 99, id="view dtype that is no word"),
        pytest.param(
            [replace(W, views=tuple(View(f"v{i}", "F32", (1,)) for i in range(65_537)))], 99, id="65,537 views"
        ),
        pytest.param(
            [replace(W, views=tuple(View(f"v{i}", "F32", (2**62,) * 64) for i in range(60_000)))],
            99,
            id="manifest above 64 MiB by its shapes",
        ),
        pytest.param(
            [Span("\0" * 4000 + str(i), i, 1, "U8", (1,)) for i in range(3000)],
            9000,
            id="manifest above 64 MiB by its names",
        ),
        pytest.param(
            [Span(str(i), i * MIB, 1, "U8", (1,)) for i in range(50)],
            50 * MIB,
            id="skeleton above 48 MiB",
        ),
    ],
)
def test_spans_that_no_layout_can_hold_are_refused(spans: Sequence[Span], size: int) -> None:
    with pytest.raises(FormatError) as caught:
        layout.cover(spans, size)
    assert len(str(caught.value)) < 500


def test_the_tensors_of_a_file_fit_into_its_manifest() -> None:
    """A hundred thousand small ones are kept apart, with long names, at places that take many digits."""
    name = "model.layers.{:03}.block_sparse_moe.experts.{:03}.gate_up_proj.weight_scale_inv"
    names = [name.format(number // 1000, number % 1000) for number in range(100_000)]
    spans = [Span(one, 256 * number, 256, "F8_E5M2FNUZ", (16, 16)) for number, one in enumerate(names)]
    covered = layout.cover(spans, 256 * len(spans))
    piece = Piece("a" * 64, 2**30, 2**30 - 65_536, 65_535)
    records = {
        span.name: Record(span.dtype, span.shape, span.size, "b" * 64, (Step("dense", (piece,)),)) for span in covered
    }
    layout_record = Record("opaque", (9,), 9, "b" * 64, (Step("dense", (Piece("a" * 64, 9, 0, 9),)),))
    text = manifest.format(Manifest("safetensors", 256 * len(spans), "c" * 64, layout_record, records))
    assert len(text) < layout.MAX_ROWS_BYTES < MAX_MANIFEST_BYTES
    with pytest.raises(FormatError, match="make a manifest of more"):
        layout.cover([replace(span, name=span.name + "x" * 150) for span in spans], 256 * len(spans))


def test_the_text_of_a_layout() -> None:
    content = b"12345678" + b"\n\0\xff\x80" + b"tail"
    made = layout.build(layout.cover([W, Span("é\n", 12, 0, "U8", (0,))], 16), BytesSource(content))
    text = b'{"git-theta-layout":1,"parts":[[null,8],["w",4],["\\u00e9\\n",0],[null,4]]}\n12345678tail'
    assert layout.format(made) == text
    assert layout.parse(text) == made
    assert made.size == 16


@pytest.mark.parametrize("skeleton", [b"", b"\n", b"\n\n{", noise(70_000)], ids=["none", "newline", "lines", "noise"])
def test_a_skeleton_may_hold_any_bytes(skeleton: bytes) -> None:
    made = Layout((Part("a", 2**63 - 1), *([Part(None, len(skeleton))] if skeleton else [])), skeleton)
    assert layout.parse(layout.format(made)) == made


def _text(parts: object, skeleton: bytes = b"", version: object = 1, **more: object) -> bytes:
    return json.dumps({"git-theta-layout": version, "parts": parts} | more).encode() + b"\n" + skeleton


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\n", id="newline"),
        pytest.param(_text([])[:-1], id="no newline"),
        pytest.param(b"\xff" + _text([]), id="no UTF-8"),
        pytest.param(_text([])[1:], id="cut at the front"),
        pytest.param(b"[" * 100_000 + b"\n", id="nesting bomb"),
        pytest.param(b"[]\n", id="list"),
        pytest.param(b'{"parts":[]}\n', id="no version"),
        pytest.param(b'{"git-theta-layout":1}\n', id="no parts"),
        pytest.param(_text([], more=1), id="unknown key"),
        pytest.param(_text([], version=2), id="version 2"),
        pytest.param(_text([], version=True), id="version true"),
        pytest.param(_text([], version=1.0), id="version 1.0"),
        pytest.param(b'{"git-theta-layout":2,"git-theta-layout":1,"parts":[]}\n', id="version twice"),
        pytest.param(_text({}), id="parts in an object"),
        pytest.param(_text(["ab"]), id="part that is text"),
        pytest.param(_text([["a"]]), id="part without a size"),
        pytest.param(_text([["a", 1, 2]]), id="part of three items"),
        pytest.param(_text([[1, 1]]), id="name that is a number"),
        pytest.param(_text([["a", -1]]), id="negative size"),
        pytest.param(_text([["a", 2**63]]), id="size of 2**63"),
        pytest.param(_text([["a", True]]), id="size true"),
        pytest.param(_text([["a", 1.0]]), id="size 1.0"),
        pytest.param(_text([["a", None]]), id="size null"),
        pytest.param(_text([["a", 1], ["a", 1]]), id="parameter twice"),
        pytest.param(_text([[None, 2]], b"a"), id="skeleton too short"),
        pytest.param(_text([[None, 2]], b"abc"), id="skeleton too long"),
        pytest.param(_text([], b"a"), id="skeleton of no part"),
        pytest.param(_text([[None, -1], [None, 1]]), id="negative skeleton part"),
        pytest.param(_text([["a", 1], *[[None, 0]] * 1002]), id="skeleton in too many parts"),
    ],
)
def test_bytes_that_are_no_layout_are_refused(text: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        layout.parse(text)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("unit", [b"[null,0],", b'["aa",0],'], ids=bytes.decode)
@linux_only
def test_a_layout_of_128_mib_takes_bounded_memory(unit: bytes) -> None:
    program = """
import sys
from git_theta import errors, layout
unit = sys.argv[1].encode()
head = b'{"git-theta-layout":1,"parts":['
try:
    layout.parse(head + unit * ((layout.MAX_LAYOUT_BYTES - len(head) - 10) // len(unit)) + b"[null,0]]}\\n")
except errors.ManifestError:
    [peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(peak) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, unit], check=True, capture_output=True)
    assert int(done.stdout) < 768
