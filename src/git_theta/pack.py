"""A pack of Git objects, written without starting Git, and without deltas: git-lfs takes 2 ms to undo a chain of those.

Source: gitformat-pack(5), pack version 2 and index version 2; gitglossary(7), "tree object". Nothing is flushed to the
disk: for folders that are thrown away.
"""

import hashlib
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

__all__ = ["write_tree"]

_TREE, _BLOB = 2, 3
_NAMES = {_TREE: b"tree", _BLOB: b"blob"}


def write_tree(folder: Path, files: Mapping[str, bytes], algorithm: str) -> str:
    """Write a tree of regular files, name to content, as a pack below an object directory; the tree's oid.

    `algorithm` makes the oids: "sha1" or "sha256".
    """
    blobs = {name: _oid(_BLOB, content, algorithm) for name, content in files.items()}
    rows = sorted((name.encode(), blobs[name]) for name in files)
    tree = b"".join(b"100644 %s\0%s" % row for row in rows)
    oid = _oid(_TREE, tree, algorithm)
    objects = {blobs[name]: (_BLOB, content) for name, content in files.items()} | {oid: (_TREE, tree)}
    _write(folder / "pack", objects, algorithm)
    return oid.hex()


def _oid(kind: int, content: bytes, algorithm: str) -> bytes:
    return _digest(b"%s %d\0%s" % (_NAMES[kind], len(content), content), algorithm)


def _digest(data: bytes | bytearray, algorithm: str) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


def _write(folder: Path, objects: Mapping[bytes, tuple[int, bytes]], algorithm: str) -> None:
    """Write a pack and its index: `objects` gives kind and content by oid."""
    pack = bytearray(struct.pack(">4sII", b"PACK", 2, len(objects)))
    places: dict[bytes, tuple[int, int]] = {}
    for oid, (kind, content) in objects.items():
        entry = _head(kind, len(content)) + zlib.compress(content, 0)
        places[oid] = len(pack), zlib.crc32(entry)
        pack += entry
    checksum = _digest(pack, algorithm)
    oids = sorted(objects)
    index = bytearray(struct.pack(">4sI", b"\xfftOc", 2))
    counts = Counter(oid[0] for oid in oids)
    index += struct.pack(">256I", *accumulate(counts[first] for first in range(256)))
    index += b"".join(oids)
    index += struct.pack(f">{len(oids)}I", *(places[oid][1] for oid in oids))
    index += struct.pack(f">{len(oids)}I", *(places[oid][0] for oid in oids))
    index += checksum
    name = f"pack-{checksum.hex()}"
    folder.mkdir()
    (folder / f"{name}.pack").write_bytes(pack + checksum)
    (folder / f"{name}.idx").write_bytes(index + _digest(index, algorithm))


def _head(kind: int, size: int) -> bytes:
    """An entry's kind and size: four bits of the size in the first byte, seven in each that follows."""
    head = bytearray([kind << 4 | size & 15])
    size >>= 4
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head)
