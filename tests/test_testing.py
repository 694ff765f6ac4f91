"""The kits for plugins: a plugin that breaks a rule must fail them."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from git_theta.errors import ConfigError, FormatError
from git_theta.formats.base import Format, Span
from git_theta.merges.base import Array, Inputs, Namespace, Option, Options, Strategy
from git_theta.source import Source
from git_theta.tensor import View
from git_theta.testing import CheckedSource, Example, FormatTests, MergeTests, Tensor, check_spans, view_bytes

_MAGIC = b"SIMPLE"
_GOOD = Span("w", 8, 8, "U8", (8,))


class Simple:
    """A format of a magic string, two bytes and eight of data; `spans` is what it says of them."""

    name = "simple"

    def __init__(self, *spans: Span) -> None:
        self._spans = spans or (_GOOD,)

    def accepts(self, head: bytes) -> bool:
        return head.startswith(_MAGIC)

    def spans(self, source: Source) -> Sequence[Span]:
        if source.size < 16 or source.read(0, 6) != _MAGIC:
            raise FormatError("simple: no magic string")
        return self._spans


class Kit(FormatTests):
    """The kit for one format; not collected by pytest, as its name does not begin with Test."""

    corruptions = 20

    def __init__(self, format: Format) -> None:
        self.format = format

    def files(self, directory: Path) -> Sequence[Example]:
        path = directory / "example"
        path.write_bytes(_MAGIC + b"\0\0" + bytes(range(8)))
        return [Example(path, {"w": Tensor("U8", (8,), bytes(range(8)))})]


def _run(kit: Kit, directory: Path) -> None:
    for name in dir(kit):
        if name.startswith("test_"):
            test: Callable[..., None] = getattr(kit, name)
            arguments = [directory] if "tmp_path" in test.__annotations__ else []
            test(*arguments)


def test_a_good_format_passes(tmp_path: Path) -> None:
    _run(Kit(Simple()), tmp_path)


@pytest.mark.parametrize(
    "spans",
    [
        pytest.param([Span("w", 9, 8, "U8", (8,))], id="leaves the file"),
        pytest.param([Span("w", -1, 8, "U8", (8,))], id="before the file"),
        pytest.param([Span("w", 7, 8, "U8", (8,))], id="other bytes"),
        pytest.param([Span("v", 8, 8, "U8", (8,))], id="another name"),
        pytest.param([Span("w", 8, 8, "I8", (8,))], id="another dtype"),
        pytest.param([Span("w", 8, 8, "U8", (2, 4))], id="another shape"),
        pytest.param([_GOOD, Span("x", 0, 2, "U8", (2,))], id="a tensor too many"),
        pytest.param([Span("w", 8, 8, "U8", (8,), (2,))], id="strides that leave it"),
        pytest.param([Span("w", 8, 8, "U8", (8,), (0,))], id="strides that repeat an element"),
        pytest.param([Span("w", 8, 8, "U8", (8,), views=(View("x", "U8", (9,)),))], id="view that leaves it"),
    ],
)
def test_a_format_that_is_wrong_fails(spans: Sequence[Span], tmp_path: Path) -> None:
    with pytest.raises((AssertionError, FormatError)):
        _run(Kit(Simple(*spans)), tmp_path)


def test_a_format_that_takes_everything_fails(tmp_path: Path) -> None:
    class Greedy(Simple):
        def accepts(self, head: bytes) -> bool:
            return head is not None

        def spans(self, source: Source) -> Sequence[Span]:
            return [_GOOD] if source.size >= 16 else []

    with pytest.raises(AssertionError, match="is taken for"):
        _run(Kit(Greedy()), tmp_path)


def test_a_format_that_refuses_its_own_files_fails(tmp_path: Path) -> None:
    class Shy(Simple):
        def accepts(self, head: bytes) -> bool:
            return head is None

    with pytest.raises(AssertionError):
        _run(Kit(Shy()), tmp_path)


@pytest.mark.parametrize("error", [ValueError, IndexError, KeyError])
def test_a_format_that_raises_other_errors_fails(error: type[Exception], tmp_path: Path) -> None:
    class Careless(Simple):
        def spans(self, source: Source) -> Sequence[Span]:
            if source.size < 16:
                raise error
            return super().spans(source)

    with pytest.raises(error):
        _run(Kit(Careless()), tmp_path)


def test_a_format_that_reads_out_of_bounds_fails(tmp_path: Path) -> None:
    class Long(Simple):
        def spans(self, source: Source) -> Sequence[Span]:
            source.read(0, 16)
            return super().spans(source)

    with pytest.raises(AssertionError, match="leaves the file"):
        _run(Kit(Long()), tmp_path)


def test_a_format_that_takes_much_memory_fails(tmp_path: Path) -> None:
    class Large(Simple):
        def spans(self, source: Source) -> Sequence[Span]:
            assert len(bytearray(Kit.memory_limit_bytes + 1_000_000))
            return super().spans(source)

    with pytest.raises(AssertionError, match="example"):
        _run(Kit(Large()), tmp_path)


def test_a_format_that_is_slow_fails(tmp_path: Path) -> None:
    kit = Kit(Simple())
    kit.time_limit_s = 0
    with pytest.raises(AssertionError, match="too long"):
        _run(kit, tmp_path)


@pytest.mark.parametrize(
    "spans",
    [
        pytest.param([Span("a", 0, 4, "U8", (4,)), Span("b", 3, 4, "U8", (4,))], id="overlap"),
        pytest.param([Span("a", 0, 4, "U8", (4,)), Span("a", 4, 4, "U8", (4,))], id="name twice"),
        pytest.param([Span("a", 0, 4, "U8", (4,), views=(View("a", "U8", (4,)),))], id="view of its own name"),
        pytest.param([Span("a" * 4097, 0, 4, "U8", (4,))], id="long name"),
        pytest.param([Span("a\ud800", 0, 4, "U8", (4,))], id="name no UTF-8"),
        pytest.param([Span("a", 0, 4, "F32", (2,))], id="size differs from shape"),
        pytest.param([Span("a", 0, 4, "U8", (2, 2), (1,))], id="one stride for two dimensions"),
        pytest.param([Span("a", 0, 4, "U8", (4,), views=(View("b", "U8", (2,), 3),))], id="view behind the end"),
        pytest.param([Span("a", 0, 4, "U8", (4,), views=(View("b", "U8", (2,), -1),))], id="view before the begin"),
        pytest.param([Span("a", 0, 4, "U8", (4,), views=(View("b", "U8", (3,), 0, (2,)),))], id="view by steps"),
    ],
)
def test_check_spans_refuses(spans: Sequence[Span]) -> None:
    with pytest.raises((AssertionError, FormatError, UnicodeEncodeError)):
        check_spans(spans, 8)


def test_check_spans_takes_views_of_any_kind() -> None:
    views = (
        View("b", "I16", (2,)),
        View("c", "U8", (2**40,), 3, (0,)),
        View("d", "Q9", (7,)),
        View("e", "U8", (0,), 9),
    )
    check_spans([Span("a", 0, 4, "U8", (4,), views=views), Span("f", 4, 0, "F32", (0,))], 8)


def test_view_bytes() -> None:
    data = bytes(range(12))
    assert view_bytes(View("v", "I16", (2,), 2), data) == data[4:8]
    assert view_bytes(View("v", "U8", (3, 2), 1, (1, 3)), data) == bytes([1, 4, 2, 5, 3, 6])
    with pytest.raises(AssertionError):
        view_bytes(View("v", "U8", (3,), 10), data)


def test_checked_source() -> None:
    source = CheckedSource(b"abc")
    assert (source.size, source.read(1, 2)) == (3, b"bc")
    buffer = bytearray(2)
    source.read_into(0, memoryview(buffer))
    assert buffer == b"ab"
    with pytest.raises(AssertionError):
        source.read_into(2, memoryview(buffer))


class MergeKit(MergeTests):
    """The kit for one strategy."""

    def __init__(self, function: Callable[[Namespace, Inputs, Options], Array], **promised: object) -> None:
        self.merge = Strategy("mine", "Mine.", "", function, **promised)  # type: ignore[arg-type]  # of many types


def _mean(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    return (inputs.ours + inputs.theirs) * 0.5


def _run_merge_kit(kit: MergeKit) -> None:
    for name in dir(kit):
        if name.startswith("test_"):
            getattr(kit, name)()


def test_a_good_strategy_passes() -> None:
    kit = MergeKit(_mean, elementwise=True)
    kit.symmetric = True
    _run_merge_kit(kit)


def _centred(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    return inputs.ours - float(xp.sum(inputs.ours, dtype=xp.float64))


def _restless(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    return inputs.ours + next(_COUNTER) * 0.001


def _adding(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    inputs.sides[0][...] += 1
    return inputs.ours


def _first_row(xp: Namespace, inputs: Inputs, options: Options) -> Array:
    return inputs.ours[:1]


_COUNTER = itertools.count()


@pytest.mark.parametrize(
    "kit",
    [
        pytest.param(MergeKit(_centred, elementwise=True), id="says it is elementwise and is not"),
        pytest.param(MergeKit(_restless), id="gives something else each time"),
        pytest.param(MergeKit(_adding), id="writes to its inputs"),
        pytest.param(MergeKit(_first_row), id="gives another shape"),
        pytest.param(
            MergeKit(lambda xp, inputs, options: xp.astype(inputs.ours, xp.float64)), id="gives another dtype"
        ),
        pytest.param(
            MergeKit(lambda xp, inputs, options: inputs.ours - inputs.base), id="needs a base and does not say so"
        ),
        pytest.param(
            MergeKit(_mean, finite=False, kinds=frozenset({"float", "integer"})), id="makes floats of integers"
        ),
        pytest.param(
            MergeKit(_mean, options=(Option("t", 2.0, "How far.", most=1),)), id="a default out of its bounds"
        ),
        pytest.param(MergeKit(_mean, options=(Option("t", 0.5, ""),)), id="an option without a word on it"),
        pytest.param(MergeKit(_mean, files={"one": "two\nlines"}), id="a line that is two"),
    ],
)
def test_a_strategy_that_is_wrong_fails(kit: MergeKit) -> None:
    with pytest.raises((AssertionError, TypeError, ValueError, ConfigError)):
        _run_merge_kit(kit)


@pytest.mark.parametrize("promise", ["one_sided", "symmetric"])
def test_a_strategy_that_breaks_its_promise_fails(promise: str) -> None:
    kit = MergeKit(lambda xp, inputs, options: inputs.ours * 0.75 + inputs.theirs * 0.25)
    _run_merge_kit(kit)
    setattr(kit, promise, True)
    with pytest.raises(AssertionError):
        _run_merge_kit(kit)
