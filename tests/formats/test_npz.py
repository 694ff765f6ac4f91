"""The npz format: real files of numpy, and archives with other things in them."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import FormatError
from git_theta.formats.base import HEAD_SIZE_BYTES, Span
from git_theta.formats.npz import FORMAT
from git_theta.testing import CheckedSource, Example, FormatTests, Tensor, try_spans
from tests.formats import pickles

_NOISE = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)


def _save(arrays: Mapping[str, npt.NDArray[np.generic]], compressed: bool = False) -> bytes:
    buffer = io.BytesIO()
    write = np.savez_compressed if compressed else np.savez
    write(buffer, allow_pickle=True, **dict(arrays))
    return buffer.getvalue()


def _npy(array: npt.NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


class TestNpzFormat(FormatTests):
    format = FORMAT

    def files(self, directory: Path) -> Sequence[Example]:
        arrays: dict[str, tuple[npt.NDArray[np.generic], str]] = {
            "layer.0/kernel": (np.arange(6, dtype=np.float32).reshape(2, 3), "F32"),
            "fortran": (np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)), "I64"),
            "scalar": (np.array(3, np.uint16), "U16"),
            "empty": (np.empty((0, 2)), "F64"),
            "größe": (np.array([True, False]), "BOOL"),
        }
        (directory / "plain.npz").write_bytes(_save({name: array for name, (array, _) in arrays.items()}))
        (directory / "mixed.npz").write_bytes(
            pickles.pack(
                {"0.npy": _npy(np.arange(3, dtype=np.int64)), "big.npy": _npy(_NOISE)}, deflated=("big.npy",), root=""
            )
        )
        with zipfile.ZipFile(directory / "mixed.npz") as file:
            packed = file.getinfo("big.npy").compress_size
        data = (directory / "mixed.npz").read_bytes()
        begin = data.index(b"big.npy") + len("big.npy")
        return [
            Example(
                directory / "plain.npz",
                {
                    name.replace("/", "~1"): Tensor(dtype, array.shape, array.tobytes("C"))
                    for name, (array, dtype) in arrays.items()
                },
            ),
            Example(
                directory / "mixed.npz",
                {
                    "~s0": Tensor("I64", (3,), np.arange(3, dtype=np.int64).tobytes()),
                    "big": Tensor("opaque", (packed,), data[begin : begin + packed]),
                },
            ),
        ]


def _spans(data: bytes) -> dict[str, Span]:
    assert FORMAT.accepts(data[:HEAD_SIZE_BYTES])
    spans = try_spans(FORMAT, data)
    assert spans is not None
    return {span.name: span for span in spans}


def test_known_bytes() -> None:
    data = _save({"a": np.array([1.0, 2.0], np.float32)})
    offset = data.index(b"\0\0\x80\x3f\0\0\0\x40")
    assert list(_spans(data).values()) == [Span("a", offset, 8, "F32", (2,))]


def test_arrays_without_names() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, np.zeros(1), np.zeros(2))
    assert list(_spans(buffer.getvalue())) == ["arr_0", "arr_1"]


def test_small_compressed_arrays_have_no_span() -> None:
    assert _spans(_save({"a": np.zeros(100_000), "b": np.arange(3, dtype=np.int64)}, compressed=True)) == {}


def test_large_compressed_arrays_are_opaque() -> None:
    spans = _spans(_save({"noise": _NOISE, "zeros": np.zeros(10)}, compressed=True))
    assert {name: span.dtype for name, span in spans.items()} == {"noise": "opaque"}


def test_entries_that_hold_no_plain_array_are_opaque_unless_small() -> None:
    objects = np.array([_NOISE.tobytes(), None], dtype=object)
    small = np.array([None], dtype=object)
    data = _save({"objects": objects, "small": small, "plain": np.arange(3, dtype=np.int64)})
    spans = _spans(data)
    assert {name: span.dtype for name, span in spans.items()} == {"objects": "opaque", "plain": "I64"}
    span = spans["objects"]
    assert data[span.offset : span.offset + span.size] == _npy(objects)


def test_compressed_entries_are_not_read_as_arrays() -> None:
    data = _save({"a": np.arange(3, dtype=np.int64)})
    at = data.index(b"PK\x01\x02") + 10
    assert list(_spans(data)) == ["a"]
    assert _spans(data[:at] + b"\x08" + data[at + 1 :]) == {}


def test_entries_of_other_kinds_have_no_span() -> None:
    data = pickles.pack({"a.npy": _npy(np.arange(3, dtype=np.int64)), "notes.txt": bytes(100_000)}, root="")
    assert list(_spans(data)) == ["a"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(pickles.pack({}), id="no entries"),
        pytest.param(pickles.pack({"a.txt": b"a"}), id="no arrays"),
        pytest.param(pickles.pack({"a" * 5000 + ".npy": b"a"}), id="name too long"),
        pytest.param(_save({"a": np.arange(3, dtype=np.int64)})[:-30], id="cut off"),
    ],
)
def test_archive_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        FORMAT.spans(CheckedSource(data))


@given(st.binary(max_size=200))
def test_arbitrary_entries_are_refused_or_keep_the_rules(data: bytes) -> None:
    assert try_spans(FORMAT, pickles.pack({"a.npy": data, "b.npy": b"\x93NUMPY" + data})) is not None
