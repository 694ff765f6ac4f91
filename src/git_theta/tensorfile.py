"""Tensors read by name from a file of any checkpoint format: through `formats/`, so nothing in it is executed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta.checkpoint import segment
from git_theta.errors import FormatError, InputError
from git_theta.formats.base import Span
from git_theta.names import shown, shown_path
from git_theta.source import FileSource, Source
from git_theta.tensor import DTYPES, Tensor, nbytes

__all__ = ["MAX_READ_BYTES", "TensorFile", "opened"]

MAX_READ_BYTES = 16 * 2**30


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's elements lie: as a span, or a view of one, has it; `offset` is in elements of the span."""

    span: Span
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None


class TensorFile:
    """The tensors of a source, each read when it is asked for."""

    def __init__(self, source: Source) -> None:
        self.format, spans = segment(source)
        self._source = source
        self._room = MAX_READ_BYTES
        self._places: dict[str, _Place] = {}
        for span in spans:
            self._places[span.name] = _Place(span, span.dtype, span.shape, 0, span.strides)
            for view in span.views:
                self._places[view.name] = _Place(span, view.dtype, view.shape, view.offset, view.strides)

    @property
    def names(self) -> list[str]:
        """The names of all tensors, in file order; not those of bytes that are none."""
        return [name for name in self._places if not name.startswith("~") and not name.endswith("~storage")]

    def read(self, name: str) -> Tensor:
        """A tensor of `names`; raises InputError that names it where it cannot be read."""
        place = self._places[name]
        try:
            size = nbytes(place.dtype, place.shape)
        except FormatError as error:
            raise InputError(f"tensor '{shown(name)}': {error}") from error
        if size > place.span.size:
            raise InputError(f"tensor '{shown(name)}' repeats its elements; store it with every element of its own")
        self._room -= size
        if self._room < 0:
            raise InputError(f"tensor '{shown(name)}': more than {MAX_READ_BYTES} bytes of tensors are not read")
        return Tensor(place.dtype, place.shape, self._elements(name, place, size))

    def _elements(self, name: str, place: _Place, size: int) -> bytes:
        """The elements in C order."""
        bits = DTYPES[place.dtype].bits
        start = place.offset * bits // 8
        if place.strides is None:
            if start + size > place.span.size:
                raise InputError(f"tensor '{shown(name)}' ends behind its storage")
            return self._source.read(place.span.offset + start, size)
        import numpy as np

        width = bits // 8
        data = self._source.read(place.span.offset, place.span.size)
        strides = tuple(stride * width for stride in place.strides)
        try:
            elements: bytes = np.ndarray(place.shape, f"V{width}", data, start, strides).tobytes()
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"tensor '{shown(name)}' ends behind its storage") from error
        return elements


@contextmanager
def opened(path: Path) -> Iterator[TensorFile]:
    """The tensors of a file; raises InputError where there is none, or no checkpoint format reads it."""
    if not path.is_file():
        raise InputError("no such file")
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        file = TensorFile(FileSource(fd, shown_path(str(path))))
        if not file.names:
            raise InputError("no tensor is found in it")
        yield file
    finally:
        os.close(fd)
