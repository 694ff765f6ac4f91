"""Loose Git objects: written as files below an object directory, without starting Git, which takes far longer for many.

Source: gitformat-loose(5) and gitglossary(7), "tree object". They are not flushed to the disk: for folders that are
thrown away.
"""

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_blob", "write_tree"]


def write_blob(folder: Path, content: bytes, algorithm: str) -> str:
    """Write a blob below an object directory whose oids are made by `algorithm`, "sha1" or "sha256"; its oid."""
    return _write(folder, b"blob", content, algorithm)


def write_tree(folder: Path, blobs: Mapping[str, str], algorithm: str) -> str:
    """Write a tree of regular files, given as name to oid; its oid."""
    rows = sorted((name.encode(), bytes.fromhex(oid)) for name, oid in blobs.items())
    return _write(folder, b"tree", b"".join(b"100644 %s\0%s" % row for row in rows), algorithm)


def _write(folder: Path, kind: bytes, content: bytes, algorithm: str) -> str:
    data = b"%s %d\0%s" % (kind, len(content), content)
    oid = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    place = folder / oid[:2] / oid[2:]
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(zlib.compress(data, 1))
    return oid
