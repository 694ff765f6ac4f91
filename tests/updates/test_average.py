"""The `average` update: the mean that docs/format.md says, that the strategy of the same name makes, of any floats."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import DamagedObjectError
from git_theta.merges import averages, running
from git_theta.merges.base import read_options
from git_theta.source import BytesSource
from git_theta.tensor import DTYPES
from git_theta.testing import Tensor, UpdateExample, UpdateTests
from git_theta.updates.average import AVERAGE, payload_of
from git_theta.updates.floats import FLOATS
from git_theta.updates.stream import Stream
from git_theta.value import SourceValue
from tests import independent_reader
from tests.checkpoints import noise, trained, weights

EVEN = (0.5, 0.5)
UNEVEN = (0.3, 0.7)
BASE = weights(20_000)
OTHER = trained(BASE, 3, 1e-3)


def stream(data: bytes, dtype: str) -> Stream:
    return Stream(dtype, (len(data) // DTYPES[dtype].word,), len(data), iter([data] if data else []))


def mean(first: bytes, second: bytes, dtype: str, payload: bytes = b"", size: int | None = None) -> bytes:
    bases = [stream(first, dtype), stream(second, dtype)]
    return b"".join(AVERAGE.decode(BytesSource(payload), len(first) if size is None else size, bases))


def merged(first: bytes, second: bytes, dtype: str, weights: tuple[float, float]) -> bytes:
    """What the merge strategy makes of two sides."""
    shape = (len(first) // DTYPES[dtype].word,)
    sides = tuple(running.held(dtype, shape, "", data) for data in (first, second))
    options = read_options(averages.AVERAGE, {"weights": ",".join(map(str, weights))})
    return b"".join(running.run(averages.AVERAGE, options, running.Task("a", dtype, shape, sides)))


class TestAverage(UpdateTests):
    update = AVERAGE

    def examples(self) -> Sequence[UpdateExample]:
        bases = tuple(Tensor("F32", (20_000,), data) for data in (BASE, OTHER))
        return [UpdateExample(Tensor("F32", (20_000,), mean(BASE, OTHER, "F32")), bases)]


def special(dtype: str) -> bytes:
    """Floats of every kind: zeros, subnormals, ones next to powers of two, the largest, infinities, NaNs."""
    word = DTYPES[dtype].word
    lowest = {"F16": "0000 0100 0200 0300 ff03 0004 0104 003c 013c ff7b 007c 017c 007e"}
    lowest["BF16"] = "0000 0100 0200 0300 7f00 8000 8100 803f 813f 7f7f 807f 817f c07f"
    tops = [bytes.fromhex(text) for text in lowest.get(dtype, lowest["BF16"]).split()]
    low = [bytes(word - 2) + top for top in tops] + [b"\1" * (word - 2) + top for top in tops]
    numbers = [int.from_bytes(data, "little") for data in low]
    both = numbers + [number | 1 << 8 * word - 1 for number in numbers]
    return b"".join(number.to_bytes(word, "little") for number in both)


@pytest.mark.parametrize("weights", [EVEN, UNEVEN, (1.0, 0.0), (-2.5, 1e300)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_specification_is_enough_for_any_floats(dtype: str, weights: tuple[float, float]) -> None:
    word = DTYPES[dtype].word
    data = special(dtype) * 2
    payload = payload_of(weights)
    assert len(payload) == (0 if weights == EVEN else 16)
    for other in (data, data[word:] + data[:word], data[5 * word :] + data[: 5 * word], noise(len(data))):
        made = mean(data, other, dtype, payload)
        assert independent_reader.average(payload, len(data), data, other, dtype) == made


@pytest.mark.parametrize("weights", [EVEN, UNEVEN])
@pytest.mark.parametrize("dtype", FLOATS)
@given(seed=st.integers(0, 2**32))
def test_it_is_the_mean_that_a_merge_makes(dtype: str, weights: tuple[float, float], seed: int) -> None:
    word = DTYPES[dtype].word
    numbers = np.random.default_rng(seed)
    bits = np.frombuffer(special(dtype) + noise(4000 * word, seed), f"<u{word}")
    exponent = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000, "F64": 0x7FF << 52}[dtype]
    # Halved exponents: no mean of these is too large for the dtype.
    first = np.where(bits & exponent == exponent, 0, bits).astype(bits.dtype)
    first = np.where(first & exponent > exponent // 2, first ^ (exponent & ~(exponent >> 1)), first)
    second = np.where(numbers.random(len(first)) < 0.3, first, numbers.permutation(first)).astype(bits.dtype)
    ours, theirs = first.tobytes(), second.tobytes()
    assert mean(ours, theirs, dtype, payload_of(weights)) == merged(ours, theirs, dtype, weights)


def test_means_of_several_chunks_come_back() -> None:
    ours, theirs = weights(1_500_001), weights(1_500_001, 1)
    wanted = (np.frombuffer(ours, "<f4") * np.float32(0.5) + np.frombuffer(theirs, "<f4") * np.float32(0.5)).tobytes()
    assert mean(ours, theirs, "F32") == wanted


def encoded(value: bytes, first: bytes, second: bytes, dtype: str) -> bytes | None:
    bases = [stream(first, dtype), stream(second, dtype)]
    shape = (len(value) // DTYPES[dtype].word,)
    runs = AVERAGE.encode(SourceValue(BytesSource(value), 0, len(value), dtype, shape), bases)
    return None if runs is None else b"".join(runs)


def test_only_an_even_mean_is_found() -> None:
    assert encoded(mean(BASE, OTHER, "F32"), BASE, OTHER, "F32") == b""
    assert encoded(mean(BASE, OTHER, "F32", payload_of(UNEVEN)), BASE, OTHER, "F32") is None
    assert encoded(mean(BASE, OTHER, "F32")[:-4], BASE, OTHER, "F32") is None
    assert encoded(BASE, BASE, BASE, "F32") == b""
    assert encoded(BASE, BASE, BASE, "I32") is None


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\0", "a payload of 1 bytes"),
        (bytes(17), "a payload of 17 bytes"),
        (struct.pack("<dd", float("nan"), 1), "not finite"),
        (struct.pack("<dd", 1, float("inf")), "not finite"),
    ],
)
def test_weights_that_are_none_are_refused(payload: bytes, message: str) -> None:
    with pytest.raises(DamagedObjectError, match=message):
        mean(BASE, OTHER, "F32", payload)


def test_values_that_have_no_mean_are_refused() -> None:
    cases = [
        (stream(BASE, "F32"), stream(OTHER[4:], "F32")),
        (stream(BASE[4:], "F32"), stream(OTHER[4:], "F32")),
        (stream(BASE, "F32"), stream(OTHER, "BF16")),
        (stream(BASE, "I32"), stream(OTHER, "I32")),
        (stream(BASE, "opaque"), stream(OTHER, "opaque")),
    ]
    for bases in cases:
        with pytest.raises(DamagedObjectError, match="values of other sizes or dtypes"):
            b"".join(AVERAGE.decode(BytesSource(b""), len(BASE), list(bases)))
