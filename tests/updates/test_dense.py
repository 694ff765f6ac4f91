"""The `dense` update: its bytes as docs/format.md has them, and payloads that lie."""

import struct
import tracemalloc
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from types import MappingProxyType

import pytest
import zstandard

from git_theta.errors import DamagedObjectError
from git_theta.source import BytesSource
from git_theta.tensor import DTYPES
from git_theta.updates.base import CHUNK_BYTES
from git_theta.updates.dense import DENSE, MAX_FRAME_BYTES
from git_theta.value import SourceValue
from tests.checkpoints import brain_weights, noise, weights

MIB = 2**20
ZSTD = 1 << 31


def encode(data: bytes, dtype: str = "opaque") -> bytes | None:
    runs = DENSE.encode(SourceValue(BytesSource(data), 0, len(data), dtype, (len(data),)))
    return None if runs is None else b"".join(runs)


def decode(payload: bytes, size: int) -> bytes:
    return b"".join(DENSE.decode(BytesSource(payload), size))


def frame(
    value: bytes,
    word: int,
    planes: int,
    compressed: Iterable[int] = (),
    *,
    rotated: bool = False,
    claims: Mapping[str, int] = MappingProxyType({}),
) -> bytes:
    """A frame as the specification has it, made byte by byte; `claims` are put in place of what is true."""
    words = [int.from_bytes(value[at : at + word], "little") for at in range(0, len(value), word)]
    if rotated:
        words = [word_ >> (8 * word - 1) | (word_ << 1) & ((1 << 8 * word) - 1) for word_ in words]
    coded = [word_.to_bytes(word, "little") for word_ in words]
    runs = [bytes(word_[word - 1 - plane] for word_ in coded) for plane in range(planes - 1)]
    runs.append(b"".join(word_[: word - planes + 1] for word_ in coded))
    fields = []
    for plane in range(planes):
        if plane in compressed:
            runs[plane] = zstandard.ZstdCompressor().compress(runs[plane])
        fields.append(claims.get(f"plane_{plane}", len(runs[plane]) | (ZSTD if plane in compressed else 0)))
    head = (claims.get(name, true) for name, true in {"length": len(value), "word": word, "rotated": rotated}.items())
    return struct.pack(f"<IBBBx{planes}I", *head, claims.get("planes", planes), *fields) + b"".join(runs)


FLAT = weights(1000) + bytes(96)  # words of every size


@pytest.mark.parametrize("rotated", [False, True], ids=["plain", "rotated"])
@pytest.mark.parametrize(
    ("word", "planes"), [(word, planes) for word in (1, 2, 4, 8) for planes in range(1, word + 1)], ids=str
)
def test_every_frame_of_the_specification_is_read(word: int, planes: int, rotated: bool) -> None:
    value = FLAT + bytes(8000)
    some = frame(FLAT, word, planes, {0}, rotated=rotated)
    every = frame(bytes(8000), word, planes, range(planes), rotated=rotated)
    assert decode(some + every, len(value)) == value
    assert decode(every + some, len(value)) == bytes(8000) + FLAT


def test_a_payload_as_long_as_its_value_is_the_value() -> None:
    coded = frame(bytes(4096), 1, 1, {0})
    for value in (b"", b"a", coded, noise(3 * CHUNK_BYTES + 7)):
        assert decode(value, len(value)) == value


@pytest.mark.parametrize(
    ("dtype", "data", "head"),
    [
        pytest.param("BF16", brain_weights(4096), (8192, 2, 1, 2), id="BF16"),
        pytest.param("F16", brain_weights(4096), (8192, 2, 1, 2), id="F16"),
        pytest.param("C32", brain_weights(4096), (8192, 2, 1, 2), id="C32"),
        pytest.param("F32", weights(4096), (16384, 4, 1, 3), id="F32"),
        pytest.param(
            "F64",
            b"".join(noise(6, i) + (b"\x12\x3f", b"\x12\xbf")[i % 7 % 2] for i in range(2048)),
            (16384, 8, 1, 5),
            id="F64",
        ),
        pytest.param("I64", b"".join(struct.pack("<q", i % 100) for i in range(2048)), (16384, 8, 0, 8), id="I64"),
        pytest.param("U16", b"ab" * 4096, (8192, 2, 0, 2), id="U16"),
        pytest.param("U8", bytes(4096), (4096, 1, 0, 1), id="U8"),
        pytest.param("F8_E4M3", bytes(4096), (4096, 1, 0, 1), id="F8"),
        pytest.param("F4", bytes(4096), (4096, 1, 0, 1), id="F4"),
        pytest.param("opaque", b"text" * 5000, (20000, 1, 0, 1), id="opaque"),
        pytest.param("Q4_new", b"text" * 5000, (20000, 1, 0, 1), id="a dtype not known"),
        pytest.param("F32", b"text" * 5000 + b"x", (20001, 1, 0, 1), id="a size that is no whole number of words"),
    ],
)
def test_words_are_cut_by_dtype(dtype: str, data: bytes, head: tuple[int, ...]) -> None:
    payload = encode(data, dtype)
    assert payload is not None
    assert len(payload) < 0.97 * len(data)
    assert struct.unpack_from("<IBBB", payload) == head
    assert decode(payload, len(data)) == data


def test_a_value_is_cut_into_frames_of_2_mib() -> None:
    data = brain_weights(2 * MIB + 3)
    payload = encode(data, "BF16")
    assert payload is not None
    assert len(payload) < 0.67 * len(data)
    lengths = []
    at = 0
    while at < len(payload):
        length, _, _, planes = struct.unpack_from("<IBBB", payload, at)
        fields = struct.unpack_from(f"<{planes}I", payload, at + 8)
        at += 8 + 4 * planes + sum(field & ~ZSTD for field in fields)
        lengths.append(length)
    assert lengths == [2 * MIB, 2 * MIB, 6]
    assert decode(payload, len(data)) == data


@pytest.mark.parametrize(
    ("data", "dtype"),
    [(b"", "F32"), (bytes(4095), "U8"), (noise(4096), "U8"), (noise(3 * MIB), "F32"), (noise(3 * MIB), "BF16")],
    ids=["nothing", "small", "noise", "F32 of noise", "BF16 of noise"],
)
def test_what_does_not_shrink_is_not_coded(data: bytes, dtype: str) -> None:
    assert encode(data, dtype) is None


def test_a_frame_that_does_not_shrink_costs_its_head_at_most() -> None:
    """The samples promise what most of the value then does not keep."""
    calm = bytes(48 * 1024)
    data = calm + noise(4 * MIB - len(calm))
    payload = encode(data, "F32")
    assert payload is not None
    assert len(payload) <= len(data) + 2 * 24
    assert b"".join(DENSE.decode(BytesSource(payload), len(data))) == data


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_bits_of_any_dtype_come_back(dtype: str) -> None:
    word = DTYPES[dtype].word
    top = [
        b"\x00\x00",
        b"\x00\x80",
        b"\x01\x00",
        b"\x80\x7f",
        b"\x80\xff",
        b"\x81\x7f",
        b"\xc0\x7f",
        b"\xff\xff",
        b"\x7f\x7f",
    ]
    patterns = [(bytes(8) + run)[-word:] for run in top] + [b"\xff" * word, b"\x01" + bytes(word - 1), bytes(word)]
    data = b"".join(a + b for a, b in product(patterns, patterns)) * (16384 // word // len(patterns) + 1)
    payload = encode(data, dtype)
    assert payload is not None
    assert decode(payload, len(data)) == data


_PLAIN = bytes(4096)


def _lying(compressed: Sequence[int] = (0, 1), **claims: int) -> bytes:
    return frame(_PLAIN, 4, 2, compressed, claims=claims)


_GOOD = frame(_PLAIN, 4, 2, {0, 1})
_BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(64 * MIB))
_UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(_PLAIN)


def _claiming(size: int) -> bytes:
    """A zstd frame whose header claims a size (RFC 8878, 3.1.1.1: magic, descriptor, 8 bytes of content size)."""
    return b"\x28\xb5\x2f\xfd" + b"\xe0" + struct.pack("<Q", size) + b"\x01\x00\x00"


def _plane(stored: bytes) -> bytes:
    """A frame of 4,096 bytes whose only plane is this zstd frame."""
    return struct.pack("<IBBBxI", 4096, 1, 0, 1, len(stored) | ZSTD) + stored


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        pytest.param(b"", 1, id="empty payload of a value"),
        pytest.param(b"a", 0, id="payload of an empty value"),
        pytest.param(_PLAIN + b"\0", 4096, id="payload longer than its value"),
        pytest.param(_GOOD[:7], 4096, id="cut in the head"),
        pytest.param(_GOOD[:8], 4096, id="cut behind the head"),
        pytest.param(_GOOD[:15], 4096, id="cut in the planes' sizes"),
        pytest.param(_GOOD[:-1], 4096, id="cut in the last plane"),
        pytest.param(_GOOD + b"\0", 4096, id="a byte more"),
        pytest.param(_GOOD + _GOOD, 4096, id="a frame more"),
        pytest.param(_GOOD, 4097, id="a byte less than the value"),
        pytest.param(_GOOD, 2048, id="a frame longer than the value"),
        pytest.param(_GOOD, 2**63 - 1, id="a value of 2**63 - 1 bytes"),
        *(pytest.param(_lying(word=word), 4096, id=f"word {word}") for word in (0, 3, 5, 16, 255)),
        pytest.param(_lying(planes=0), 4096, id="no plane"),
        pytest.param(_lying(planes=5), 4096, id="more planes than bytes in a word"),
        pytest.param(_lying(planes=255), 4096, id="255 planes"),
        pytest.param(_lying(rotated=2), 4096, id="rotated twice"),
        pytest.param(_GOOD[:7] + b"\1" + _GOOD[8:], 4096, id="last byte of the head"),
        pytest.param(_lying(length=0), 4096, id="length 0"),
        pytest.param(_lying(length=4095), 4096, id="length that is no whole number of words"),
        pytest.param(_lying(length=4092), 4096, id="length below the planes'"),
        pytest.param(_lying(length=MAX_FRAME_BYTES + 1), 2**40, id="length above 16 MiB"),
        pytest.param(_lying(length=2**32 - 1), 2**40, id="length of 4 GiB"),
        pytest.param(_lying((1,), plane_0=1023), 4096, id="plain plane too short"),
        pytest.param(_lying((1,), plane_0=1025), 4096, id="plain plane too long"),
        pytest.param(_lying((1,), plane_0=1024 | ZSTD), 4096, id="plain plane said to be compressed"),
        pytest.param(_lying(plane_0=0), 4096, id="plane of no bytes"),
        pytest.param(_lying(plane_0=ZSTD), 4096, id="compressed plane of no bytes"),
        pytest.param(_lying(plane_1=2**31 - 1), 4096, id="plane of 2 GiB"),
        pytest.param(_lying(plane_1=2**32 - 1), 4096, id="compressed plane of 2 GiB"),
        pytest.param(_plane(_BOMB), 4096, id="plane that expands to 64 MiB"),
        pytest.param(_plane(_claiming(2**40)), 4096, id="plane that claims a TiB"),
        pytest.param(_plane(_claiming(2**64 - 1)), 4096, id="plane that claims 2**64 - 1 bytes"),
        pytest.param(_plane(_claiming(4096)), 4096, id="plane that claims its size and holds nothing"),
        pytest.param(_plane(zstandard.compress(bytes(4095))), 4096, id="plane a byte short"),
        pytest.param(_plane(zstandard.compress(_PLAIN)[:-1]), 4096, id="zstd frame cut short"),
        pytest.param(_plane(_UNSIZED), 4096, id="zstd frame that does not state its size"),
        pytest.param(_plane(b"\x50\x2a\x4d\x18" + bytes(4)), 4096, id="skippable zstd frame"),
        pytest.param(_plane(zstandard.compress(_PLAIN)[::-1]), 4096, id="no zstd"),
        pytest.param(_plane(zstandard.compress(_PLAIN) + b"\0"), 4096, id="zstd frame and a byte"),
        pytest.param(_plane(zstandard.compress(_PLAIN[:2048]) * 2), 4096, id="two zstd frames"),
    ],
)
def test_a_payload_that_lies_is_refused_in_bounded_memory(payload: bytes, size: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DamagedObjectError) as caught:
            deque(DENSE.decode(BytesSource(payload), size), maxlen=0)
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_FRAME_BYTES
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()


def test_no_run_is_written_to_again() -> None:
    """The runs may be kept: they are not views of one buffer."""
    data = weights(3 * MIB // 4)
    for payload in (data, encode(data, "F32")):
        assert payload is not None
        runs: Sequence[bytes | memoryview] = list(DENSE.decode(BytesSource(payload), len(data)))
        assert len(runs) > 1
        assert b"".join(runs) == data
