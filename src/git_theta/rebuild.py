"""Rebuilding a checkpoint: a manifest and objects become the file again, byte for byte.

No format is needed: the layout says which parts to put one after another. `runs` gives the bytes in order, for a pipe;
`write` fills a file in any order, in threads. Every value is hashed on the way; bytes may have been given out before
the digest of their value is known, so nothing may be used before the end was reached without an error.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from git_theta import layout as layouts
from git_theta import value
from git_theta.depot import Depot
from git_theta.errors import DamagedObjectError, ManifestError, MissingObjectError, ThetaError
from git_theta.layout import MAX_LAYOUT_BYTES, Layout
from git_theta.manifest import Manifest, Record
from git_theta.names import shown
from git_theta.source import Source
from git_theta.value import BUFFERED_BYTES, SourceValue

__all__ = ["holds", "is_same", "naming", "read_layout", "runs", "write", "write_at"]

GROUP_BYTES = 4 * 2**20
AHEAD_BYTES = 64 * 2**20
WRITE_BYTES = 64 * 2**10

Run = bytes | memoryview


@dataclass(frozen=True, slots=True)
class _Item:
    """The parameter `record`, or skeleton bytes."""

    name: str
    record: Record | None
    skeleton: Run = b""


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighbouring parts, rebuilt by one thread: `size` bytes at `offset` of the file."""

    offset: int
    size: int
    items: tuple[_Item, ...]


def read_layout(manifest: Manifest, depot: Depot) -> Layout:
    """The layout of a checkpoint; raises ManifestError where it and the manifest contradict each other."""
    if manifest.layout.size > MAX_LAYOUT_BYTES:
        raise ManifestError(f"its layout has {manifest.layout.size} bytes, and at most {MAX_LAYOUT_BYTES} are read")
    with naming("the layout"):
        layout = layouts.parse(b"".join(value.runs(manifest.layout, depot.store)))
    named = {part.name: part.size for part in layout.parts if part.name is not None}
    if layout.size != manifest.size or named != {name: row.size for name, row in manifest.parameters.items()}:
        raise ManifestError("its layout does not place its parameters, or is not of its size")
    if layouts.whole_digest(manifest.layout, layout, manifest.parameters) != manifest.digest:
        raise ManifestError("its digest is not that of its layout and parameters")
    return layout


def is_same(made: Manifest, other: Manifest, source: Source, depot: Depot) -> bool:
    """Whether another manifest is of the same bytes as the one just made of `source`, and this machine vouches for it.

    The other may cut the file in another way, if a format was missing or has learnt something since: only then the
    source is read again, as far as the first difference.
    """
    if made.size != other.size or (made.layout.digest == other.layout.digest) != (made.digest == other.digest):
        return False
    if not all(row.store in depot.catalogue.find(row.digest, row.dtype, row.shape) for row in other.records()):
        return False
    if depot.store.missing(other.objects()):
        return False
    return made.digest == other.digest or holds(source, other, depot)


def holds(source: Source, manifest: Manifest, depot: Depot) -> bool:
    """Whether the source has the bytes of a manifest's parts, at their places."""
    if source.size != manifest.size:
        return False
    try:
        layout = read_layout(manifest, depot)
    except ThetaError:
        return False
    offset = skeleton = 0
    rows: list[tuple[SourceValue, str]] = []
    for part in layout.parts:
        if part.name is None:
            if source.read(offset, part.size) != layout.skeleton[skeleton : skeleton + part.size]:
                return False
            skeleton += part.size
        else:
            record = manifest.parameters[part.name]
            rows.append((SourceValue(source, offset, part.size, record.dtype, record.shape), record.digest))
        offset += part.size
    with ThreadPoolExecutor(depot.settings.thread_count) as pool:
        return all(pool.map(lambda row: value.digest_of(row[0])[0] == row[1], rows))


def runs(manifest: Manifest, layout: Layout, depot: Depot) -> Iterator[Run]:
    """The bytes of the file, in order; small groups are rebuilt ahead in threads, large values one run ahead."""
    threads = depot.settings.thread_count
    waiting: deque[tuple[int, Future[list[Run]] | _Group]] = deque()
    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as reader:
        for group in [*_groups(manifest, layout), None]:
            if group is not None:
                large = group.size > BUFFERED_BYTES
                waiting.append((0, group) if large else (group.size, pool.submit(_collect, group, depot)))
            while waiting and (group is None or len(waiting) > threads + 1 or sum(n for n, _ in waiting) > AHEAD_BYTES):
                _, first = waiting.popleft()
                yield from _ahead(_group_runs(first, depot), reader) if isinstance(first, _Group) else first.result()


def write(
    manifest: Manifest,
    layout: Layout,
    depot: Depot,
    fd: int,
    *,
    progress: Callable[[int], None] = lambda size_bytes: None,
) -> None:
    """Fill the empty file `fd`, which is the caller's to close, in threads.

    `progress` is told of bytes written, from several threads.
    """
    os.ftruncate(fd, manifest.size)
    lock = threading.Lock()

    def fill(group: _Group) -> None:
        offset = group.offset
        for run in _group_runs(group, depot):
            write_at(fd, offset, memoryview(run), lock)
            offset += len(run)
            progress(len(run))

    with ThreadPoolExecutor(depot.settings.thread_count) as pool:
        futures = [pool.submit(fill, group) for group in _groups(manifest, layout)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _groups(manifest: Manifest, layout: Layout) -> Iterator[_Group]:
    """The parts in file order, neighbours together up to about 4 MiB, so that a thread has something to do."""
    items: list[_Item] = []
    offset = size = skeleton = 0
    view = memoryview(layout.skeleton)
    for part in layout.parts:
        if items and size + part.size > GROUP_BYTES:
            yield _Group(offset, size, tuple(items))
            items, offset, size = [], offset + size, 0
        if part.name is None:
            items.append(_Item("", None, view[skeleton : skeleton + part.size]))
            skeleton += part.size
        else:
            items.append(_Item(part.name, manifest.parameters[part.name]))
        size += part.size
    if items:
        yield _Group(offset, size, tuple(items))


def _collect(group: _Group, depot: Depot) -> list[Run]:
    return list(_group_runs(group, depot))


def _group_runs(group: _Group, depot: Depot) -> Iterator[Run]:
    for item in group.items:
        if item.record is None:
            yield item.skeleton
        else:
            with naming(f"parameter '{shown(item.name)}'"):
                yield from value.runs(item.record, depot.store)


def _ahead(given: Iterator[Run], pool: ThreadPoolExecutor) -> Iterator[Run]:
    """The same runs, the next one being made while the last one is used."""
    coming = pool.submit(next, given, None)
    while (run := coming.result()) is not None:
        coming = pool.submit(next, given, None)
        yield run


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Say which part of the checkpoint an error is about."""
    try:
        yield
    except (MissingObjectError, DamagedObjectError, ManifestError) as error:
        raise type(error)(f"{what}: {error}") from error


def write_at(fd: int, offset: int, view: memoryview, lock: threading.Lock) -> None:
    """Write all of `view` at `offset`; threads that write to one file share the lock."""
    # The system lets one thread at a time write to a file, and has others spin. Short writes take small pages, which
    # are more often at hand than large ones (docs/design/003-dense.md).
    with lock:
        while view:
            if hasattr(os, "pwrite"):
                count = os.pwrite(fd, view[:WRITE_BYTES], offset)
            else:  # Windows has no positioned write
                os.lseek(fd, offset, os.SEEK_SET)
                count = os.write(fd, view[:WRITE_BYTES])
            view, offset = view[count:], offset + count
