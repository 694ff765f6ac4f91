"""The npy format: real files of numpy, and headers that lie."""

import io
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import FormatError
from git_theta.formats.base import Span
from git_theta.formats.npy import FORMAT
from git_theta.testing import CheckedSource, Example, FormatTests, Tensor, try_spans

_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
    "complex64": "C64",
    "complex128": "C128",
}


def _save(array: npt.NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class TestNpyFormat(FormatTests):
    format = FORMAT

    def files(self, directory: Path) -> Sequence[Example]:
        examples = []
        arrays = [(np.arange(6).reshape(2, 3).astype(dtype), ours) for dtype, ours in _DTYPES.items()]
        arrays += [(np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4)), "I16")]
        arrays += [(np.asfortranarray(np.arange(3.0).reshape(1, 3)), "F64"), (np.array(2.5), "F64")]
        arrays += [(np.empty((0, 3), np.float32), "F32"), (np.empty((3, 0), np.float32, order="F"), "F32")]
        for index, (array, dtype) in enumerate(arrays):
            path = directory / f"{index}.npy"
            np.save(path, array)
            examples.append(Example(path, {"array": Tensor(dtype, array.shape, array.tobytes("C"))}))
        return examples


def _spans(data: bytes) -> Sequence[Span]:
    spans = try_spans(FORMAT, data)
    assert spans is not None
    return spans


def test_known_bytes() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
    data = b"\x93NUMPY\1\0\x76\0" + header + b"\0\0\x80\x3f\0\0\0\x40"
    assert _save(np.array([1.0, 2.0], np.float32)) == data
    assert _spans(data) == [Span("array", 128, 8, "F32", (2,))]


def test_fortran_order_is_strides() -> None:
    (span,) = _spans(_save(np.asfortranarray(np.zeros((2, 1, 3)))))
    assert (span.shape, span.strides) == ((2, 1, 3), (1, 1, 2))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions(version: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.arange(3, dtype=np.uint8), version)
    assert buffer.getvalue()[6] == version[0]
    (span,) = _spans(buffer.getvalue())
    assert (span.dtype, span.shape) == ("U8", (3,))


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(6, dtype=">f4").reshape(2, 3), id="big-endian"),
        pytest.param(np.array(["a", "bcd"]), id="text"),
        pytest.param(np.array([b"a", b"bcd"]), id="bytes"),
        pytest.param(np.array(["2020-01-01"], "datetime64[ns]"), id="dates"),
        pytest.param(np.array([1.0, 2.0], ml_dtypes.bfloat16), id="bfloat16"),
        pytest.param(np.array([1.0, 2.0], ml_dtypes.float8_e4m3fn), id="float8"),
        pytest.param(np.zeros(3, "V5"), id="void"),
        pytest.param(np.zeros(3, "m8[s]"), id="durations"),
    ],
)
def test_other_plain_dtypes_are_opaque(array: npt.NDArray[np.generic]) -> None:
    (span,) = _spans(_save(array))
    assert (span.dtype, span.shape, span.size) == ("opaque", (array.nbytes,), array.nbytes)


def test_long_doubles_are_opaque() -> None:
    # Written by hand: what numpy writes for them differs from machine to machine.
    (span,) = _spans(_file("{'descr': '<f16', 'fortran_order': False, 'shape': (2,), }"))
    assert (span.dtype, span.size) == ("opaque", 32)


def test_bytes_behind_the_array_are_no_part_of_it() -> None:
    data = _save(np.arange(3))
    assert _spans(data + data) == _spans(data)


def _file(header: str | bytes, data: bytes = bytes(64), version: int = 1, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else header.encode("latin-1")
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(2 if version == 1 else 4, "little") + text + data


_GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    ("header", "shape"),
    [
        pytest.param(_GOOD, (2,), id="as numpy writes it"),
        pytest.param(_GOOD + " " * 50 + "\n", (2,), id="padded"),
        pytest.param("{'shape':(2,3),'fortran_order':False,'descr':'<f4'}", (2, 3), id="another order, no comma"),
        pytest.param('{"descr": "<f4", "fortran_order": True, "shape": (2,)}', (2,), id="double quotes"),
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }", (2, 3), id="Python 2"),
        pytest.param("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", (), id="no dimensions"),
    ],
)
def test_header_is_taken(header: str, shape: tuple[int, ...]) -> None:
    (span,) = _spans(_file(header))
    assert (span.dtype, span.shape) == ("F32", shape)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93NUMPY\1\0", id="cut before the length"),
        pytest.param(_file(_GOOD)[:40], id="cut header"),
        pytest.param(_file(_GOOD, bytes(7)), id="one byte short"),
        pytest.param(_file(_GOOD, version=4), id="version 4"),
        pytest.param(_file(_GOOD, version=0), id="version 0"),
        pytest.param(_file(_GOOD, version=2, length=2**32 - 1), id="header of 4 GiB"),
        pytest.param(_file(_GOOD.ljust(70_000), version=2), id="header of 70,000 bytes"),
        pytest.param(_file(""), id="empty header"),
        pytest.param(_file("{}"), id="empty dict"),
        pytest.param(_file("[" * 9_000 + "]" * 9_000), id="deeply nested lists"),
        pytest.param(_file("{" + "(" * 9_000 + "}"), id="deeply nested tuples"),
        pytest.param(_file("{'shape': " + "-" * 9_000 + "1}"), id="deeply nested signs"),
        pytest.param(_file("{'descr': '<f4', 'shape': (2,), }"), id="no order"),
        pytest.param(_file(_GOOD[:-1] + "'shape': (3,), }"), id="key twice"),
        pytest.param(_file(_GOOD[:-1] + "'more': 1}"), id="another key"),
        pytest.param(_file(_GOOD.replace("False", "0")), id="order that is a number"),
        pytest.param(_file(_GOOD.replace("'<f4'", "(2,)")), id="descr that is a shape"),
        pytest.param(_file(_GOOD.replace("(2,)", "'<f4'")), id="shape that is a descr"),
        pytest.param(_file(_GOOD.replace("(2,)", "True")), id="shape that is a truth"),
        pytest.param(_file(_GOOD.replace("(2,)", "(-2,)")), id="negative dimension"),
        pytest.param(_file(_GOOD.replace("(2,)", "(2,,)")), id="two commas"),
        pytest.param(_file(_GOOD.replace("(2,)", "(1 2,)")), id="two numbers"),
        pytest.param(_file(_GOOD.replace("(2,)", "(9999999999, 9999999999)")), id="10**20 elements"),
        pytest.param(_file(_GOOD.replace("(2,)", "(" + "9" * 5000 + ",)")), id="dimension of 5,000 digits"),
        pytest.param(_file(_GOOD.replace("(2,)", "(" + "1, " * 65 + ")")), id="rank 65"),
        pytest.param(_file(_GOOD.replace("<f4", "|O")), id="objects"),
        pytest.param(_file(_GOOD.replace("'<f4'", "[('a', '<f4')]")), id="structure"),
        pytest.param(_file(_GOOD.replace("<f4", "<f99999999999")), id="huge element"),
        pytest.param(_save(np.array([{}], dtype=object)), id="real object array"),
        pytest.param(_save(np.zeros(2, [("a", "<f4"), ("b", "<i4")])), id="real structured array"),
    ],
)
def test_file_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        FORMAT.spans(CheckedSource(data))


@given(
    st.text(
        st.sampled_from("{}()[]'\",: 0123456789<f4L-TrueFalsdchp_on") | st.characters(max_codepoint=255), max_size=80
    )
)
def test_arbitrary_headers_are_refused_or_keep_the_rules(header: str) -> None:
    try_spans(FORMAT, _file(header))
    try_spans(FORMAT, _file("{'descr': '<f4', " + header + "}"))


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_refused_or_keep_the_rules(data: bytes) -> None:
    try_spans(FORMAT, data)
    try_spans(FORMAT, b"\x93NUMPY" + data)
