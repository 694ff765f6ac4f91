"""Updates that build on a base: their bytes as docs/format.md has them, every bit of any dtype, payloads that lie."""

import struct
import tracemalloc
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from git_theta.errors import DamagedObjectError
from git_theta.source import BytesSource
from git_theta.tensor import DTYPES
from git_theta.testing import Tensor, UpdateExample, UpdateTests
from git_theta.updates.base import Update
from git_theta.updates.cast import CAST
from git_theta.updates.delta import DELTA
from git_theta.updates.dense import DENSE
from git_theta.updates.sparse import SPARSE
from git_theta.updates.stream import Stream
from git_theta.value import SourceValue
from tests import independent_reader
from tests.checkpoints import changed, noise, trained, weights

MIB = 2**20
LOOSE: Sequence[Update] = (DELTA, SPARSE)


def stream(data: bytes, dtype: str = "opaque") -> Stream:
    return Stream(dtype, (len(data) * 8 // DTYPES[dtype].bits,), len(data), iter([data] if data else []))


def encode(update: Update, data: bytes, base: bytes, dtype: str = "opaque", base_dtype: str | None = None) -> bytes:
    shape = (len(data) * 8 // DTYPES[dtype].bits,)
    runs = update.encode(
        SourceValue(BytesSource(data), 0, len(data), dtype, shape), [stream(base, base_dtype or dtype)]
    )
    assert runs is not None
    return b"".join(runs)


def decode(update: Update, payload: bytes, size: int, base: bytes, base_dtype: str = "opaque") -> bytes:
    return b"".join(update.decode(BytesSource(payload), size, [stream(base, base_dtype)]))


BASE = weights(20_000)


class TestDense(UpdateTests):
    update = DENSE

    def examples(self) -> Sequence[UpdateExample]:
        return [UpdateExample(Tensor("F32", (20_000,), BASE))]


class TestDelta(UpdateTests):
    update = DELTA

    def examples(self) -> Sequence[UpdateExample]:
        numbers = struct.pack("<2000q", *range(2000))
        return [
            UpdateExample(Tensor("F32", (20_000,), trained(BASE, 0, 1e-4)), (Tensor("F32", (20_000,), BASE),)),
            UpdateExample(Tensor("F32", (19_000,), trained(BASE, 0, 1e-4)[:76_000]), (Tensor("F32", (20_000,), BASE),)),
            UpdateExample(Tensor("I64", (2000,), numbers), (Tensor("I64", (2000,), bytes(16_000)),)),
        ]


class TestSparse(UpdateTests):
    update = SPARSE

    def examples(self) -> Sequence[UpdateExample]:
        base = (Tensor("F32", (200, 100), BASE),)
        return [
            UpdateExample(Tensor("F32", (200, 100), changed(BASE, *range(0, 80_000, 800))), base),
            UpdateExample(Tensor("F32", (200, 100), BASE[:400] + noise(400) + BASE[800:]), base),
            UpdateExample(Tensor("F32", (180, 100), BASE[:72_000]), base),
            UpdateExample(Tensor("F32", (210, 100), BASE + noise(4000)), base),
        ]


class TestCast(UpdateTests):
    update = CAST

    def examples(self) -> Sequence[UpdateExample]:
        wide = np.frombuffer(BASE, "<f4")
        half, double = wide.astype("<f2").tobytes(), wide.astype("<f8").tobytes()
        return [
            UpdateExample(Tensor("F16", (20_000,), half), (Tensor("F32", (20_000,), BASE),)),
            UpdateExample(Tensor("F64", (20_000,), double), (Tensor("F32", (20_000,), BASE),)),
        ]


@pytest.mark.parametrize("update", LOOSE, ids=lambda update: update.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_bits_come_back_and_the_specification_is_enough(update: Update, dtype: str) -> None:
    """NaNs and their payloads, zeros of both signs, subnormals, infinities, beside each other and beside noise."""
    word = DTYPES[dtype].word
    tops = ["0000", "0080", "0100", "807f", "80ff", "817f", "c07f", "ffff", "7f7f", "007c", "00fc", "017c"]
    data = b"".join((bytes(8) + bytes.fromhex(top))[-word:].rjust(word, b"\1") for top in tops) * 24
    for base in (data, bytes(len(data)), noise(len(data)), data[word:] + data[:word], data[:48], data + data):
        payload = encode(update, data, base, dtype)
        assert decode(update, payload, len(data), base) == data
        assert independent_reader.UPDATES[update.name](payload, len(data), base) == data


@pytest.mark.parametrize("update", LOOSE, ids=lambda update: update.name)
@given(data=st.binary(max_size=64), base=st.binary(max_size=64), dtype=st.sampled_from(["opaque", "F8_E5M2", "I8"]))
@example(data=b"", base=b"", dtype="opaque")
@example(data=b"\x80", base=b"\0", dtype="F8_E5M2")
def test_values_of_any_size_come_back(update: Update, data: bytes, base: bytes, dtype: str) -> None:
    payload = encode(update, data, base, dtype)
    assert decode(update, payload, len(data), base) == data
    assert independent_reader.UPDATES[update.name](payload, len(data), base) == data


@pytest.mark.parametrize("update", LOOSE, ids=lambda update: update.name)
def test_values_of_several_frames_come_back(update: Update) -> None:
    base = noise(5 * MIB)
    data = changed(base, 0, 2 * MIB - 1, 2 * MIB, 5 * MIB - 1)
    payload = encode(update, data, base, "BF16")
    assert len(payload) < 1000
    assert decode(update, payload, len(data), base) == data


@pytest.mark.parametrize("update", LOOSE, ids=lambda update: update.name)
def test_a_base_of_another_dtype_is_none(update: Update) -> None:
    value = SourceValue(BytesSource(bytes(8)), 0, 8, "F32", (2,))
    assert update.encode(value, [stream(bytes(8), "I32")]) is None


def test_a_delta_is_the_bytes_of_the_specification() -> None:
    """1.0 and -0.0 after the next number above 1.0 and 0.0: the differences -1 and -1, sorted by exponent."""
    payload = encode(DELTA, struct.pack("<ff", 1.0, -0.0), struct.pack("<If", 0x3F800001, 0.0), "F32")
    assert payload == struct.pack("<IBBBB4I", 8, 4, 1, 23, 0, 0, 0, 0, 2) + b"\1\1"


def test_a_sparse_value_is_the_bytes_of_the_specification() -> None:
    payload = encode(SPARSE, b"abXYe!", b"abcdef")
    run = struct.pack("<4I", 0, 0, 0, 2)
    skips, counts = run + bytes([2, 1]), run + bytes([2, 1])
    assert payload == struct.pack("<IB3xI", 6, 1, 2) + skips + counts + struct.pack("<I", 3) + b"XY!"


FLOATS = ("F16", "BF16", "F32", "F64")
PATTERNS = {
    "F16": np.arange(2**16).astype("<u2").tobytes(),
    "BF16": np.arange(2**16).astype("<u2").tobytes(),
    "F32": np.concatenate(
        [np.arange(0, 2**32, 65537 * 16 + 1), np.arange(2**16) << 16, (np.arange(2**16) << 16) + 0x8000, np.arange(9)]
    )
    .astype("<u4")
    .tobytes(),
    "F64": b"".join(
        struct.pack("<Q", top << 48 | low)
        for top in range(0, 2**16, 5)
        for low in (0, 1, 0x0000100000000000, 2**48 - 1)
    ),
}


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("source", FLOATS)
def test_conversions_are_exact_arithmetic_for_every_kind_of_bits(source: str, target: str) -> None:
    if source == target:
        return
    base = PATTERNS[source]
    payload = bytes([FLOATS.index(source), FLOATS.index(target)])
    expected = independent_reader.cast(payload, 0, base)
    assert decode(CAST, payload, len(expected), base, source) == expected
    assert encode(CAST, expected, base, target, source) == payload


@pytest.mark.parametrize("change", [0, 4_000])
def test_a_value_that_is_not_quite_converted_is_no_cast(change: int) -> None:
    wide = np.frombuffer(weights(3000), "<f4")
    half = changed(wide.astype("<f2").tobytes(), change)
    value = SourceValue(BytesSource(half), 0, len(half), "F16", (3000,))
    assert CAST.encode(value, [stream(wide.tobytes(), "F32")]) is None


_BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(64 * MIB))


def _delta(
    length: int = 8, word: int = 4, floating: int = 0, key: int = 255, zero: int = 0, rest: bytes = b""
) -> bytes:
    return struct.pack("<IBBBB", length, word, floating, key, zero) + (rest or bytes(4 * word))


def _sparse(length: int = 8, word: int = 4, runs: int = 0, rest: bytes = b"") -> bytes:
    return struct.pack("<IB3xI", length, word, runs) + rest


def _ones(*numbers: int) -> bytes:
    """Coded words of 4 bytes, none compressed."""
    planes = [bytes(number >> shift & 255 for number in numbers) for shift in (24, 16, 8, 0)]
    return struct.pack("<4I", *map(len, planes)) + b"".join(planes)


@pytest.mark.parametrize(
    ("update", "payload", "size"),
    [
        *(pytest.param(update, b"", 1, id=f"{update.name} of nothing") for update in (*LOOSE, CAST)),
        *(pytest.param(update, b"\0", 0, id=f"{update.name} for an empty value") for update in LOOSE),
        *(pytest.param(DELTA, _delta(word=word), 8, id=f"word {word}") for word in (0, 3, 16, 255)),
        pytest.param(DELTA, _delta(floating=2), 8, id="floating 2"),
        pytest.param(DELTA, _delta(key=32), 8, id="key of another word"),
        pytest.param(DELTA, _delta(zero=1), 8, id="last byte of the head"),
        pytest.param(DELTA, _delta(length=0), 8, id="length 0"),
        pytest.param(DELTA, _delta(length=6), 8, id="half a word"),
        pytest.param(DELTA, _delta(length=12), 8, id="longer than the value"),
        pytest.param(DELTA, _delta(length=8 * MIB), 2**40, id="length of 8 MiB"),
        pytest.param(DELTA, _delta(), 2**63 - 1, id="a value of 2**63 - 1 bytes"),
        pytest.param(DELTA, _delta() + b"\0", 8, id="a byte more"),
        pytest.param(DELTA, _delta()[:-1], 8, id="a byte less"),
        pytest.param(DELTA, _delta(rest=struct.pack("<4I", 0, 0, 0, 3) + b"abc"), 8, id="plane too long"),
        pytest.param(DELTA, _delta(rest=struct.pack("<4I", 0, 0, 0, 1) + b"a"), 8, id="plane too short"),
        pytest.param(
            DELTA, _delta(4 * MIB, rest=struct.pack("<4I", 0, 0, 0, len(_BOMB) | 1 << 31) + _BOMB), 4 * MIB, id="bomb"
        ),
        pytest.param(SPARSE, _sparse(word=3), 8, id="sparse of word 3"),
        pytest.param(SPARSE, _sparse(runs=3), 8, id="more runs than elements"),
        pytest.param(SPARSE, _sparse(length=8 * MIB), 2**40, id="sparse frame of 8 MiB"),
        pytest.param(SPARSE, _sparse(runs=1), 8, id="no runs where there is one"),
        pytest.param(SPARSE, _sparse(runs=1, rest=_ones(1) + _ones(2) + bytes(16)), 8, id="run that leaves its frame"),
        pytest.param(SPARSE, _sparse(runs=1, rest=_ones(2**32 - 1) + _ones(1)), 8, id="position of 2**32 - 1"),
        pytest.param(SPARSE, _sparse(runs=1, rest=_ones(0) + _ones(2**32 - 1)), 8, id="run of 2**32 - 1"),
        pytest.param(SPARSE, _sparse(), 2**63 - 1, id="sparse value of 2**63 - 1 bytes"),
        pytest.param(CAST, b"\2\2", 8, id="no conversion"),
        pytest.param(CAST, b"\2\4", 8, id="dtype not known"),
        pytest.param(CAST, b"\2\1\0", 8, id="cast of 3 bytes"),
        pytest.param(CAST, b"\2\1", 2**63 - 1, id="value that is longer than its base makes it"),
        pytest.param(CAST, b"\2\1", 2, id="value that is shorter than its base makes it"),
    ],
)
def test_a_payload_that_lies_is_refused_in_bounded_memory(update: Update, payload: bytes, size: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DamagedObjectError) as caught:
            deque(update.decode(BytesSource(payload), size, [stream(bytes(8), "F32")]), maxlen=0)
        assert tracemalloc.get_traced_memory()[1] < 48 * MIB
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
