"""Laws: what is written can be read, what comes from anyone is read or refused, and a file is the file that went in."""

import json
import string
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from git_theta import layout, manifest, plugins, rebuild
from git_theta.config import Settings
from git_theta.errors import DamagedObjectError, FormatError, ManifestError
from git_theta.formats.base import Span
from git_theta.layout import Layout, Part
from git_theta.manifest import Manifest, Piece, Record, Step
from git_theta.source import BytesSource, Source
from git_theta.tensor import DTYPES, View, nbytes
from git_theta.updates.dense import DENSE
from git_theta.value import SourceValue
from tests.checkpoints import brain_weights, content_of, noise, opened, take, weights

LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

COUNTS = st.one_of(st.integers(0, 9), st.integers(0, 2**63 - 1), st.just(2**63 - 1))
HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
WORDS = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)
# Two surrogates that make up a character are that character once they have been JSON.
NAMES = st.one_of(st.text(max_size=30), st.text(string.printable, max_size=9), st.text("\ud800x", max_size=4))
NEW_DTYPES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,31}", fullmatch=True).filter(lambda name: name not in DTYPES)
SHAPES = st.lists(COUNTS, max_size=5).map(tuple)


@st.composite
def pieces(draw: st.DrawFn, objects: dict[str, int]) -> Piece:
    oid, size = draw(st.sampled_from(sorted(objects.items())))
    offset = draw(st.integers(0, size))
    return draw(
        st.sampled_from([Piece(oid, size, 0, size), Piece(oid, size, offset, draw(st.integers(0, size - offset)))])
    )


@st.composite
def steps(draw: st.DrawFn, objects: dict[str, int]) -> tuple[Step, ...]:
    made: list[Step] = []
    for index in range(draw(st.integers(1, 4))):
        bases = draw(st.lists(st.integers(0, index - 1), max_size=3)) if index else []
        dtype = draw(st.one_of(st.none(), st.sampled_from(sorted(DTYPES)), NEW_DTYPES))
        parts = draw(st.lists(pieces(objects), max_size=3))
        made.append(Step(draw(WORDS), tuple(parts), tuple(bases), dtype, draw(st.one_of(st.none(), SHAPES))))
    return tuple(made)


@st.composite
def strides(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    given_ = st.lists(COUNTS, min_size=len(shape), max_size=len(shape)).map(tuple)
    return draw(st.one_of(st.none(), given_))


@st.composite
def records(draw: st.DrawFn, objects: dict[str, int]) -> Record:
    dtype = draw(st.one_of(st.sampled_from(sorted(DTYPES)), NEW_DTYPES))
    shape = draw(SHAPES)
    size = draw(COUNTS)
    if dtype in DTYPES:
        try:
            size = nbytes(dtype, shape)
        except FormatError:
            shape = (8 * size % 2**20,)
            size = nbytes(dtype, shape)
    views = []
    for name in draw(st.lists(NAMES, max_size=3)):
        face = draw(SHAPES)
        views.append(View(name, draw(st.sampled_from(["F32", dtype])), face, draw(COUNTS), draw(strides(face))))
    return Record(dtype, shape, size, draw(HASHES), draw(steps(objects)), draw(strides(shape)), tuple(views))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    objects = draw(st.dictionaries(HASHES, COUNTS, min_size=1, max_size=4))
    size = draw(COUNTS)
    row = Record("opaque", (size,), size, draw(HASHES), draw(steps(objects)))
    return Manifest(
        draw(WORDS), draw(COUNTS), draw(HASHES), row, draw(st.dictionaries(NAMES, records(objects), max_size=4))
    )


@given(manifests())
@LAW
def test_a_manifest_that_is_written_is_read(made: Manifest) -> None:
    text = manifest.format(made)
    assert manifest.parse(text) == made
    assert manifest.format(manifest.parse(text)) == text
    assert text.isascii()
    assert text.count(b"\n") == 5 + len(made.parameters)
    assert manifest.looks_like(text)
    assert not manifest.has_conflict_markers(text)


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["F32", "a" * 64]))
JSON = st.recursive(PLAIN, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=9)


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A manifest in which one value is another."""
    root = json.loads(manifest.format(draw(manifests())))
    at = root
    while True:
        keys = list(at) if isinstance(at, dict) else range(len(at))
        key = draw(st.sampled_from(keys))
        inner = at[key]
        if not inner or not isinstance(inner, dict | list) or draw(st.integers(0, 4)) == 0:
            at[key] = draw(JSON)
            return json.dumps(root).encode()
        at = inner


@given(st.one_of(bent(), JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=200)))
@LAW
def test_any_text_is_a_manifest_or_refused_in_one_line(text: bytes) -> None:
    try:
        made = manifest.parse(text)
    except ManifestError as error:
        _expect_one_line(error)
    else:
        assert manifest.parse(manifest.format(made)) == made


def _expect_one_line(error: ManifestError) -> None:
    assert str(error).isprintable()
    assert str(error).isascii()
    assert len(str(error)) < 700


@given(manifests(), st.data())
@LAW
def test_a_damaged_text_is_refused_or_means_what_it_says(made: Manifest, data: st.DataObject) -> None:
    text = bytearray(manifest.format(made))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        read = manifest.parse(bytes(text))
    except ManifestError as error:
        _expect_one_line(error)
    else:
        assert manifest.parse(manifest.format(read)) == read


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    runs = [Part(None, size) for size in draw(st.lists(st.integers(0, 9), max_size=5))]
    parts = draw(st.permutations([*(Part(name, draw(COUNTS)) for name in names), *runs]))
    return Layout(tuple(parts), noise(sum(run.size for run in runs)))


@given(layouts())
@LAW
def test_a_layout_that_is_written_is_read(made: Layout) -> None:
    assert layout.parse(layout.format(made)) == made


@given(layouts(), JSON, st.data())
@LAW
def test_any_bytes_are_a_layout_or_refused(made: Layout, value: object, data: st.DataObject) -> None:
    text = bytearray(layout.format(made))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    for bytes_ in (bytes(text), json.dumps({"git-theta-layout": 1, "parts": value}).encode() + b"\n" + made.skeleton):
        try:
            read = layout.parse(bytes_)
        except ManifestError as error:
            _expect_one_line(error)
        else:
            assert layout.parse(layout.format(read)) == read


PATTERNS = {
    2: [0, 0x8000, 1, 0x8001, 0x03FF, 0x7C00, 0xFC00, 0x7C01, 0xFE55, 0x7F80, 0xFF80, 0x7F81, 0x7FC0, 0xFFFF],
    4: [0, 1 << 31, 1, 0x007FFFFF, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFC12345, 0x3F800000, 0xFFFFFFFF],
    8: [0, 1 << 63, 1, 0x7FF << 52, 0xFFF << 52, (0x7FF << 52) + 1, 0x7FF8 << 48, 0x3FF << 52, (1 << 64) - 1],
}  # fmt: skip
"""Zeros, subnormals, infinities and NaNs with payloads, of F16, BF16, F32 and F64."""


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """Runs of weights, noise, zeros and special floats, above what is coded at all and of any size."""
    word = draw(st.sampled_from([2, 4, 8]))
    special = b"".join(draw(st.permutations([pattern.to_bytes(word, "little") for pattern in PATTERNS[word]])))
    runs: dict[str, Callable[[int, int], bytes]] = {
        "weights": lambda size, seed: weights(size // 4 + 1, seed),
        "brain": lambda size, seed: brain_weights(size // 2 + 1, seed),
        "noise": noise,
        "zeros": lambda size, _: bytes(size),
        "special": lambda size, _: special * (size // len(special) + 1),
        "few": lambda size, seed: struct.pack("<q", seed) * (size // 8 + 1),
    }
    kinds = draw(st.lists(st.sampled_from(sorted(runs)), min_size=1, max_size=4))
    made = b"".join(runs[kind](draw(st.integers(0, 30_000)), draw(st.integers(0, 9))) for kind in kinds)
    return made[draw(st.integers(0, 9)) :]


@given(st.sampled_from([*sorted(DTYPES), "new"]), values())
@settings(LAW, max_examples=200)
def test_decode_undoes_encode(dtype: str, data: bytes) -> None:
    runs = DENSE.encode(SourceValue(BytesSource(data), 0, len(data), dtype, (len(data),)))
    if runs is None:
        return
    payload = b"".join(runs)
    if len(payload) < len(data):  # otherwise the core stores the value itself
        assert b"".join(DENSE.decode(BytesSource(payload), len(data))) == data


@given(values(), st.sampled_from(["F32", "BF16", "F64", "U8"]), st.data())
@LAW
def test_a_damaged_payload_is_refused_or_as_long_as_its_value(data_: bytes, dtype: str, data: st.DataObject) -> None:
    runs = DENSE.encode(SourceValue(BytesSource(data_), 0, len(data_), dtype, (len(data_),)))
    payload = bytearray(b"".join(runs) if runs is not None else data_)
    if not payload:
        return
    for _ in range(data.draw(st.integers(1, 3))):
        head = data.draw(st.booleans())
        at = data.draw(st.integers(0, min(40, len(payload) - 1) if head else len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del payload[data.draw(st.integers(0, len(payload))) :]
    try:
        decoded = b"".join(DENSE.decode(BytesSource(bytes(payload)), len(data_)))
    except DamagedObjectError:
        return
    assert len(decoded) == len(data_)


@given(st.binary(max_size=60), st.one_of(st.integers(0, 100), st.integers(0, 2**63 - 1)))
@example(b"", 0)
@example(b"\x01\0\0\0\x01\0\x01\0\x01\0\0\0a", 2**62)
@LAW
def test_any_payload_is_refused_or_as_long_as_its_value(payload: bytes, size: int) -> None:
    done = 0
    try:
        for run in DENSE.decode(BytesSource(payload), size):
            done += len(run)
    except DamagedObjectError:
        assert done <= size
    else:
        assert done == size


class _Cut:
    """A format that cuts every file as it is told to."""

    name = "cut"

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans

    def accepts(self, head: bytes) -> bool:
        return True

    def spans(self, source: Source) -> Sequence[Span]:
        return self._spans


@st.composite
def cuts(draw: st.DrawFn) -> tuple[bytes, list[Span]]:
    """A file and a sound way to cut it."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 8, 4096, 70_000]), max_size=8))
    dtypes = [name for name, dtype in DTYPES.items() if dtype.bits == 8]
    ends = list(accumulate(sizes))
    spans = [
        Span(f"p{index}", end - size, size, draw(st.sampled_from(dtypes)), (size,), draw(strides((size,))))
        for index, (size, end) in enumerate(zip(sizes, ends, strict=True))
        if draw(st.booleans())
    ]
    content = b"".join(noise(size, index % 3) for index, size in enumerate(sizes))
    return content, draw(st.permutations(spans))


def _bend(span: Span, field: str, value: object) -> Span:
    return replace(span, **{field: value})  # type: ignore[arg-type]  # a plugin may hand in anything


ODD = st.one_of(
    st.integers(-1, 2**65), NAMES, st.lists(st.integers(-1, 2**65), max_size=66).map(tuple), st.none(), st.floats(),
    st.builds(lambda *parts: (View(*parts),), NAMES, NAMES, SHAPES, st.integers(-1, 2**65), SHAPES),
)  # fmt: skip


def _taken(content: bytes, spans: Sequence[Span], made_of: Callable[[Manifest], None]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(plugins, "formats", lambda: iter([_Cut(spans)])),
        opened(Path(folder), Settings(threads=2, max_object_bytes=2**16)) as depot,
    ):
        made = take(content, depot)
        made_of(made)
        read = manifest.parse(manifest.format(made))
        assert read == made
        assert content_of(read, depot) == content
        assert take(content, depot) == made


@given(cuts())
@settings(LAW, max_examples=40)
def test_however_a_file_is_cut_it_comes_back(cut: tuple[bytes, list[Span]]) -> None:
    content, spans = cut

    def check(made: Manifest) -> None:
        assert made.format == "cut"
        assert set(made.parameters) == {span.name for span in spans}

    _taken(content, spans, check)


@given(
    cuts(),
    st.sampled_from(["name", "offset", "size", "dtype", "shape", "strides", "views"]),
    ODD,
    st.integers(0, 9),
)
@settings(LAW, max_examples=60)
def test_whatever_a_format_says_the_file_comes_back(
    cut: tuple[bytes, list[Span]], field: str, value: object, which: int
) -> None:
    content, spans = cut
    bent_ = [_bend(span, field, value) if index == which % len(spans) else span for index, span in enumerate(spans)]
    _taken(content, bent_, lambda made: None)


def test_a_rebuilt_layout_is_the_one_that_was_taken() -> None:
    """The laws above look at what comes out; this one looks at the cut itself."""
    content = noise(100_000)
    spans = [Span("a", 10, 70_000, "U8", (70_000,)), Span("b", 80_000, 5, "U8", (5,))]
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(plugins, "formats", lambda: iter([_Cut(spans)])),
        opened(Path(folder)) as depot,
    ):
        cut = rebuild.read_layout(take(content, depot), depot)
    assert cut.parts == (Part(None, 10), Part("a", 70_000), Part(None, 9990), Part("b", 5), Part(None, 19_995))
    assert cut.skeleton == content[:10] + content[70_010:80_000] + content[80_005:]
