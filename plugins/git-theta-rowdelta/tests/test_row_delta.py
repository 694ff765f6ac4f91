"""`row-delta`: the kit that every update passes, its bytes as the README has them, and what it is for."""

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from git_theta.errors import DamagedObjectError
from git_theta.source import BytesSource
from git_theta.tensor import Tensor
from git_theta.testing import UpdateExample, UpdateTests
from git_theta.updates.base import Update
from git_theta.updates.delta import DELTA
from git_theta.updates.sparse import SPARSE
from git_theta.updates.stream import Stream
from git_theta.value import SourceValue
from git_theta_rowdelta import MAX_FRAME_BYTES, MAX_ROW_BYTES, ROW_DELTA

F32 = npt.NDArray[np.float32]
LONG = MAX_ROW_BYTES + 1
RANDOM = np.random.default_rng(0)


def drawn(*shape: int) -> F32:
    made: F32 = RANDOM.standard_normal(shape, np.float32) * np.float32(0.02)
    return made


def tuned(base: F32, *rows: int) -> F32:
    """The base after a small step of training on some rows."""
    made: F32 = base.copy()
    made[list(rows)] += drawn(len(rows), *base.shape[1:]) * np.float32(1e-3)
    return made


def tensor(array: F32) -> Tensor:
    return Tensor("F32", array.shape, array.tobytes())


def encode(update: Update, value: Tensor, base: Tensor) -> bytes | None:
    given = SourceValue(BytesSource(value.data), 0, len(value.data), value.dtype, value.shape)
    runs = update.encode(given, [stream(base)])
    return None if runs is None else b"".join(runs)


def decode(payload: bytes, size: int, base: Tensor) -> bytes:
    return b"".join(ROW_DELTA.decode(BytesSource(payload), size, [stream(base)]))


def stream(base: Tensor) -> Stream:
    return Stream(base.dtype, base.shape, len(base.data), iter([base.data] if base.data else []))


class TestRowDelta(UpdateTests):
    update = ROW_DELTA

    def examples(self) -> Sequence[UpdateExample]:
        base = drawn(300, 64)
        counts = np.arange(1000, dtype="<i8").reshape(100, 10)
        more = counts.copy()
        more[7] += 3
        return [
            UpdateExample(tensor(tuned(base, 0, 5, 6, 299)), (tensor(base),)),
            UpdateExample(tensor(tuned(base[:200], 3)), (tensor(base),)),
            UpdateExample(tensor(np.concatenate([base, drawn(10, 64)])), (tensor(base),)),
            UpdateExample(tensor(base), (tensor(base),)),
            UpdateExample(Tensor("I64", (100, 10), more.tobytes()), (Tensor("I64", (100, 10), counts.tobytes()),)),
        ]


def test_known_bytes() -> None:
    base = Tensor("I16", (4, 2), struct.pack("<8h", 1, 2, 3, 4, 5, 6, 7, 8))
    value = Tensor("I16", (4, 2), struct.pack("<8h", 1, 2, 3, 3, 5, 6, 7, 8 + 128))
    payload = bytes.fromhex(
        "10000000 04000000 02 00 ff 00 02000000"  # 16 bytes in rows of 4 and words of 2, no floats, not sorted, 2 rows
        "00000000 00000000 00000000 02000000 0101"  # one row stays before each
        "04000000 04000000 00000001 00010000"  # the differences 0, -1, 0, 128: zigzag 0, 1, 0, 256
    )
    assert encode(ROW_DELTA, value, base) == payload
    assert decode(payload, 16, base) == value.data


def test_a_few_trained_rows_take_less_than_by_any_other_update() -> None:
    base = drawn(2000, 384)
    value = tuned(base, *range(0, 2000, 100))
    payloads = [encode(update, tensor(value), tensor(base)) for update in (ROW_DELTA, DELTA, SPARSE)]
    own, *others = [len(payload) for payload in payloads if payload is not None]
    assert own < 0.9 * min(others)


@pytest.mark.parametrize("columns", [1, 1023, MAX_ROW_BYTES // 4])
def test_frames_end_where_rows_do(columns: int) -> None:
    """Rows of which no whole number fits into a chunk of 2 MiB, and the longest ones."""
    base = drawn(3_000_000 // columns, columns)
    value = tuned(base, 0, len(base) // 2, len(base) - 1)
    payload = encode(ROW_DELTA, tensor(value), tensor(base))
    assert payload is not None
    assert decode(payload, value.nbytes, tensor(base)) == value.tobytes()


@pytest.mark.parametrize(
    ("value", "base"),
    [
        pytest.param(Tensor("F32", (2, 2), bytes(16)), Tensor("F16", (4, 2), bytes(16)), id="another dtype"),
        pytest.param(Tensor("F4", (3, 2), bytes(3)), Tensor("F4", (3, 2), bytes(3)), id="an unpacked row is a byte"),
        pytest.param(
            Tensor("U8", (1, MAX_ROW_BYTES + 1), bytes(MAX_ROW_BYTES + 1)),
            Tensor("U8", (0, 1), b""),
            id="too long a row",
        ),
    ],
)
def test_what_it_has_no_rows_for_is_left_to_others(value: Tensor, base: Tensor) -> None:
    payload = encode(ROW_DELTA, value, base)
    assert payload is None or decode(payload, len(value.data), base) == value.data
    assert (payload is None) == (value.dtype != "F4")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param((16, 4, 3, 0, 255, 0), id="word of 3 bytes"),
        pytest.param((16, 4, 2, 2, 255, 0), id="floating is 2"),
        pytest.param((16, 4, 2, 0, 16, 0), id="key beyond the word"),
        pytest.param((16, 0, 2, 0, 255, 0), id="rows of nothing"),
        pytest.param((16, 3, 2, 0, 255, 0), id="rows of no whole words"),
        pytest.param((16, 32, 2, 0, 255, 0), id="a row longer than the frame"),
        pytest.param((32, 4, 2, 0, 255, 0), id="more than the value"),
        pytest.param((0, 4, 2, 0, 255, 0), id="an empty frame"),
        pytest.param((MAX_FRAME_BYTES + 4, 4, 2, 0, 255, 0), id="too long a frame"),
        pytest.param((16, 4, 2, 0, 255, 5), id="more rows than there are"),
    ],
)
def test_frames_that_lie_are_damage(header: tuple[int, ...]) -> None:
    with pytest.raises(DamagedObjectError):
        decode(struct.pack("<IIBBBxI", *header) + bytes(100), 16, Tensor("I16", (4, 2), bytes(16)))


def test_rows_beyond_the_frame_are_damage() -> None:
    payload = struct.pack("<IIBBBxI", 16, 4, 2, 0, 255, 1) + struct.pack("<4I", 0, 0, 0, 1) + b"\4" + bytes(8)
    with pytest.raises(DamagedObjectError, match="rows that leave their frame of 4"):
        decode(payload, 16, Tensor("I16", (4, 2), bytes(16)))
