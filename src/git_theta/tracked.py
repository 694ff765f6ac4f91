"""Tracked files: the files in the index whose `filter` attribute is "theta", and what Git stores for each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from git_theta import manifest
from git_theta.errors import ManifestError
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest

__all__ = ["FILTER", "Kind", "TrackedFile", "chosen", "entries", "find", "manifest_in", "means_manifest", "read"]

FILTER = "theta"
_FILE_MODES = ("100644", "100755")


class Kind(Enum):
    """What Git stores at a tracked path."""

    MANIFEST = "manifest"
    EMPTY = "empty"  # an empty file is stored as it is
    PLAIN = "plain"  # content that was committed before its path was tracked, or without the filter
    INVALID = "invalid"  # text that means to be a manifest, and cannot be used


@dataclass(frozen=True, slots=True)
class TrackedFile:
    """A file in the index: `manifest` is None unless `kind` is MANIFEST, `problem` says why an INVALID one is not."""

    entry: IndexEntry
    kind: Kind
    manifest: Manifest | None = None
    problem: str = ""

    @property
    def path(self) -> bytes:
        return self.entry.path


def entries(repository: Repository, paths: Iterable[bytes] = ()) -> list[IndexEntry]:
    """The tracked files at or below `paths`, or all, without a look at what is stored for them."""
    return chosen(repository, repository.index(paths))


def chosen(repository: Repository, rows: Iterable[IndexEntry]) -> list[IndexEntry]:
    """Those of the entries that are tracked files."""
    rows = [entry for entry in rows if entry.mode in _FILE_MODES]
    filters = repository.attributes([entry.path for entry in rows], "filter") if rows else {}
    return [entry for entry in rows if filters[entry.path] == FILTER]


def find(repository: Repository, rows: Sequence[IndexEntry]) -> Iterator[TrackedFile]:
    """The tracked files of `entries`, in its order; a few manifests are in memory at a time."""
    sizes = repository.blob_sizes([row.oid for row in rows])
    waiting: list[IndexEntry] = []
    room = MAX_MANIFEST_BYTES
    for row in rows:
        size = min(sizes.get(row.oid, 0), MAX_MANIFEST_BYTES)
        if waiting and size > room:
            yield from _read_all(repository, waiting, sizes)
            waiting, room = [], MAX_MANIFEST_BYTES
        waiting.append(row)
        room -= size
    yield from _read_all(repository, waiting, sizes)


def _read_all(repository: Repository, rows: Sequence[IndexEntry], sizes: dict[str, int]) -> Iterator[TrackedFile]:
    blobs = repository.blobs([row.oid for row in rows], MAX_MANIFEST_BYTES)
    for row in rows:
        if row.oid not in sizes:
            yield TrackedFile(row, Kind.INVALID, problem=f"its blob {row.oid} is not in the repository")
        elif row.oid not in blobs:
            yield TrackedFile(row, Kind.PLAIN)
        else:
            kind, found, problem = read(blobs[row.oid])
            yield TrackedFile(row, kind, found, problem)


def means_manifest(content: bytes) -> bool:
    """Whether content is a manifest, or meant to be one."""
    return manifest.starts_like(content) or manifest.looks_like(content)


def manifest_in(content: bytes | None) -> Manifest | None:
    """The manifest that content is; None where it is none, or cannot be used, or where there is no content."""
    return None if content is None else read(content)[1]


def read(content: bytes, parse: Callable[[bytes], Manifest] = manifest.parse) -> tuple[Kind, Manifest | None, str]:
    """What a blob's content is: its kind, the manifest if it is one, and why not if it means to be."""
    if not content:
        return Kind.EMPTY, None, ""
    if not means_manifest(content):
        return Kind.PLAIN, None, ""
    try:
        return Kind.MANIFEST, parse(content), ""
    except ManifestError as error:
        if manifest.has_conflict_markers(content):
            return Kind.INVALID, None, "its manifest has conflict markers; restore it: git checkout COMMIT -- PATH"
        return Kind.INVALID, None, f"its manifest cannot be used: {error}"
