"""A checkout of ours: which tracked files get their checkpoints, in place of what, and why not the others.

One file's error leaves that file as it was, and the others are dealt with.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from git_theta import manifest, tracked, worktree
from git_theta.errors import ChangedError, InputError, ManifestError, RepositoryError, ThetaError
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import MAX_MANIFEST_BYTES, Manifest
from git_theta.source import Stamp
from git_theta.tracked import Kind, TrackedFile
from git_theta.worktree import Presence

if TYPE_CHECKING:
    from git_theta.depot import Depot

__all__ = ["Failure", "Plan", "Write", "carry_out", "plan"]


@dataclass(frozen=True, slots=True)
class Write:
    """A checkpoint that is to be written to `place`, if that still is as it was `seen` (worktree.stamp)."""

    entry: IndexEntry
    place: Path
    manifest: Manifest
    seen: Stamp | None

    @property
    def path(self) -> bytes:
        return self.entry.path

    @property
    def size(self) -> int:
        """Bytes of the checkpoint."""
        return self.manifest.size


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a file was left as it was."""

    path: bytes
    error: ThetaError


@dataclass(frozen=True, slots=True)
class Plan:
    """What a checkout is to do, and what it already cannot."""

    writes: list[Write]
    failures: list[Failure]


def plan(
    repository: Repository, rows: Sequence[IndexEntry], depot: "Depot", *, named: bool, force: bool = False
) -> Plan:
    """What is to be written for these tracked files.

    `named`: the user asked for these very files; otherwise only those are meant whose file is missing or a manifest.
    Without `force`, a file that differs from the index is a failure. Raises SpaceError if the disk will not hold all.
    """
    made = Plan([], [])
    found: dict[bytes, tuple[Path, Presence, Stamp | None]] = {}
    for row in rows:
        with _collecting(made.failures, row.path):
            place = worktree.locate(repository, row.path)
            seen = worktree.stamp(place)
            found[row.path] = place, worktree.look(place), seen
    chosen = [row for row in rows if row.path in found and (named or _is_meant(row, found[row.path][1]))]
    held = [row.path for row in chosen if found[row.path][1] is Presence.CONTENT]
    changes = repository.changes(held) if held else {}
    # Git does not look at what it was told to assume unchanged; who forces a path wants it, whatever Git says.
    differing = {path for path in held if (named and force) or not changes.get(path, "..").endswith(".")}
    rest = [row for row in chosen if row.path in differing or found[row.path][1] is not Presence.CONTENT]
    for file in tracked.find(repository, rest):
        with _collecting(made.failures, file.path):
            place, presence, seen = found[file.path]
            if file.kind in (Kind.PLAIN, Kind.EMPTY) and not named:
                continue
            wanted = _checked(file, place, presence, force=force)
            worktree.check_objects(wanted, depot.store)
            made.writes.append(Write(file.entry, place, wanted, seen))
    worktree.check_space([(write.place, write.size) for write in made.writes])
    return made


def carry_out(
    repository: Repository, writes: Sequence[Write], depot: "Depot", begin: Callable[[Write], Callable[[int], None]]
) -> list[Failure]:
    """Write the files one after another, each in threads; `begin` gives the function that is told of bytes written."""
    failures: list[Failure] = []
    staged = {entry.path: entry for entry in repository.index([write.path for write in writes])} if writes else {}
    fresh = [write for write in writes if staged.get(write.path) == write.entry]
    late = ChangedError("it was staged anew meanwhile; run this again")
    failures += [Failure(write.path, late) for write in writes if write not in fresh]
    with worktree.settling(repository, [write.entry for write in fresh]) as note:
        for write in fresh:
            with _collecting(failures, write.path):
                executable = write.entry.mode == "100755"
                stamp = worktree.put(
                    write.manifest, write.place, depot, seen=write.seen, executable=executable, progress=begin(write)
                )
                note(write.entry, write.place, stamp)
    return failures


@contextmanager
def _collecting(failures: list[Failure], path: bytes) -> Iterator[None]:
    """Keep an error of one file for the end."""
    try:
        yield
    except ThetaError as error:
        failures.append(Failure(path, error))
    except OSError as error:
        failures.append(Failure(path, RepositoryError(f"it cannot be read or written ({error.strerror})")))


def _is_meant(row: IndexEntry, presence: Presence) -> bool:
    """Whether a file that was not named is waiting for its checkpoint; sparse checkouts stay sparse."""
    return presence is Presence.MANIFEST or (presence is Presence.MISSING and not row.sparse)


def _checked(file: TrackedFile, place: Path, presence: Presence, *, force: bool) -> Manifest:
    """The manifest of a file that can and may be written; raises for any other."""
    if file.kind is Kind.INVALID:
        raise ManifestError(file.problem)
    if file.manifest is None:
        raise InputError("Git has it as it is, not as a manifest; run: git checkout -- PATH")
    if not force and (presence is Presence.CONTENT or (presence is Presence.MANIFEST and _differs(place, file))):
        raise InputError("it has changes that are not in the index; to overwrite them: git theta checkout --force PATH")
    return file.manifest


def _differs(place: Path, file: TrackedFile) -> bool:
    """Whether the manifest in the worktree is another than the index has."""
    with place.open("rb") as opened:
        text = opened.read(MAX_MANIFEST_BYTES + 1)
    try:
        return manifest.parse(text) != file.manifest
    except ManifestError:
        return True
