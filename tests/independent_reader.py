"""A second reader of the stored format, written from docs/format.md alone: it shows that the specification is enough.

Nothing here is shared with git_theta, and nothing is fast. It checks what a reader must check to give the true bytes;
what else has to be refused is tested against git_theta itself.
"""

import hashlib
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
    if any(step[0] != "dense" for step in record["store"]):
        raise ValueError("update")
    payload = b"".join(run(objects, *piece) for piece in record["store"][-1][1])
    data = dense(payload, size)
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
