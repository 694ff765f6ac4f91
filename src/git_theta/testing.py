"""The test kits of plugins: a plugin's tests subclass one, hand in real examples, and must pass.

    class TestMyFormat(FormatTests):
        format = MyFormat()

        def files(self, directory: Path) -> Sequence[Example]:
            path = directory / "model.mine"
            my_framework.save({"weight": array}, path)
            return [Example(path, {"weight": Tensor("F32", (2, 3), array.tobytes())})]

A kit says what holds for every plugin. A plugin's own tests add its known bytes and its own corners. pytest is needed
to run a kit, not to import it.
"""

# ruff: noqa: S101 - a kit is made of asserts

import math
import random
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from git_theta.errors import DamagedObjectError, FormatError
from git_theta.formats.base import HEAD_SIZE_BYTES, MAX_SPANS, Format, Span
from git_theta.source import BytesSource
from git_theta.tensor import DTYPES, MAX_NAME_LENGTH, MAX_RANK, Tensor, View, check_shape, nbytes
from git_theta.testing_merges import MergeTests
from git_theta.updates.base import Update
from git_theta.updates.stream import Stream
from git_theta.value import SourceValue

__all__ = [
    "CheckedSource",
    "Example",
    "FormatTests",
    "MergeTests",
    "Tensor",
    "UpdateExample",
    "UpdateTests",
    "check_spans",
    "try_spans",
    "view_bytes",
]

_FOREIGN = {
    "empty": b"",
    "one byte": b"\0",
    "text": b"version https://git-lfs.github.com/spec/v1\n",
    "zeros": bytes(65536),
    "ones": b"\xff" * 65536,
    "empty zip": b"PK\x05\x06" + bytes(18),
    "pickle": b"\x80\x04]\x94.",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A real file, and every tensor in it by its name (`names.join` of its keys), ties under each of their names."""

    path: Path
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class CheckedSource:
    """A source over bytes that fails a test where a read leaves the file, instead of giving fewer bytes."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        self._check(offset, size)
        return self.data[offset : offset + size]

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._check(offset, len(buffer))
        buffer[:] = memoryview(self.data)[offset : offset + len(buffer)]

    def _check(self, offset: int, size: int) -> None:
        if offset < 0 or size < 0 or offset + size > len(self.data):
            raise AssertionError(f"a read of {size} bytes at {offset} leaves the file of {len(self.data)}")


class FormatTests:
    """What every checkpoint format does. Subclasses set `format` and give `files`; small files keep the kit fast."""

    format: Format
    corruptions = 300
    """How many random corruptions of each file are tried."""
    time_limit_s = 5.0
    memory_limit_bytes = 64 << 20

    def files(self, directory: Path) -> Sequence[Example]:
        """Real files, written into `directory` by the framework whose format it is."""
        raise NotImplementedError

    def test_it_has_a_plain_name(self) -> None:
        name = self.format.name
        assert name, "a format has a name"
        assert all(char in "abcdefghijklmnopqrstuvwxyz0123456789-" for char in name), name

    def test_it_accepts_its_own_files(self, tmp_path: Path) -> None:
        for example in self._examples(tmp_path):
            head = example.path.read_bytes()[:HEAD_SIZE_BYTES]
            assert self.format.accepts(head), example.path

    def test_spans_keep_the_rules(self, tmp_path: Path) -> None:
        for example in self._examples(tmp_path):
            data = example.path.read_bytes()
            check_spans(self.format.spans(CheckedSource(data)), len(data))

    def test_spans_hold_the_producers_bytes(self, tmp_path: Path) -> None:
        for example in self._examples(tmp_path):
            data = example.path.read_bytes()
            found = dict(_tensors(self.format.spans(CheckedSource(data)), data))
            assert sorted(found) == sorted(example.tensors), example.path
            for name, expected in example.tensors.items():
                assert found[name] == expected, f"{example.path}: {name}"

    def test_equal_files_have_equal_spans(self, tmp_path: Path) -> None:
        for example in self._examples(tmp_path):
            source = CheckedSource(example.path.read_bytes())
            assert list(self.format.spans(source)) == list(self.format.spans(source)), example.path

    def test_a_cut_file_is_refused_or_kept_in_bounds(self, tmp_path: Path) -> None:
        for example in self._examples(tmp_path):
            data = example.path.read_bytes()
            for size in _cuts(len(data)):
                self._try(data[:size])

    def test_a_corrupt_file_is_refused_or_kept_in_bounds(self, tmp_path: Path) -> None:
        for example in self._examples(tmp_path):
            data = example.path.read_bytes()
            numbers = random.Random(len(data))  # noqa: S311 - the same corruptions in each run
            for _ in range(self.corruptions):
                self._try(_corrupt(data, numbers))

    def test_a_foreign_file_is_refused(self) -> None:
        for kind, data in _FOREIGN.items():
            assert not self._try(data), f"a file of {kind} is taken for {self.format.name}"

    def test_memory_and_time_are_bounded(self, tmp_path: Path) -> None:
        for example in self._examples(tmp_path):
            data = example.path.read_bytes()
            numbers = random.Random(len(data))  # noqa: S311 - the same corruptions in each run
            tracemalloc.start()
            try:
                for _ in range(max(1, self.corruptions // 10)):
                    self._try(_corrupt(data, numbers))
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak_bytes < self.memory_limit_bytes + 4 * len(data), example.path

    def _examples(self, directory: Path) -> Sequence[Example]:
        examples = self.files(directory)
        assert examples, "the kit needs at least one example"
        return examples

    def _try(self, data: bytes) -> bool:
        """Whether the format takes the bytes for its own, in bounded time."""
        started_s = time.monotonic()
        taken = self.format.accepts(data[:HEAD_SIZE_BYTES]) and try_spans(self.format, data) is not None
        assert time.monotonic() - started_s < self.time_limit_s, f"{len(data)} bytes take too long"
        return taken


@dataclass(frozen=True, slots=True)
class UpdateExample:
    """A value that an update is made for, and the values that it builds on."""

    value: Tensor
    bases: tuple[Tensor, ...] = ()


class UpdateTests:
    """What every update does. Subclasses set `update` and give `examples`; small values keep the kit fast."""

    update: Update
    corruptions = 200
    """How many random corruptions of each payload are tried."""
    memory_limit_bytes = 64 << 20

    def examples(self) -> Sequence[UpdateExample]:
        """Values that the update must store in fewer bytes than they have."""
        raise NotImplementedError

    def test_it_has_a_plain_name(self) -> None:
        name = self.update.name
        assert name, "an update has a name"
        assert all(char in "abcdefghijklmnopqrstuvwxyz0123456789-" for char in name), name

    def test_its_examples_shrink_and_come_back(self) -> None:
        for example in self._examples():
            payload = self._encoded(example)
            assert payload is not None
            assert len(payload) < len(example.value.data)
            assert self._decoded(payload, example) == example.value.data

    def test_whatever_it_encodes_comes_back(self) -> None:
        numbers = random.Random(0)  # noqa: S311 - the same values in each run
        for dtype, row in DTYPES.items():
            for count in (0, 1, 7, 1000):
                data, other = numbers.randbytes(count * max(8, row.bits)), numbers.randbytes(count * max(8, row.bits))
                shape = (len(data) * 8 // row.bits,)
                for old in (data, other, data[: len(data) // 2], other * 2):
                    bases = (Tensor(dtype, (len(old) * 8 // row.bits,), old),) * self.update.bases
                    example = UpdateExample(Tensor(dtype, shape, data), bases)
                    payload = self._encoded(example)
                    assert payload is None or self._decoded(payload, example) == data, dtype

    def test_a_payload_that_is_cut_or_corrupt_is_damage(self) -> None:
        """Other bytes may come of it, never more than the value has, nor another error, nor much memory."""
        for example in self._examples():
            payload = self._encoded(example)
            assert payload is not None
            numbers = random.Random(len(payload))  # noqa: S311 - the same corruptions in each run
            damaged = [payload[:size] for size in _cuts(len(payload))]
            damaged += [_corrupt(payload or b"\0", numbers) for _ in range(self.corruptions)]
            tracemalloc.start()
            try:
                for given in damaged:
                    with suppress(DamagedObjectError):
                        assert len(self._decoded(given, example)) <= len(example.value.data)
                _, peak_bytes = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak_bytes < self.memory_limit_bytes + 16 * len(example.value.data)

    def _examples(self) -> Sequence[UpdateExample]:
        examples = self.examples()
        assert examples, "the kit needs at least one example"
        return examples

    def _encoded(self, example: UpdateExample) -> bytes | None:
        value = example.value
        given = SourceValue(CheckedSource(value.data), 0, len(value.data), value.dtype, value.shape)
        runs = self.update.encode(given, _streams(example))
        return None if runs is None else b"".join(runs)

    def _decoded(self, payload: bytes, example: UpdateExample) -> bytes:
        return b"".join(self.update.decode(BytesSource(payload), len(example.value.data), _streams(example)))


def _streams(example: UpdateExample) -> list[Stream]:
    """The bases, in runs as uneven as they may be."""
    return [
        Stream(base.dtype, base.shape, len(base.data), _uneven(base.data) if base.data else iter(()))
        for base in example.bases
    ]


def _uneven(data: bytes) -> Iterator[bytes]:
    yield data[:1]
    yield data[1:1001]
    yield data[1001:]


def try_spans(format: Format, data: bytes) -> Sequence[Span] | None:
    """The spans that the format finds, which must keep the rules; None if it refuses the bytes with FormatError."""
    try:
        spans = format.spans(CheckedSource(data))
    except FormatError:
        return None
    check_spans(spans, len(data))
    return spans


def check_spans(spans: Sequence[Span], size: int) -> None:
    """Fail unless the spans keep the rules of `formats.base.Span` in a file of `size` bytes."""
    names: set[str] = set()
    end = 0
    assert len(spans) <= MAX_SPANS
    for span in sorted(spans, key=lambda span: (span.offset, span.size)):
        assert span.size >= 0, span
        assert end <= span.offset <= size - span.size, f"{span} overlaps another or leaves the file of {size}"
        end = span.offset + span.size
        check_shape(span.dtype, span.shape, span.size)
        for name in (span.name, *(view.name for view in span.views)):
            assert name not in names, f"the name {name!r} is there twice"
            assert len(name) <= MAX_NAME_LENGTH
            name.encode()  # a lone surrogate cannot be written to a manifest
            names.add(name)
        if span.strides is not None:
            places = _places(span.shape, 0, span.strides)
            assert sorted(places) == list(range(len(places))), f"{span} has an element twice, or not at all"
        for view in span.views:
            _check_view(view, span.size)


def _check_view(view: View, size: int) -> None:
    """Fail unless the view lies within a span of `size` bytes; of a dtype outside of our table, nothing is known."""
    assert len(view.shape) <= MAX_RANK
    assert all(dim >= 0 for dim in view.shape)
    assert view.offset >= 0
    if view.dtype not in DTYPES or 0 in view.shape:
        return
    bits = DTYPES[view.dtype].bits
    if view.strides is None:
        count = math.prod(view.shape)
    else:
        assert len(view.strides) == len(view.shape)
        assert all(stride >= 0 for stride in view.strides)
        count = 1 + sum((dim - 1) * stride for dim, stride in zip(view.shape, view.strides, strict=True))
    assert (view.offset + count) * bits <= 8 * size, f"{view} leaves its span of {size} bytes"


def view_bytes(view: View, data: bytes) -> bytes:
    """The elements of a view in C order, from its span's bytes. Slow: for tests."""
    width = DTYPES[view.dtype].bits // 8
    if view.strides is None:
        return _slice(data, view.offset * DTYPES[view.dtype].bits // 8, nbytes(view.dtype, view.shape))
    places = _places(view.shape, view.offset, view.strides)
    return b"".join(_slice(data, place * width, width) for place in places)


def _tensors(spans: Sequence[Span], data: bytes) -> Iterator[tuple[str, Tensor]]:
    """Each tensor under each of its names; a storage that is no single tensor has none of its own."""
    for span in spans:
        own = data[span.offset : span.offset + span.size]
        if not span.name.endswith("~storage"):
            if span.strides is None:
                yield span.name, Tensor(span.dtype, span.shape, own)
            else:
                whole = View(span.name, span.dtype, span.shape, 0, span.strides)
                yield span.name, Tensor(span.dtype, span.shape, view_bytes(whole, own))
        for view in span.views:
            yield view.name, Tensor(view.dtype, view.shape, view_bytes(view, own))


def _slice(data: bytes, offset: int, size: int) -> bytes:
    assert 0 <= offset <= len(data) - size, f"a view of {size} bytes at {offset} leaves its span of {len(data)}"
    return data[offset : offset + size]


def _places(shape: tuple[int, ...], offset: int, strides: tuple[int, ...]) -> list[int]:
    """The place of each element, in C order."""
    assert len(shape) == len(strides)
    places = [offset]
    for dim, stride in zip(shape, strides, strict=True):
        places = [place + index * stride for place in places for index in range(dim)]
    return places


def _cuts(size: int) -> Sequence[int]:
    """Where a file is cut: everywhere at its ends, and at 200 places between."""
    return sorted({*range(min(size, 100)), *range(max(0, size - 100), size), *range(0, size, max(1, size // 200))})


def _corrupt(data: bytes, numbers: random.Random) -> bytes:
    """The bytes with a few of them changed, a run of them lost, doubled or zeroed, or an extreme number put in."""
    damaged = bytearray(data)
    at = numbers.randrange(len(damaged))
    run = slice(at, at + numbers.choice((1, 2, 4, 8, 64, 1024)))
    match numbers.randrange(6):
        case 0:
            for _ in range(numbers.randrange(1, 9)):
                damaged[numbers.randrange(len(damaged))] = numbers.randrange(256)
        case 1:
            del damaged[run]
        case 2:
            damaged[at:at] = damaged[run]
        case 3:
            damaged[run] = bytes(len(damaged[run]))
        case 4:
            width = numbers.choice((2, 4, 8))
            damaged[at : at + width] = numbers.choice((b"\xff", b"\x7f", b"\x80")) * width
        case _:
            damaged[at] ^= 1 << numbers.randrange(8)
    return bytes(damaged)
