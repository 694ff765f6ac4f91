"""The table of dtypes, and the sizes of values."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta import tensor
from git_theta.errors import FormatError

_NUMPY = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "U32": np.uint32,
    "I32": np.int32,
    "F32": np.float32,
    "U64": np.uint64,
    "I64": np.int64,
    "F64": np.float64,
    "C64": np.complex64,
    "C128": np.complex128,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}


@pytest.mark.parametrize("name", _NUMPY)
def test_sizes_are_those_of_numpy(name: str) -> None:
    dtype = np.dtype(_NUMPY[name])
    assert tensor.DTYPES[name].bits == 8 * dtype.itemsize
    assert tensor.nbytes(name, (3, 5)) == np.empty((3, 5), dtype).nbytes


@pytest.mark.parametrize("name", tensor.DTYPES)
def test_a_row_of_the_table_is_sound(name: str) -> None:
    dtype = tensor.DTYPES[name]
    assert dtype.name == name
    assert dtype.word in (1, 2, 4, 8)
    assert dtype.bits < 8 or dtype.bits % (8 * dtype.word) == 0


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("F32", (), 4),
        ("F32", (0,), 0),
        ("F32", (0, 2**62, 2**62), 0),
        ("F4", (2, 3), 3),
        ("F6_E2M3", (4,), 3),
        ("opaque", (7,), 7),
        ("U8", (2**63 - 1,), 2**63 - 1),
    ],
)
def test_nbytes(dtype: str, shape: tuple[int, ...], size: int) -> None:
    assert tensor.nbytes(dtype, shape) == size


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        pytest.param("F31", (1,), id="unknown dtype"),
        pytest.param("F32", (-1,), id="negative dimension"),
        pytest.param("F32", (1,) * 65, id="rank 65"),
        pytest.param("F4", (3,), id="half a byte"),
        pytest.param("U8", (2**63,), id="2**63 bytes"),
        pytest.param("F32", (2**32, 2**32, 2**32), id="2**98 bytes"),
    ],
)
def test_nbytes_refuses(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(FormatError):
        tensor.nbytes(dtype, shape)


@given(st.sampled_from(sorted(tensor.DTYPES)), st.lists(st.integers(0, 2**64), max_size=70))
def test_nbytes_gives_a_size_that_fits_or_refuses(dtype: str, shape: list[int]) -> None:
    try:
        size = tensor.nbytes(dtype, shape)
    except FormatError:
        return
    assert 0 <= size <= tensor.MAX_SIZE_BYTES


@pytest.mark.parametrize(
    ("dtype", "shape", "size"), [("F32", (2,), 8), ("Q4_K", (256,), 144), ("F32", (0,), 0), ("opaque", (3,), 3)]
)
def test_check_shape_takes(dtype: str, shape: tuple[int, ...], size: int) -> None:
    tensor.check_shape(dtype, shape, size)


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [("F32", (2,), 7), ("", (1,), 1), ("a b", (1,), 1), ("Q" * 33, (1,), 1), ("Q4", (-1,), 1), ("Q4", (1,) * 65, 1)],
)
def test_check_shape_refuses(dtype: str, shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(FormatError):
        tensor.check_shape(dtype, shape, size)
