"""Neighbours: checkpoints at other paths, whose values those of a file at a new path may build on.

A model converted to another dtype, or tuned and saved under another name, is new to Git, and yet most of what it is can
be here. The index is looked at once, and few manifests are read: those whose paths are most like the new one.
"""

import heapq
from collections.abc import Sequence

from git_theta import tracked
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import Manifest

__all__ = ["Neighbours"]

MAX_MANIFESTS = 8
MAX_MANIFEST_BYTES = 16 * 2**20
"""What the manifests that are read for one path may have together."""

MAX_ENTRIES = 10_000
"""Where the index has more, only files in the folder of the new one are neighbours: attributes take time to look up."""


class Neighbours:
    """The neighbours of files of one repository, as its index is when it is first asked for."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._index: list[IndexEntry] | None = None
        self._entries: dict[bytes, list[IndexEntry]] = {}
        self._read: dict[str, Manifest | None] = {}
        self._made: dict[bytes, Manifest] = {}

    def remember(self, path: bytes, made: Manifest) -> None:
        """Take what is about to be stored at a path for a neighbour of the next."""
        self._made.pop(path, None)
        self._made[path] = made
        if len(self._made) > MAX_MANIFESTS:
            del self._made[next(iter(self._made))]

    def of(self, path: bytes) -> list[Manifest]:
        """The manifests at other paths that are most like this one, the likest last."""
        staged = {entry.path: entry.oid for entry in self._tracked(path) if entry.path not in self._made}
        others = {*staged, *self._made} - {path}
        nearest = heapq.nlargest(MAX_MANIFESTS, sorted(others), key=lambda other: _likeness(path, other))
        self._load([staged[other] for other in nearest if other in staged])
        found = [self._made[other] if other in self._made else self._read.get(staged[other]) for other in nearest]
        return [manifest for manifest in reversed(found) if manifest is not None]

    def _tracked(self, path: bytes) -> list[IndexEntry]:
        """The tracked files of the index that may be neighbours."""
        if self._index is None:
            self._index = self._repository.index()
        folder = path.rpartition(b"/")[0] if len(self._index) > MAX_ENTRIES else b""
        if folder not in self._entries:
            rows = self._index
            if len(rows) > MAX_ENTRIES:
                rows = [row for row in rows if row.path.rpartition(b"/")[0] == folder][:MAX_ENTRIES]
            # What a sparse checkout leaves out may not be on this machine.
            rows = [row for row in rows if not row.sparse and row.path.rpartition(b"/")[2] != b".gitattributes"]
            self._entries[folder] = tracked.chosen(self._repository, rows)
        return self._entries[folder]

    def _load(self, oids: Sequence[str]) -> None:
        """Read those of the manifests that were not, as many as may be."""
        self._read = {oid: manifest for oid, manifest in self._read.items() if oid in oids}
        wanted = []
        room = MAX_MANIFEST_BYTES
        for oid, size in self._repository.blob_sizes([oid for oid in oids if oid not in self._read]).items():
            if size <= room:
                wanted.append(oid)
                room -= size
        for oid, text in self._repository.blobs(wanted, MAX_MANIFEST_BYTES).items():
            self._read[oid] = tracked.read(text)[1]


def _likeness(path: bytes, other: bytes) -> tuple[int, int]:
    """How many bytes of the file names are the same at their ends, and of the folders at their beginning."""
    folder, _, name = path.rpartition(b"/")
    other_folder, _, other_name = other.rpartition(b"/")
    before = _same(name, other_name)
    behind = _same(name[before:][::-1], other_name[before:][::-1])
    return before + behind, _same(folder, other_folder)


def _same(one: bytes, other: bytes) -> int:
    """How many bytes are the same at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))
