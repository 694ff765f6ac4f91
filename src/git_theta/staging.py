"""Staging: manifests put into Git's index without Git cleaning the files that they stand for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from git_theta.errors import ChangedError
from git_theta.git import IndexEntry, Repository
from git_theta.names import shown_path

__all__ = ["Change", "stage"]


@dataclass(frozen=True, slots=True)
class Change:
    """A manifest's text for the index.

    `entry` is what the index has at the path now, with an empty oid where it has nothing; its mode is kept. `status` is
    how a file of the manifest's content lies there, looked up before the content was; None where Git is to look.
    """

    entry: IndexEntry
    text: bytes
    status: os.stat_result | None = None


def stage(repository: Repository, changes: Sequence[Change]) -> None:
    """Put the texts into the index, all of them or none, and note there how their files lie, so that a status is quick.

    Raises ChangedError where a path was staged anew meanwhile, RepositoryError where another process holds the index.
    """
    if not changes:
        return
    found = {row.path: row.oid for row in repository.index([change.entry.path for change in changes])}
    for change in changes:
        if found.get(change.entry.path, "") != change.entry.oid:
            raise ChangedError(f"{shown_path(change.entry.path)}: it was staged anew meanwhile; run this again")
    oids = repository.write_blobs((change.text for change in changes), loose=True)
    repository.enter([replace(change.entry, oid=oid) for change, oid in zip(changes, oids, strict=True)])
    notes = {
        change.entry.path: (oid, change.status)
        for change, oid in zip(changes, oids, strict=True)
        if change.status is not None
    }
    if notes and not repository.note_stat(notes):
        repository.refresh(list(notes))
