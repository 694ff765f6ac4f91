"""A second reader of the stored format, written from docs/format.md alone: it shows that the specification is enough.

Nothing here is shared with git_theta, and nothing is fast. It checks what a reader must check to give the true bytes;
what else has to be refused is tested against git_theta itself.
"""

import hashlib
import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3

__all__ = ["rebuild"]

GetObject = Callable[[str], bytes]

BITS = {
    8: "BOOL U8 I8 QU8 QI8 F8_E4M3 F8_E5M2 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ opaque",
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    16: "U16 I16 F16 BF16",
    32: "U32 I32 F32 QI32 C32",
    64: "U64 I64 F64 C64",
    128: "C128",
}
DTYPES = {name: bits for bits, names in BITS.items() for name in names.split()}


def rebuild(text: bytes, objects: Path) -> bytes:
    """The file that a manifest stands for; `objects` is the directory that the specification names."""
    root = json.loads(text)
    if root["git-theta"] != 1:
        raise ValueError("version")
    parameters = root["parameters"]
    layout = value(root["layout"]["size"], root["layout"], objects)
    line, _, skeleton = layout.partition(b"\n")
    head = json.loads(line)
    if head["git-theta-layout"] != 1:
        raise ValueError("version of the layout")
    content = b""
    digests = bytes.fromhex(root["layout"]["digest"])
    for name, size in head["parts"]:
        if name is None:
            content, skeleton = content + skeleton[:size], skeleton[size:]
        else:
            record = parameters.pop(name)
            if size != size_of(record):
                raise ValueError("size of a part")
            content += value(size, record, objects)
            digests += bytes.fromhex(record["digest"])
    if skeleton or parameters or len(content) != root["size"] or blake3(digests).hexdigest() != root["digest"]:
        raise ValueError("layout and manifest")
    return content


def size_of(record: dict[str, Any]) -> int:
    """Bytes of a record's value."""
    if record["dtype"] not in DTYPES:
        return int(record["size"])
    bits = DTYPES[record["dtype"]]
    for dim in record["shape"]:
        bits *= dim
    return bits // 8


def value(size: int, record: dict[str, Any], objects: Path) -> bytes:
    """The value of the last step."""
    values: list[bytes] = []
    for index, (update, pieces, *more) in enumerate(record["store"]):
        extras = more[0] if more else {}
        bases = [values[base] for base in extras.get("bases", [index - 1] if index else [])]
        if len(bases) != {"dense": 0, "average": 2}.get(update, 1):
            raise ValueError("bases")
        length = size_of(record | extras) if {"dtype", "shape"} & extras.keys() else size
        payload = b"".join(run(objects, *piece) for piece in pieces)
        if update == "average":
            first, second = bases
            values.append(average(payload, length, first, second, extras.get("dtype", record["dtype"])))
        else:
            values.append(UPDATES[update](payload, length, *bases))
    data = values[-1]
    if len(data) != size or blake3(data).hexdigest() != record["digest"]:
        raise ValueError("digest")
    return data


def run(objects: Path, oid: str, size: int, offset: int = 0, length: int | None = None) -> bytes:
    """The bytes of a piece."""
    data = (objects / oid[:2] / oid[2:4] / oid).read_bytes()
    if len(data) != size or hashlib.sha256(data).hexdigest() != oid:
        raise ValueError("object")
    return data[offset : offset + (size if length is None else length)]


def dense(payload: bytes, size: int) -> bytes:
    """The value of a dense payload."""
    if len(payload) == size:
        return payload
    data = b""
    at = 0
    while at < len(payload):
        length, word, rotated, planes, zero = struct.unpack_from("<IBBBB", payload, at)
        if zero or length > 16 * 2**20 or not 1 <= planes <= word:
            raise ValueError("frame")
        fields = struct.unpack_from(f"<{planes}I", payload, at + 8)
        at += 8 + 4 * planes
        stored = []
        for field in fields:
            part = payload[at : at + (field & 0x7FFFFFFF)]
            at += len(part)
            stored.append(zstandard.decompress(part) if field >> 31 else part)
        data += frame(length // word, word, rotated, stored)
    return data


def frame(count: int, word: int, rotated: int, planes: list[bytes]) -> bytes:
    """The words of a frame, from its planes."""
    if len(planes) == 1 and not rotated:
        return planes[0]
    low = word - len(planes) + 1
    made = bytearray()
    for index in range(count):
        # The last plane has the lowest bytes in their order; above them come the others, the first plane on top.
        bytes_ = planes[-1][index * low : (index + 1) * low] + bytes(plane[index] for plane in reversed(planes[:-1]))
        number = int.from_bytes(bytes_, "little")
        if rotated:
            number = number >> 1 | (number & 1) << (8 * word - 1)
        made += number.to_bytes(word, "little")
    return bytes(made)


def coded(payload: bytes, at: int, count: int, width: int) -> tuple[list[int], int]:
    """Coded words, and where they end."""
    if not count:
        return [], at
    fields = struct.unpack_from(f"<{width}I", payload, at)
    at += 4 * width
    words = [0] * count
    for field in fields:
        part = payload[at : at + (field & 0x7FFFFFFF)]
        at += len(part)
        plane = (zstandard.decompress(part) if field >> 31 else part) or bytes(count)
        words = [word << 8 | byte for word, byte in zip(words, plane, strict=True)]
    return words, at


def old_words(base: bytes, start: int, length: int, width: int) -> list[int]:
    """The words of the base at a frame's place."""
    data = base[start : start + length].ljust(length, b"\0")
    return [int.from_bytes(data[at : at + width], "little") for at in range(0, length, width)]


def delta(payload: bytes, size: int, base: bytes) -> bytes:
    """The value of a delta payload."""
    data = bytearray()
    at = 0
    while at < len(payload):
        length, word, floating, key, zero = struct.unpack_from("<IBBBB", payload, at)
        if zero:
            raise ValueError("frame")
        old = old_words(base, len(data), length, word)
        zigzags, at = coded(payload, at + 8, len(old), word)
        top = 1 << 8 * word - 1

        def ordered(bits: int, top: int = top, floating: int = floating) -> int:
            return bits ^ (top - 1) if floating and bits & top else bits

        places = list(range(len(old)))
        if key != 255:
            places.sort(key=lambda place: (old[place] & (top - 1)) >> key & 255)
        new = [0] * len(old)
        for place, zigzag in zip(places, zigzags, strict=True):
            difference = -(zigzag + 1) // 2 if zigzag & 1 else zigzag // 2
            new[place] = ordered((ordered(old[place]) + difference) % (2 * top))
        data += b"".join(bits.to_bytes(word, "little") for bits in new)
    return bytes(data)


def sparse(payload: bytes, size: int, base: bytes) -> bytes:
    """The value of a sparse payload."""
    data = bytearray()
    at = 0
    while at < len(payload):
        length, word, runs = struct.unpack_from("<IB3xI", payload, at)
        words = old_words(base, len(data), length, word)
        kept, at = coded(payload, at + 12, runs, 4)
        counts, at = coded(payload, at, runs, 4)
        new, at = coded(payload, at, sum(counts), word)
        place = 0
        for skip, count in zip(kept, counts, strict=True):
            place += skip
            words[place : place + count], new = new[:count], new[count:]
            place += count
        data += b"".join(bits.to_bytes(word, "little") for bits in words)
    return bytes(data)


FLOATS = [("F16", 5, 10), ("BF16", 8, 7), ("F32", 8, 23), ("F64", 11, 52)]


def cast(payload: bytes, size: int, base: bytes) -> bytes:
    """The value of a cast payload, in exact arithmetic."""
    kinds = [FLOATS[kind] for kind in payload]
    steps = [kinds[0], *([FLOATS[2]] if FLOATS[2] not in kinds else []), kinds[1]]
    width, word = ((1 + exponent + mantissa) // 8 for _, exponent, mantissa in kinds)
    data = bytearray()
    for at in range(0, len(base), width):
        bits = int.from_bytes(base[at : at + width], "little")
        for source, target in itertools.pairwise(steps):
            bits = converted(bits, source[1:], target[1:])
        data += bits.to_bytes(word, "little")
    return bytes(data)


def converted(bits: int, source: tuple[int, ...], target: tuple[int, ...]) -> int:
    """The bits of a float in another format: (exponent bits, mantissa bits) of each."""
    (width, mantissa), (wider, room) = source, target
    sign = bits >> width + mantissa
    exponent, fraction = bits >> mantissa & (1 << width) - 1, bits & (1 << mantissa) - 1
    top = ((1 << wider) - 1) << room
    if exponent == (1 << width) - 1:
        if fraction:
            fraction = fraction << room - mantissa if room > mantissa else fraction >> mantissa - room | 1 << room - 1
        return sign << wider + room | top | fraction
    # The magnitude is whole * 2**power; what is rounded is a multiple of 2**lowest.
    whole = fraction | (1 << mantissa if exponent else 0)
    power = max(exponent, 1) - (1 << width - 1) + 1 - mantissa
    if not whole:
        return sign << wider + room
    bias = (1 << wider - 1) - 1
    lowest = max(whole.bit_length() - 1 + power, 1 - bias) - room
    if power >= lowest:
        rounded = whole << power - lowest
    else:
        rounded, rest = divmod(whole, 1 << lowest - power)
        half = 1 << lowest - power - 1
        rounded += rest > half or (rest == half and rounded & 1)
    # A mantissa that overflows carries into the exponent, which is what rounding up means.
    made = rounded + (lowest + room + bias - 1 << room)
    return sign << wider + room | min(made, top)


def low_rank(payload: bytes, size: int, base: bytes) -> bytes:
    """The value of a low-rank payload, one element after another."""
    *kinds, rank, columns, scaling, right_size, left_size = struct.unpack_from("<BBBBIQdQQ", payload)
    word = width_of(kinds[0])
    rows = size // word // columns
    at = 40 + right_size
    right = numbers(dense(payload[40:at], rank * columns * width_of(kinds[2])), kinds[2])
    left = numbers(dense(payload[at : at + left_size], rows * rank * width_of(kinds[1])), kinds[1])
    old = numbers(base[:size].ljust(size, b"\0"), kinds[0])
    wide = 3 if 3 in kinds[:3] else 2
    made: list[float] = []
    for row, column in itertools.product(range(rows), range(columns)):
        total = 0.0
        for k in range(rank):
            total = rounded(left[row * rank + k] * right[k * columns + column] + total, wide)
        total = rounded(total * rounded(scaling, wide), wide)
        if kinds[3] != 255:
            total = rounded(total, kinds[3])
        made.append(rounded(total + old[row * columns + column], wide))
    return delta(payload[at + left_size :], size, prediction(made, kinds[0], base, size))


def ia3(payload: bytes, size: int, base: bytes) -> bytes:
    """The value of an ia3 payload."""
    kind, other, count, inner, coded_size = struct.unpack_from("<BB6xQQQ", payload)
    at = 32 + coded_size
    multipliers = numbers(dense(payload[32:at], count * width_of(other)), other)
    old = numbers(base[:size].ljust(size, b"\0"), kind)
    wide = 3 if 3 in (kind, other) else 2
    made = [rounded(number * multipliers[index // inner % count], wide) for index, number in enumerate(old)]
    return delta(payload[at:], size, prediction(made, kind, base, size))


def average(payload: bytes, size: int, first: bytes, second: bytes, dtype: str) -> bytes:
    """The value of an average payload."""
    kind = [name for name, *_ in FLOATS].index(dtype)
    if not len(first) == len(second) == size:
        raise ValueError("size of a base")
    wide = max(kind, 2)
    left, right = (rounded(weight, wide) for weight in (struct.unpack("<dd", payload) if payload else (0.5, 0.5)))
    made = [
        rounded(rounded(one * left, wide) + rounded(other * right, wide), wide)
        for one, other in zip(numbers(first, kind), numbers(second, kind), strict=True)
    ]
    mean, width = prediction(made, kind, first, size), width_of(kind)
    places = [slice(at, at + width) for at in range(0, size, width)]
    return b"".join(first[place] if first[place] == second[place] else mean[place] for place in places)


def width_of(kind: int) -> int:
    return sum(FLOATS[kind][1:], 1) // 8


def numbers(data: bytes, kind: int) -> list[float]:
    """The floats in bytes."""
    width = width_of(kind)
    return [number(int.from_bytes(data[at : at + width], "little"), kind) for at in range(0, len(data), width)]


def number(bits: int, kind: int) -> float:
    found: float = struct.unpack("<d", converted(bits, FLOATS[kind][1:], FLOATS[3][1:]).to_bytes(8, "little"))[0]
    return found


def bits_of(value: float, kind: int) -> int:
    """The bits of a number, rounded as `cast` has it."""
    bits: int = struct.unpack("<Q", struct.pack("<d", value))[0]
    for source, target in itertools.pairwise([3, *([2] if kind < 2 else []), kind]):
        bits = converted(bits, FLOATS[source][1:], FLOATS[target][1:])
    return bits


def rounded(value: float, kind: int) -> float:
    return number(bits_of(value, kind), kind)


def prediction(made: list[float], kind: int, base: bytes, size: int) -> bytes:
    width = width_of(kind)
    data = base[:size].ljust(size, b"\0")
    return b"".join(
        data[index * width : (index + 1) * width] if value != value else bits_of(value, kind).to_bytes(width, "little")
        for index, value in enumerate(made)
    )


UPDATES: dict[str, Callable[..., bytes]] = {
    "dense": dense,
    "delta": delta,
    "sparse": sparse,
    "cast": cast,
    "low-rank": low_rank,
    "ia3": ia3,
}
