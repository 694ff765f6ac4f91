"""A checkpoint's file with the bytes of some parameters replaced: the rest of the file, and its layout, stay.

Streaming: a few MiB are in memory, whatever the size of the file. A format that keeps checksums of its tensors says how
they are mended (`formats/base.py`, `Sealed`).
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from git_theta import plugins
from git_theta.errors import InputError
from git_theta.formats.base import Sealed, Span
from git_theta.names import shown
from git_theta.source import FileSource, Source

__all__ = ["Runs", "copy", "write"]

Runs = Iterator[bytes | memoryview]

_CHUNK_BYTES = 2 * 2**20


def copy(source: Source, fd: int, progress: Callable[[int], None] = lambda size_bytes: None) -> None:
    """Fill the empty file `fd`, which is the caller's to close, with the source's bytes."""
    _fill(fd, _copied(source, 0, source.size), progress)


def write(
    source: Source,
    format_name: str,
    spans: Sequence[Span],
    values: Mapping[str, Callable[[], Runs]],
    fd: int,
    progress: Callable[[int], None] = lambda size_bytes: None,
) -> None:
    """Fill the empty file `fd` with the source's bytes, those of the parameters in `values` being others.

    `format_name` and `spans` are what `checkpoint.segment` says of the source; a value has the size of its span, and
    its runs are taken once. Raises InputError, naming the parameter, where it has another size.
    """
    changed = sorted((span for span in spans if span.name in values), key=lambda span: span.offset)
    _fill(fd, _spliced(source, changed, values), progress)
    sealed: object = plugins.format(format_name)
    if isinstance(sealed, Sealed):
        made = FileSource(fd, "the new file")
        for offset, data in list(sealed.mended(made, [(span.offset, span.size) for span in changed])):
            os.lseek(fd, offset, os.SEEK_SET)
            _write(fd, memoryview(data))


def _spliced(source: Source, changed: Sequence[Span], values: Mapping[str, Callable[[], Runs]]) -> Runs:
    end = 0
    for span in changed:
        yield from _copied(source, end, span.offset)
        size = 0
        for run in values[span.name]():
            size += len(run)
            if size <= span.size:
                yield run
        if size != span.size:
            raise InputError(f"parameter '{shown(span.name)}': a value of {size} bytes takes the place of {span.size}")
        end = span.offset + span.size
    yield from _copied(source, end, source.size)


def _copied(source: Source, start: int, end: int) -> Runs:
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, end - start)))
    for offset in range(start, end, _CHUNK_BYTES):
        run = buffer[: min(_CHUNK_BYTES, end - offset)]
        source.read_into(offset, run)
        yield run


def _fill(fd: int, runs: Runs, progress: Callable[[int], None]) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    for run in runs:
        _write(fd, memoryview(run))
        progress(len(run))


def _write(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]
