"""A value on its way through a strategy: exact at both ends, in bounded memory, on either backend."""

import itertools
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from git_theta.errors import ConflictError, RepositoryError
from git_theta.merges.arrays import KINDS, decode, encode, torch_backend
from git_theta.merges.averages import AVERAGE
from git_theta.merges.base import Array, Inputs, Namespace, Options, Strategy, read_options
from git_theta.merges.copies import MAX, OURS
from git_theta.merges.running import Operand, Task, held, run
from git_theta.tensor import DTYPES
from tests.checkpoints import noise
from tests.merges.arithmetic import merged, operand, task

MIB = 2**20


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F64", "BOOL", "I8", "U16", "I64"])
def test_what_is_not_computed_with_keeps_every_bit(dtype: str) -> None:
    data = noise(80_000)
    assert encode(decode(data, dtype, wide=dtype == "F64"), dtype) == data


def test_half_floats_keep_every_bit_but_those_of_signalling_nans() -> None:
    words = np.arange(2**16, dtype="<u2")
    words = words[~((words & 0x7C00 == 0x7C00) & (words & 0x0200 == 0) & (words & 0x01FF != 0))]
    assert encode(decode(words.tobytes(), "F16", wide=False), "F16") == words.tobytes()
    assert encode(decode(words.tobytes(), "F16", wide=True), "F16") == words.tobytes()


def test_sides_of_two_float_dtypes_are_computed_in_the_wider_and_rounded_once() -> None:
    sides = (operand([1 + 2**-23, 3], "F32"), operand([1, 2**-30], "F64"))
    for dtype, expected in (("F64", [1 + 2**-24, 1.5 + 2**-31]), ("F32", [1, 1.5]), ("BF16", [1, 1.5])):
        assert merged(AVERAGE, Task("w", dtype, (2,), sides)) == expected
        sides = (operand([1 + 2**-23, 3], "F32"), operand([1, 2**-30], "F64"))


@pytest.mark.parametrize(
    ("dtype", "other"), [("F32", "I32"), ("I32", "I64"), ("BOOL", "U8"), ("F8_E4M3", "F8_E4M3"), ("C64", "C64")]
)
def test_dtypes_that_do_not_go_together_are_a_conflict(dtype: str, other: str) -> None:
    sides = tuple(Operand(one, (2,), "", lambda size: bytes(size)) for one in (dtype, other))
    with pytest.raises(ConflictError, match="dtypes"):
        Task("w", dtype, (2,), sides)


def test_shapes_that_differ_are_a_conflict() -> None:
    with pytest.raises(ConflictError, match="shapes"):
        task(None, [1, 2], [1])


def test_a_nan_is_reported_by_the_side_that_has_it() -> None:
    nan, inf = float("nan"), float("inf")
    for given, who in (
        (([0], [nan], [1]), "ours"),
        (([0], [1], [inf]), "theirs"),
        (([0], [1], [1], [-inf]), "side 3"),
    ):
        with pytest.raises(ConflictError, match=f"{who} has NaN or infinite values; take a side"):
            merged(AVERAGE, task(*given))
    assert merged(AVERAGE, task([nan], [1], [3])) == [2]


def test_a_large_value_streams() -> None:
    size = 64 * MIB
    chunk = bytes(MIB)

    def taking() -> Callable[[int], bytes]:
        return lambda count: chunk[:count]

    sides = tuple(Operand("F32", (size // 4,), "", taking()) for _ in range(2))
    tracemalloc.start()
    try:
        made = sum(len(part) for part in run(AVERAGE, read_options(AVERAGE, {}), Task("w", "F32", (size // 4,), sides)))
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert made == size


def test_a_strategy_that_makes_another_dtype_is_a_bug() -> None:
    def wide(xp: Namespace, inputs: Inputs, options: Options) -> Array:
        return xp.astype(inputs.ours, xp.float64)

    with pytest.raises(TypeError, match="strategy 'wide' made float64"):
        merged(Strategy("wide", "Wide.", "", wide), task(None, [1], [2]))


def test_torch_merges_every_float_dtype_and_leaves_integers_to_numpy() -> None:
    backend = torch_backend("cpu")
    for dtype, strategy in itertools.product(KINDS, (AVERAGE, MAX, OURS)):
        if KINDS[dtype] in strategy.kinds:
            size = 8 * DTYPES[dtype].word
            data = [encode(np.array([1, 2, 3, 0, 5, 6, 7, 1]) % (2 if dtype == "BOOL" else 9), dtype)] * 2
            assert len(data[0]) == size

            def given(data: list[bytes] = data, dtype: str = dtype) -> Task:
                return Task("w", dtype, (8,), tuple(held(dtype, (8,), "", side) for side in data))

            options = read_options(strategy, {})
            made = b"".join(run(strategy, options, given(), backend))
            assert made == b"".join(run(strategy, options, given())) == data[0]


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(RepositoryError, match="torch cannot merge on 'cuda:99'"):
        torch_backend("cuda:99")
    with pytest.raises(RepositoryError, match="torch cannot merge on 'toaster'"):
        torch_backend("toaster")
