"""What a migration converts: the blobs of checkpoints and LFS pointers into manifests, or manifests into blobs.

A blob is dealt with once, wherever it stands in history. Whatever its size, little of it is in memory.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from git_theta import checkpoint, history, lfs, manifest, rebuild, transfer
from git_theta.depot import Depot, spooled
from git_theta.errors import DamagedObjectError, ManifestError, MissingObjectError
from git_theta.git import Repository
from git_theta.lfs import MAX_POINTER_BYTES
from git_theta.manifest import MAX_MANIFEST_BYTES
from git_theta.migration.database import Database
from git_theta.names import shown_path
from git_theta.source import BytesSource, FileSource, Source
from git_theta.store import Store

__all__ = ["Conversion", "Export", "Import", "fetch"]

_HELD_BYTES = 2**20

Progress = Callable[[int], None]


class Conversion(Protocol):
    """One direction; made for one repository."""

    def plan(self, paths: Mapping[str, bytes]) -> dict[str, int]:
        """Those of the blobs (oid to a path it has) that are to be converted, with the bytes of their files."""
        ...

    def missing(self) -> tuple[dict[str, int], Store]:
        """The objects (oid to size in bytes) that the conversion needs and the store lacks."""
        ...

    def convert(self, blob: str, database: Database, progress: Progress) -> str:
        """The oid of what a blob becomes, which may be its own."""
        ...


class Import:
    """Files and LFS pointers become manifests; what is a manifest stays."""

    def __init__(self, repository: Repository, depot: Depot, above_bytes: int = 0) -> None:
        self._repository = repository
        self._depot = depot
        self._above = above_bytes
        self._lfs = lfs.own_store(repository)
        self._pointers: dict[str, tuple[str, int]] = {}
        self._sizes: dict[str, int] = {}

    def plan(self, paths: Mapping[str, bytes]) -> dict[str, int]:
        self._sizes = self._repository.blob_sizes(paths)
        small = [oid for oid, size in self._sizes.items() if size <= MAX_POINTER_BYTES]
        for oid, content in self._repository.stream_blobs(small):
            if pointer := lfs.parse_pointer(content):
                self._pointers[oid] = pointer
        self._sizes |= {oid: size for oid, (_, size) in self._pointers.items()}
        return {oid: size for oid, size in self._sizes.items() if size > self._above}

    def missing(self) -> tuple[dict[str, int], Store]:
        needed = {oid: size for oid, size in self._pointers.values() if size > self._above}
        return self._lfs.missing(needed), self._lfs

    def convert(self, blob: str, database: Database, progress: Progress) -> str:
        if blob in self._pointers:
            with self._lfs_object(*self._pointers[blob]) as source:
                return self._taken(source, database, progress)
        packets = database.stream(blob)
        if self._sizes[blob] > _HELD_BYTES:
            with spooled(self._depot, [], packets) as spool:
                return blob if _is_manifest(spool) else self._taken(spool, database, progress)
        held = BytesSource(b"".join(packets))
        return blob if _is_manifest(held) else self._taken(held, database, progress)

    @contextmanager
    def _lfs_object(self, oid: str, size: int) -> Iterator[FileSource]:
        """The file that a pointer stands for; raises DamagedObjectError where it is another."""
        if not self._lfs.has(oid, size) or not self._lfs.is_intact(oid):
            path = shown_path(str(self._lfs.path(oid)))
            raise DamagedObjectError(f"{path}: this LFS object is damaged or gone; remove it, and run: git lfs fetch")
        fd = os.open(self._lfs.path(oid), os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            yield FileSource(fd, oid)
        finally:
            os.close(fd)

    def _taken(self, source: Source, database: Database, progress: Progress) -> str:
        return database.write(manifest.format(checkpoint.take(source, self._depot, progress=progress)), "blob")


class Export:
    """Manifests become the files that they stand for."""

    def __init__(self, repository: Repository, depot: Depot) -> None:
        self._repository = repository
        self._depot = depot
        self._objects: dict[str, int] = {}

    def plan(self, paths: Mapping[str, bytes]) -> dict[str, int]:
        sizes = {}
        for found in history.manifests(self._repository, paths):
            if found.manifest is None:
                raise ManifestError(
                    f"{shown_path(paths[found.blob])}: blob {found.blob}: its manifest cannot be used "
                    f"({found.problem}); to leave it: --exclude"
                )
            sizes[found.blob] = found.manifest.size
            self._objects |= found.manifest.objects()
        return sizes

    def missing(self) -> tuple[dict[str, int], Store]:
        return self._depot.store.missing(self._objects), self._depot.store

    def convert(self, blob: str, database: Database, progress: Progress) -> str:
        found = manifest.parse(database.read(blob, "blob"))
        fd, path = self._depot.store.temporary()
        try:
            try:
                layout = rebuild.read_layout(found, self._depot)
                rebuild.write(found, layout, self._depot, fd, progress=progress)
            finally:
                os.close(fd)
            return database.write_file(path)
        finally:
            path.unlink(missing_ok=True)


def fetch(conversion: Conversion, repository: Repository, remote: str | None, *, skip: bool) -> None:
    """Bring what a planned conversion needs here; raises MissingObjectError or TransferError where that cannot be."""
    missing, store = conversion.missing()
    if not missing:
        return
    if skip:
        raise MissingObjectError(
            f"object {next(iter(missing))} is not on this machine, nor are {len(missing) - 1} others that are needed; "
            "without --skip-fetch they are fetched; nothing was rewritten"
        )
    transfer.fetch(repository, missing, store, remote)


def _is_manifest(source: Source) -> bool:
    if source.size > MAX_MANIFEST_BYTES or not manifest.starts_like(source.read(0, 64)):
        return False
    try:
        manifest.parse(source.read(0, source.size))
    except ManifestError:
        return False
    return True
