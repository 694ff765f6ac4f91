"""Audits of the store: which objects history needs, whether they are here and whole, and what nothing needs."""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from git_theta import history, transfer
from git_theta.errors import ManifestError, RepositoryError, TransferError
from git_theta.git import Repository
from git_theta.history import Found
from git_theta.store import Store

__all__ = [
    "EVERYTHING",
    "Fault",
    "Needs",
    "Spare",
    "check",
    "needs",
    "not_fetched",
    "remove",
    "set_aside",
    "spare",
    "sufferers",
    "unreadable",
]

EVERYTHING = ("--indexed-objects", "--all", "--reflog", "--indexed-objects")
"""What no object may be taken from: every ref, reflog, index, stash and worktree (git-rev-list(1)).

They are read in this order: what a commit or a stash takes out of the index meanwhile, or a `stash pop` puts there, is
seen at one end.
"""

YOUNG_S = 3600


class Fault(Enum):
    """What is wrong with an object."""

    MISSING = "missing"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Needs:
    """The manifests of a history, the objects (oid to size in bytes) that they name, and blobs that cannot be read."""

    objects: dict[str, int] = field(default_factory=dict)
    manifests: list[str] = field(default_factory=list)
    broken: list[Found] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Spare:
    """Objects (oid to size in bytes) that nothing needs: those that a remote has as well, and those that only we have.

    `young` ones may belong to a commit that is being made.
    """

    elsewhere: dict[str, int]
    only_here: dict[str, int]
    young: dict[str, int]


def needs(repository: Repository) -> Needs:
    """What the manifests in all of the history need, and in what is being made."""
    return _sum(history.manifests_of(repository, [*EVERYTHING, *repository.in_progress()], []))


def _sum(items: Iterable[Found]) -> Needs:
    found = Needs()
    for item in items:
        if item.manifest is None:
            found.broken.append(item)
        else:
            found.manifests.append(item.blob)
            found.objects.update(item.manifest.objects())
    return found


def unreadable(found: Needs) -> ManifestError:
    """The error that says that nothing may be removed while nobody knows what some manifests need."""
    first = found.broken[0]
    return ManifestError(f"blob {first.blob}: its manifest cannot be used ({first.problem}); nothing was removed")


def check(
    objects: Mapping[str, int], store: Store, progress: Callable[[int], None] = lambda size_bytes: None
) -> dict[str, Fault]:
    """The objects that are missing or whose bytes are not what their name says; all of them are read."""
    damaged = store.damaged(objects, progress)
    return {oid: Fault.DAMAGED if store.path(oid).exists() else Fault.MISSING for oid in damaged}


def not_fetched(repository: Repository, missing: Iterable[str]) -> set[str]:
    """Those of the missing objects that a clone need not have: of versions that a remote has, and that are not out.

    What the index has is to be here, unless a sparse checkout leaves it out, and so is what was never pushed, as far as
    tags and remote-tracking refs tell. A bare repository is to have everything.
    """
    if not repository.remotes() or repository.worktree is None:
        return set()
    there = _sum(history.manifests_of(repository, ["--remotes", "--tags", *repository.remote_reflogs()], []))
    here = _sum(history.manifests(repository, [entry.oid for entry in repository.index() if not entry.sparse]))
    return {oid for oid in missing if oid in there.objects and oid not in here.objects}


def set_aside(oids: Sequence[str], store: Store) -> None:
    """Move damaged objects out of the way, to `theta/damaged`, so that whole ones can be fetched or added again."""
    folder = store.root / "damaged"
    store.sharing.make_folder(folder)
    for oid in oids:
        with suppress(FileNotFoundError):
            store.path(oid).replace(folder / oid)


def sufferers(repository: Repository, blobs: Sequence[str], faulty: Container[str]) -> Iterator[tuple[str, str, str]]:
    """(blob, parameter, oid) for every parameter that a faulty object belongs to; "" is the layout."""
    for found in history.manifests(repository, blobs):
        if found.manifest is not None:
            for name, record in [("", found.manifest.layout), *found.manifest.parameters.items()]:
                for step in record.store:
                    for piece in step.pieces:
                        if piece.oid in faulty:
                            yield found.blob, name, piece.oid


def spare(repository: Repository, store: Store, needed: Mapping[str, int], remotes: Sequence[str]) -> Spare:
    """What the store has and nothing needs; a remote has of it what its pointers name, unless its server lacks some."""
    found = Spare({}, {}, {})
    limit = time.time() - YOUNG_S
    for path in store.objects():
        if path.name not in needed:
            try:
                status = path.stat()
            except FileNotFoundError:  # another prune was faster
                continue
            if status.st_mtime > limit:
                found.young[path.name] = status.st_size
            else:
                found.only_here[path.name] = status.st_size
    for remote in remotes:
        with suppress(TransferError, RepositoryError):  # a remote that cannot be reached vouches for nothing
            for oid, size in transfer.vouched(repository, remote, found.only_here).items():
                found.elsewhere[oid] = size
                del found.only_here[oid]
    return found


def remove(objects: Mapping[str, int], store: Store) -> dict[str, int]:
    """Remove objects, but for those that another process has taken into use since they were found; the removed ones."""
    limit = time.time() - YOUNG_S
    return {oid: size for oid, size in objects.items() if store.remove(oid, limit)}
