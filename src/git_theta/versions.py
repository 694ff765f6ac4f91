"""A version of a checkpoint to be compared: its manifest, and where its values are.

One that is kept has its values in the store. A file on the disk gets the manifest that it would have, with digests and
without objects: nothing is stored.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta import layout as layouts
from git_theta import plugins, tracked, value
from git_theta.checkpoint import segment
from git_theta.errors import ChangedError, DataError, InputError, ManifestError, RepositoryError
from git_theta.layout import MAX_LAYOUT_BYTES, Layout
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest, Record, Step, parse
from git_theta.names import shown, shown_path
from git_theta.source import BytesSource, FileSource, Source
from git_theta.statistics import Values
from git_theta.store import Store
from git_theta.tensor import OPAQUE
from git_theta.tracked import Kind
from git_theta.updates.base import CHUNK_BYTES, Described
from git_theta.value import SourceValue, digest_of

__all__ = ["StoredValues", "Version", "of_blob", "of_file", "of_manifest"]

_HEAD_BYTES = 65536
_LONGEST_DESCRIPTION = 30


@dataclass(frozen=True, slots=True)
class Version:
    """A version; `is_kept` says whether it is stored, and so what it costs to keep."""

    manifest: Manifest
    values: Values
    is_kept: bool

    def described(self, step: Step) -> str:
        """What is to be said of a step of a kept version beside its update; "" where nothing is, or it is not here."""
        return self.values.described(step) if isinstance(self.values, StoredValues) else ""

    def layout(self) -> Layout:
        """The order of its parameters, and what stands between them; raises ManifestError, DataError."""
        size = self.manifest.layout.size
        if size > MAX_LAYOUT_BYTES:
            raise ManifestError(f"its layout has {size} bytes, and at most {MAX_LAYOUT_BYTES} are read")
        return layouts.parse(b"".join(self.values.runs(self.manifest.layout)))


@dataclass(frozen=True, slots=True)
class StoredValues:
    """The values of records whose objects are in a store; `Values` of statistics.py."""

    store: Store

    def runs(self, record: Record) -> Iterator[bytes | memoryview]:
        return value.runs(record, self.store)

    def described(self, step: Step) -> str:
        """What the step's update has to say of its payload."""
        try:
            update = plugins.update(step.update)
            if not isinstance(update, Described):
                return ""
            with self.store.reader(step.pieces) as payload:
                return shown(update.described(payload)[:_LONGEST_DESCRIPTION])
        except (DataError, ManifestError, RepositoryError):
            return ""


@dataclass(frozen=True, slots=True)
class FileValues:
    """The values of a file, by their digests; `Values` of statistics.py."""

    source: FileSource
    places: Mapping[str, tuple[Source, int]]

    def runs(self, record: Record) -> Iterator[bytes | memoryview]:
        source, start = self.places[record.digest]
        for offset in range(0, record.size, CHUNK_BYTES):
            size = min(CHUNK_BYTES, record.size - offset)
            run = source.read(start + offset, size)
            if len(run) != size:
                raise ChangedError("it became shorter while it was read; try again")
            yield run
        self.source.check_unchanged()


def of_manifest(manifest: Manifest, store: Store) -> Version:
    """A version that is kept."""
    return Version(manifest, StoredValues(store), is_kept=True)


def of_blob(content: bytes, store: Store, parse: Callable[[bytes], Manifest] = parse) -> Version:
    """The version whose manifest Git has; raises ManifestError where it is none, or cannot be used."""
    kind, manifest, problem = tracked.read(content, parse)
    if manifest is None:
        raise ManifestError(problem if kind is Kind.INVALID else "Git has it as it is, not as a manifest")
    return of_manifest(manifest, store)


@contextmanager
def of_file(path: Path, store: Store | None, threads: int) -> Iterator[Version]:
    """The version in a file, whose values are read from it until the block ends; a manifest stands for its checkpoint.

    Every value is hashed, in threads. Raises InputError where there is no such file.
    """
    if not path.is_file():
        raise InputError("no such file")
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        source = FileSource(fd, shown_path(str(path)))
        is_text = source.size <= MAX_MANIFEST_BYTES and tracked.means_manifest(source.read(0, _HEAD_BYTES))
        if not is_text:
            yield _hashed(source, threads)
        elif store is None:
            raise InputError("it is a manifest, whose objects are in the repository that it comes from")
        else:
            yield of_blob(source.read(0, source.size), store)
    finally:
        os.close(fd)


def _hashed(source: FileSource, threads: int) -> Version:
    """The version that a file is."""
    name, spans = segment(source)
    layout = layouts.build(spans, source)
    text = layouts.format(layout)
    values = [SourceValue(source, span.offset, span.size, span.dtype, span.shape) for span in spans]
    values.append(SourceValue(BytesSource(text), 0, len(text), OPAQUE, (len(text),)))
    with ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(lambda one: digest_of(one)[0], values))
    source.check_unchanged()
    records = {
        span.name: Record(span.dtype, span.shape, span.size, digest, (), span.strides, span.views)
        for span, digest in zip(spans, digests, strict=False)  # the layout, which is last, has no span
    }
    layout_record = Record(OPAQUE, (len(text),), len(text), digests[-1], ())
    whole = layouts.whole_digest(layout_record, layout, records)
    places = {digest: (one.source, one.offset) for digest, one in zip(digests, values, strict=True)}
    manifest = Manifest(name, source.size, whole, layout_record, records)
    return Version(manifest, FileValues(source, places), is_kept=False)
