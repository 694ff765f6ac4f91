"""The `dense` update: a whole value, coded without loss (docs/format.md, "Dense payloads").

Floats of trained models have nearly random mantissas and few exponents. A word is rotated left by one bit, so that the
exponent fills its top byte and the sign joins the mantissa; the bytes of equal rank are gathered in planes, and each
plane that shrinks is compressed by zstd (the idea of ZipNN, arXiv:2411.05239; the figures are in
docs/design/003-dense.md). A payload as long as its value is the value itself, so that an object can hold a tensor's raw
bytes.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from git_theta.errors import DamagedObjectError, InputError
from git_theta.source import Source
from git_theta.tensor import Tensor, words_of
from git_theta.updates.base import CHUNK_BYTES, Base, Value
from git_theta.updates.planes import FIELD, ZSTD, Cursor, compressor, decompress
from git_theta.updates.tensors import HeldTensor, take_known

if TYPE_CHECKING:
    from git_theta.updates.planes import Words

__all__ = ["DENSE", "MAX_FRAME_BYTES", "Dense", "encoded"]

MAX_FRAME_BYTES = 16 * 2**20
MIN_CODED_BYTES = 4096
SAMPLE_BYTES = 48 * 2**10
SAMPLES = 3
WORTH = 0.97

_HEADER = struct.Struct("<IBBBB")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a value's words are cut: `planes` runs of bytes, of which those in `compressed` go through zstd.

    Plane 0 holds the words' most significant bytes, and so on; the last plane holds all the bytes that remain.
    """

    word: int
    rotated: bool
    planes: int
    compressed: frozenset[int]


class Dense:
    """A whole value: byte planes and zstd where that pays, raw bytes where it does not."""

    name = "dense"
    bases = 0

    def supplied(self, tensors: Mapping[str, Tensor], dtype: str, shape: tuple[int, ...]) -> "SuppliedValue":
        """`value`: what takes the place of the value, of the same dtype and shape."""
        given = take_known(tensors, ("value",))["value"]
        if (given.dtype, given.shape) != (dtype, shape):
            raise InputError(
                f"it is {dtype} {list(shape)}, and what is supplied for it {given.dtype} {list(given.shape)}"
            )
        return SuppliedValue(given)

    def encode(self, value: Value, bases: Sequence[Base] = ()) -> Iterator[bytes] | None:
        """The coded payload; None where no plane of a sample shrinks by 3%, and the raw bytes are as good."""
        plan = _plan(value) if value.size >= MIN_CODED_BYTES else None
        return None if plan is None else (run for chunk in value.chunks() for run in _encode_frame(chunk, plan))

    def decode(self, payload: Source, size: int, bases: Sequence[Base] = ()) -> Iterator[bytes | memoryview]:
        if payload.size > size:
            raise DamagedObjectError(f"a payload of {payload.size} bytes for a value of {size}")
        return _copy(payload) if payload.size == size else _decode_frames(payload, size)


DENSE = Dense()


class SuppliedValue(Dense):
    """A value that takes the place of another."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def apply(self, base: Base) -> Iterator[bytes | memoryview]:
        return HeldTensor(self._tensor).chunks()


def encoded(tensor: Tensor) -> bytes:
    """A tensor as a dense payload."""
    runs = DENSE.encode(HeldTensor(tensor))
    coded = tensor.data if runs is None else b"".join(runs)
    return coded if len(coded) < len(tensor.data) else tensor.data


def _copy(payload: Source) -> Iterator[bytes]:
    for offset in range(0, payload.size, CHUNK_BYTES):
        yield payload.read(offset, CHUNK_BYTES)


def _plan(value: Value) -> Plan | None:
    """How to code a value, judged by three samples of it; None where nothing shrinks."""
    import numpy as np

    word, floating = words_of(value.dtype, value.size)
    sample = _sample(value)
    words = _rotated_left(np.frombuffer(sample, f"<u{word}"), word) if floating and word > 1 else sample
    ranks = np.frombuffer(words, np.uint8).reshape(-1, word)
    paying = frozenset(
        plane
        for plane in range(word)
        if len(compressor(word).compress(ranks[:, word - 1 - plane].tobytes())) < WORTH * len(ranks)
    )
    if not paying:
        return None
    planes = max(paying) + 1
    # What remains below the last paying plane is one plane; there are integers of 1, 2 and 4 bytes, not of 3.
    while planes < word and word - planes not in (1, 2, 4):
        planes += 1
    return Plan(word, floating and word > 1, min(planes + 1, word), paying)


def _sample(value: Value) -> bytes:
    """Runs from the start, the middle and the end of a value, aligned to 8 bytes."""
    if value.size <= SAMPLES * SAMPLE_BYTES:
        return value.read(0, value.size)
    last = value.size - SAMPLE_BYTES
    return b"".join(value.read(last * i // (SAMPLES - 1) // 8 * 8, SAMPLE_BYTES) for i in range(SAMPLES))


def _encode_frame(chunk: memoryview, plan: Plan) -> list[bytes]:
    import numpy as np

    words: Words = np.frombuffer(chunk, f"<u{plan.word}")
    if plan.rotated:
        words = _rotated_left(words, plan.word)
    head = _HEADER.pack(len(chunk), plan.word, plan.rotated, plan.planes, 0)
    bodies: list[bytes] = []
    for plane in range(plan.planes):
        width = _width(plan.word, plane, plan.planes)
        raw = (words >> 8 * (plan.word - plane - width)).astype(f"<u{width}").tobytes()
        coded = compressor(plan.word).compress(raw) if plane in plan.compressed else raw
        shrunk = len(coded) < len(raw)
        head += FIELD.pack(len(coded) | ZSTD if shrunk else len(raw))
        bodies.append(coded if shrunk else raw)
    return [head, *bodies]


def _width(word: int, plane: int, planes: int) -> int:
    """Bytes of each word that a plane holds."""
    return 1 if plane < planes - 1 else word - planes + 1


def _rotated_left(words: "Words", word: int) -> "Words":
    import numpy as np

    rotated: Words = np.left_shift(words, 1)
    rotated |= words >> (8 * word - 1)
    return rotated


def _rotate_right(words: "Words", word: int) -> None:
    """In place."""
    sign = words << (8 * word - 1)
    words >>= 1
    words |= sign


def _decode_frames(payload: Source, size: int) -> Iterator[memoryview]:
    cursor = Cursor(payload)
    done = 0
    while not cursor.ended:
        length, word, rotated, planes, zero = _HEADER.unpack(cursor.take(_HEADER.size))
        if word not in (1, 2, 4, 8) or not 1 <= planes <= word or rotated > 1 or zero:
            raise DamagedObjectError("a frame of no known kind")
        if not 0 < length <= min(MAX_FRAME_BYTES, size - done) or length % word:
            raise DamagedObjectError(f"a frame of {length} bytes, where {size - done} are left")
        yield _decode_frame(cursor, length, word, bool(rotated), planes)
        done += length
    if done != size:
        raise DamagedObjectError(f"its frames end at byte {done} of {size}")


def _decode_frame(cursor: Cursor, length: int, word: int, rotated: bool, planes: int) -> memoryview:
    count = length // word
    words: Words | None = None
    fields = cursor.take(FIELD.size * planes)
    for plane, (field,) in enumerate(FIELD.iter_unpack(fields)):
        width = _width(word, plane, planes)
        raw_size = count * width
        stored = field & ~ZSTD
        if stored > raw_size or (not field & ZSTD and stored != raw_size):
            raise DamagedObjectError(f"a plane of {stored} bytes, where {raw_size} are expected")
        data = cursor.take(stored)
        part = _part(decompress(data, raw_size) if field & ZSTD else data, width, word)
        # Shifts of whole words take half the time of bytes written to every fourth place.
        if words is None:
            words = part.astype(f"<u{word}")
        else:
            words <<= 8 * width
            words |= part
    assert words is not None  # noqa: S101  # there is at least one plane
    if rotated:
        _rotate_right(words, word)
    return memoryview(words.view("u1").data)


def _part(raw: bytes, width: int, word: int) -> "Words":
    """The low `width` bytes of each word as a number."""
    import numpy as np

    if width in (1, 2, 4, 8):
        return np.frombuffer(raw, f"<u{width}")
    wide = np.zeros((len(raw) // width, word), "u1")
    wide[:, :width] = np.frombuffer(raw, "u1").reshape(-1, width)
    return wide.reshape(-1).view(f"<u{word}")
