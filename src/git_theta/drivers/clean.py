"""Clean: what Git pipes in becomes the manifest that it stores (design.md, "The way of the data").

Git nearly always pipes the file that lies at the path in the worktree. That file is taken in by threads while the pipe
is drained and compared with it: no copy is made. Where they differ (`hash-object --stdin --path`, a renormalising
merge), the pipe is written to a temporary file and that is taken in.
"""

import itertools
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from git_theta import checkpoint, manifest, rebuild
from git_theta.depot import Depot, spooled
from git_theta.drivers.meter import Meter
from git_theta.errors import LaterVersionError, ManifestError
from git_theta.git import Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.names import shown
from git_theta.neighbours import Neighbours
from git_theta.overrides import Overrides, attribute_files
from git_theta.source import BytesSource, FileSource, Source

__all__ = ["Cleaner"]

_BLOCK_BYTES = 2**19


@dataclass(frozen=True, slots=True)
class _Known:
    """What the index and HEAD have at a path, and the attribute files for it that the index has."""

    texts: list[bytes]
    attributes: AbstractSet[bytes]


class Cleaner:
    """Turns content into manifests for one repository."""

    def __init__(self, repository: Repository, depot: Depot, overrides: Overrides) -> None:
        self._repository = repository
        self._depot = depot
        self._overrides = overrides
        self._neighbours = Neighbours(repository)

    def clean(self, path: str, packets: Iterator[bytes | memoryview]) -> bytes:
        """The text that Git is to store for the content in `packets`, all of which is read."""
        head = bytearray()
        for packet in packets:
            head += packet
            if manifest.is_too_long_to_hold(head):
                return self._clean_stream(path, bytes(head), packets)
        return self._clean_held(path, bytes(head))

    def _clean_held(self, path: str, content: bytes) -> bytes:
        """For content that fits into memory: nothing, a manifest, or a small checkpoint."""
        if not content:
            return content
        known = self._known(path)
        if manifest.starts_like(content) or manifest.looks_like(content):
            try:
                return manifest.format(manifest.parse(content))
            except ManifestError as error:
                if content in known.texts:
                    return content
                if isinstance(error, LaterVersionError):
                    raise
                if manifest.has_conflict_markers(content):
                    raise ManifestError(
                        "it is a manifest with conflict markers; merge it: git theta resolve PATH; or take a side: "
                        "git checkout --ours (or --theirs) -- PATH, then git add PATH"
                    ) from error
                sys.stderr.write(
                    f"git-theta: {shown(path)}: it looks like a manifest, but {error}; stored as a file of its own\n"
                )
        return self._text(path, BytesSource(content), known)

    def _clean_stream(self, path: str, head: bytes, packets: Iterator[bytes | memoryview]) -> bytes:
        fd = _open_regular(path)
        if fd is None:
            with spooled(self._depot, [head], packets) as spool:
                return self._take(path, spool)
        try:
            source = FileSource(fd, shown(path))
            stop = threading.Event()
            with ThreadPoolExecutor(1) as background:
                taken = background.submit(self._take, path, source, stop)
                try:
                    same, unequal = _compare(source, head, packets)
                    if unequal is None:
                        text = taken.result()
                        source.check_unchanged()
                        return text
                finally:
                    stop.set()
            with spooled(self._depot, _copied(source, same, unequal), packets) as spool:
                source.check_unchanged()
                return self._take(path, spool)
        finally:
            os.close(fd)

    def _take(self, path: str, source: FileSource, stop: threading.Event | None = None) -> bytes:
        with Meter(shown(path), source.size) as meter:
            return self._text(path, source, self._known(path), progress=meter.add, stop=stop)

    def _text(
        self,
        path: str,
        source: Source,
        known: _Known,
        progress: Callable[[int], None] = lambda size_bytes: None,
        stop: threading.Event | None = None,
    ) -> bytes:
        """The manifest's text: one of the known texts, if the content is the same, however its writer cut the file."""
        name = os.fsencode(path)
        depot = replace(self._depot, settings=self._overrides.at(name, known.attributes))
        manifests = _parsed(known.texts)
        bases = list(manifests.values()) or self._strangers(name, source, depot)
        made = checkpoint.take(source, depot, bases, progress=progress, stop=stop)
        for text, other in manifests.items():
            if other == made or rebuild.is_same(made, other, source, depot):
                return text
        self._neighbours.remember(name, made)
        return manifest.format(made)

    def _strangers(self, path: bytes, source: Source, depot: Depot) -> list[Manifest]:
        """Checkpoints at other paths for a file at a new one to build on, where it can gain from it."""
        if source.size < checkpoint.SMALL_BYTES or not depot.settings.is_incremental:
            return []
        return self._neighbours.of(path)

    def _known(self, path: str) -> _Known:
        """What the index and HEAD have at the path, unless it is too long for a manifest."""
        name = os.fsencode(path)
        files = attribute_files(name)
        rows = {entry.path: entry.oid for entry in self._repository.index([name, *files])}
        head = self._repository.blob_at("HEAD", name)
        oids = [oid for oid in (rows.get(name), head) if oid]
        blobs = self._repository.blobs(oids, MAX_MANIFEST_BYTES)
        return _Known(list(blobs.values()), rows.keys() & files)


def _parsed(texts: Iterable[bytes]) -> dict[bytes, Manifest]:
    """Those of the texts that are manifests."""
    found = {}
    for text in texts:
        if manifest.starts_like(text):
            with suppress(ManifestError):
                found[text] = manifest.parse(text)
    return found


def _open_regular(path: str) -> int | None:
    """The worktree's file at the path, opened; None where there is none or it is no regular file."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        fd = os.open(path, flags)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def _compare(source: FileSource, head: bytes, packets: Iterator[bytes | memoryview]) -> tuple[int, bytes | None]:
    """How many bytes of the pipe equal the source's, and the run that first differs; None if nothing does."""
    block = bytearray(max(_BLOCK_BYTES, len(head)))
    offset = start = stop = 0  # the block has what the source has from `start` to `stop`
    # Not a generator's `yield from`: what is left of the packets is read later, and a generator that goes closes them.
    for run in itertools.chain([head], packets):
        if offset + len(run) > stop:
            start, stop = offset, min(offset + len(block), source.size)
            source.read_into(start, memoryview(block)[: stop - start])
        if not block.startswith(run, offset - start, stop - start):
            return offset, bytes(run)
        offset += len(run)
    return (offset, None) if offset == source.size else (offset, b"")


def _copied(source: FileSource, size: int, unequal: bytes) -> Iterator[bytes]:
    for offset in range(0, size, _BLOCK_BYTES):
        yield source.read(offset, min(_BLOCK_BYTES, size - offset))
    yield unequal
