"""History: the manifests that commits hold, wherever they stand in it.

A manifest is known by its content, not by attributes, which change over a history: every blob of a fitting size is
looked at. Blobs are streamed, a few at a time in memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from git_theta import manifest
from git_theta.errors import ManifestError
from git_theta.git import Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest

__all__ = ["Found", "blobs_of", "manifests", "manifests_of"]

_SHORTEST = 150


@dataclass(frozen=True, slots=True)
class Found:
    """A blob that is a manifest; `manifest` is None, and `problem` says why, where it cannot be used."""

    blob: str
    manifest: Manifest | None
    problem: str = ""


def manifests_of(repository: Repository, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Found]:
    """The manifests in commits reachable from `include` and not from `exclude` (revisions, or rev-list's options)."""
    return manifests(repository, blobs_of(repository, include, exclude))


def blobs_of(repository: Repository, include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The oids of objects, blobs among them, in those commits; what a partial clone has not fetched is left out."""
    options = [word for word in (*include, *exclude) if word.startswith("--")]
    revisions = [word for word in include if not word.startswith("--")]
    revisions += [f"^{word}" for word in exclude if not word.startswith("--")]
    listing = repository.git(
        "rev-list",
        "--objects",
        "--no-object-names",
        "--missing=allow-any",
        "--stdin",
        *options,
        stdin="".join(f"{word}\n" for word in revisions).encode(),
    )
    return listing.decode().split()


def manifests(repository: Repository, oids: Iterable[str]) -> Iterator[Found]:
    """Those of the objects that are manifests, or mean to be."""
    sizes = repository.blob_sizes(oids)
    fitting = [oid for oid, size in sizes.items() if _SHORTEST <= size <= MAX_MANIFEST_BYTES]
    for oid, content in repository.stream_blobs(fitting):
        if not manifest.starts_like(content):
            continue
        try:
            yield Found(oid, manifest.parse(content))
        except ManifestError as error:
            yield Found(oid, None, str(error))
