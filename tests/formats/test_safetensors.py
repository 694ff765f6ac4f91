"""The safetensors format: real files of the library, and headers that lie."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import FormatError
from git_theta.formats.base import HEAD_SIZE_BYTES, Span
from git_theta.formats.safetensors import FORMAT, MAX_HEADER_BYTES
from git_theta.source import BytesSource
from git_theta.testing import Example, FormatTests, Tensor, try_spans
from tests.formats import torch_producer as producer

_UNSAVED = (torch.complex32, torch.complex128)  # dtypes that the library does not write


class TestSafetensorsFormat(FormatTests):
    format = FORMAT

    def files(self, directory: Path) -> Sequence[Example]:
        plain = {str(dtype): producer.numbered(3, 2, dtype=dtype) for dtype in producer.DTYPES if dtype not in _UNSAVED}
        odd = {"a/b~c": producer.numbered(2), "0": producer.numbered(3), "": producer.numbered(4)}
        small = {"empty": torch.empty(0, 3), "scalar": producer.numbered()}
        safetensors.torch.save_file(plain, directory / "dtypes.safetensors")
        safetensors.torch.save_file(odd | small, directory / "odd.safetensors", metadata={"format": "pt", "a": "b"})
        x, y = np.arange(6, dtype=np.float64).reshape(2, 3), np.arange(3, dtype=np.uint16)
        safetensors.numpy.save_file({"x": x, "y": y}, directory / "numpy.safetensors")
        return [
            Example(directory / "dtypes.safetensors", producer.named(plain)),
            Example(directory / "odd.safetensors", producer.named(odd | small)),
            Example(
                directory / "numpy.safetensors",
                {"x": Tensor("F64", (2, 3), x.tobytes()), "y": Tensor("U16", (3,), y.tobytes())},
            ),
        ]


def _file(header: object, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _line(begin: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, object]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def _spans(data: bytes) -> Sequence[Span]:
    assert FORMAT.accepts(data[:HEAD_SIZE_BYTES])
    return FORMAT.spans(BytesSource(data))


def test_known_bytes() -> None:
    header = b'{"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
    data = b"\x51\0\0\0\0\0\0\0" + header + b"\0\0\x80\x3f\0\0\0\x40"
    assert _spans(data) == [Span("w", 8 + 0x51, 8, "F32", (1, 2))]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({}, id="no tensors"),
        pytest.param(b"  {}  ", id="spaces around"),
        pytest.param({"a": _line(0, 8) | {"more": [1, {"x": None}]}}, id="extra field"),
        pytest.param({"a": _line(8, 16), "b": _line(32, 40)}, id="gaps"),
        pytest.param({"a": _line(0, 8), "b": _line(8, 8), "c": _line(8, 16)}, id="zero-size tensor between"),
        pytest.param({"a": _line(64, 64, "F32", [0, 2**40])}, id="zero-size tensor at the end"),
        pytest.param({"a": _line(0, 8), "__metadata__": {"format": "pt"}}, id="metadata"),
        pytest.param({"a": _line(0, 3, "F4", [2, 3])}, id="4-bit floats"),
    ],
)
def test_header_is_taken(header: object) -> None:
    count = len([key for key in (header if isinstance(header, dict) else {}) if key != "__metadata__"])
    assert len(_spans(_file(header))) == count


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(_line(0, 9, "F3", [3]), ("F3", (3,)), id="dtype of a newer library"),
        pytest.param(_line(0, 9, "opaque", [3]), ("opaque", (9,)), id="our own word"),
    ],
)
def test_unknown_dtype_is_kept(line: object, expected: tuple[str, tuple[int, ...]]) -> None:
    (span,) = _spans(_file({"a": line}))
    assert (span.dtype, span.shape) == expected
    assert span.size == 9


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}}", id="trailing text"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"a": ', id="cut"),
        pytest.param(b'{"a\xff": 1}', id="no UTF-8"),
        pytest.param(b'{"a":' * 100_000, id="deeply nested objects"),
        pytest.param(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", id="deeply nested lists"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="huge number"),
        pytest.param(b'{"a":' + json.dumps(_line(0, 8)).encode() + b',"a":1}', id="key twice"),
        pytest.param(b'{"a":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}}', id="field twice"),
        pytest.param({"a": 1}, id="a number for a tensor"),
        pytest.param({"a": {"dtype": "U8", "shape": [8]}}, id="no offsets"),
        pytest.param({"a": {"shape": [8], "data_offsets": [0, 8]}}, id="no dtype"),
        pytest.param({"a": _line(0, 8) | {"data_offsets": [0]}}, id="one offset"),
        pytest.param({"a": _line(0, 8) | {"data_offsets": [0, 8, 8]}}, id="three offsets"),
        pytest.param({"a": _line(0, 8) | {"data_offsets": [0, 8.0]}}, id="float offset"),
        pytest.param({"a": _line(0, 1) | {"data_offsets": [False, True]}}, id="bool offset"),
        pytest.param({"a": _line(8, 0, "U8", [0])}, id="end before begin"),
        pytest.param({"a": _line(-8, 0)}, id="negative begin"),
        pytest.param({"a": _line(0, 65)}, id="one byte behind the end"),
        pytest.param({"a": _line(0, 2**63)}, id="2**63"),
        pytest.param({"a": _line(0, 2**70)}, id="2**70"),
        pytest.param({"a": _line(0, 8, "F32", [3])}, id="size differs from shape"),
        pytest.param({"a": _line(0, 8, "F32", [-2, -1])}, id="negative dimensions"),
        pytest.param({"a": _line(0, 8, "F32", [2**62, 4])}, id="shape that wraps round"),
        pytest.param({"a": _line(0, 1, "U8", [1] * 65)}, id="rank 65"),
        pytest.param({"a": _line(0, 1, "F4", [1])}, id="half a byte"),
        pytest.param({"a": _line(0, 8), "b": _line(7, 15)}, id="overlap"),
        pytest.param({"a": _line(0, 8), "b": _line(0, 8)}, id="same bytes"),
        pytest.param({"a": _line(0, 8), "b": _line(4, 4)}, id="zero-size tensor within another"),
        pytest.param({"a" * 5000: _line(0, 8)}, id="long name"),
        pytest.param({"a": _line(0, 8, "no dtype!")}, id="dtype that is no word"),
    ],
)
def test_header_is_refused(header: object) -> None:
    with pytest.raises(FormatError):
        FORMAT.spans(BytesSource(_file(header)))


@pytest.mark.parametrize("size", [0, 1, 3, 65, MAX_HEADER_BYTES + 1, 2**32, 2**63, 2**64 - 1])
def test_header_length_that_lies_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        FORMAT.spans(BytesSource(size.to_bytes(8, "little") + b"{}" + bytes(62)))


def test_a_huge_header_is_not_read() -> None:
    class Huge:
        size = 2**50

        def read(self, offset: int, size: int) -> bytes:
            assert offset + size <= 8
            return (2**40).to_bytes(8, "little")[offset : offset + size]

        def read_into(self, offset: int, buffer: memoryview) -> None:
            buffer[:] = self.read(offset, len(buffer))

    with pytest.raises(FormatError, match="header"):
        FORMAT.spans(Huge())


def test_too_many_values_are_refused_before_they_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _file({"a": _line(0, 8)})
    monkeypatch.setattr("git_theta.formats.safetensors._MAX_HEADER_VALUES", 11)
    assert len(_spans(data)) == 1
    monkeypatch.setattr("git_theta.formats.safetensors._MAX_HEADER_VALUES", 10)
    with pytest.raises(FormatError, match="values"):
        FORMAT.spans(BytesSource(data))


def test_too_many_tensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _file({"a": _line(0, 8), "b": _line(8, 16)})
    monkeypatch.setattr("git_theta.formats.safetensors.MAX_SPANS", 1)
    with pytest.raises(FormatError, match="limit"):
        FORMAT.spans(BytesSource(data))


def test_names_with_lone_surrogates_can_be_written() -> None:
    (span,) = _spans(_file(b'{"a\\ud800":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'))
    assert span.name == "a~ud800"


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_parsed(data: bytes) -> None:
    try_spans(FORMAT, data)
    try_spans(FORMAT, _file(data))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["U8", "F32", "BF16", "F4", "XX"]) | _JSON,
                "shape": st.lists(st.integers(0, 4), max_size=3) | _JSON,
                "data_offsets": st.lists(st.integers(0, 70), min_size=2, max_size=2).map(sorted) | _JSON,
            }
        )
        | _JSON,
        max_size=4,
    )
)
def test_arbitrary_headers_are_refused_or_keep_the_rules(header: dict[str, object]) -> None:
    try_spans(FORMAT, _file(header))
