"""Manifests made of a few words, for what is decided on manifests alone."""

from collections.abc import Mapping
from dataclasses import replace

from blake3 import blake3

from git_theta.manifest import Manifest, Piece, Record, Step
from git_theta.tensor import View, nbytes

__all__ = ["manifest", "record"]


def _hash(text: str) -> str:
    return blake3(text.encode()).hexdigest()


def record(
    content: object,
    dtype: str = "F32",
    shape: tuple[int, ...] = (2, 3),
    views: Mapping[str, View | None] | None = None,
    strides: tuple[int, ...] | None = None,
) -> Record:
    """A record whose digest stands for its `content`; a view that is None is of the whole value."""
    size = nbytes(dtype, shape)
    oid = _hash(f"object {content}")
    faces = tuple(view or View(name, dtype, shape, 0, strides) for name, view in (views or {}).items())
    return Record(
        dtype, shape, size, _hash(str(content)), (Step("dense", (Piece(oid, size, 0, size),)),), strides, faces
    )


def manifest(skeleton: str = "", /, **parameters: object) -> Manifest:
    """A checkpoint of parameters; "__" in a name is a dot. What is no record is the content of one.

    As in a real file, the layout is another one where the skeleton is, or a name, a dtype, a shape or a tie.
    """
    records = {
        name.replace("__", "."): row if isinstance(row, Record) else record(row) for name, row in parameters.items()
    }
    places = {name: replace(row, digest="", store=()) for name, row in records.items()}
    layout = record(f"layout {skeleton} {sorted(places.items())}", "U8", (9,))
    whole = _hash(layout.digest + str([row.digest for row in records.values()]))
    return Manifest("safetensors", sum(row.size for row in records.values()), whole, layout, records)
