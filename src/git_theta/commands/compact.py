"""`git theta compact`: what is kept as chains of updates is stored whole again, and staged."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from git_theta import manifest, staging, tracked, worktree
from git_theta.commands import output
from git_theta.commands.place import Place, open_place
from git_theta.errors import ManifestError, ThetaError
from git_theta.git import IndexEntry, Repository
from git_theta.manifest import Manifest
from git_theta.names import shown_path
from git_theta.source import stamp_of
from git_theta.staging import Change
from git_theta.store import Store
from git_theta.tracked import TrackedFile
from git_theta.worktree import Presence

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Job:
    """A file with chains: how many parameters they are, the bytes stored for them, and the bytes of their values.

    `status` is how a file lies at `place`, if one does.
    """

    entry: IndexEntry
    place: Path
    status: os.stat_result | None
    parameters: int
    stored: int
    size: int


@click.command(short_help="Store whole what is kept as chains of updates.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be stored whole.")
@click.argument("path", nargs=-1, required=True, type=click.Path())
def command(dry_run: bool, path: tuple[str, ...]) -> int:
    """Store whole what is kept as chains of updates in the checkpoints at PATH, a file or a directory, and stage it.

    The checkpoints stay as they are, in the worktree, too; only their manifests change, and wait in the index to be
    committed. A chain of several steps takes longer to check out, and needs the objects of every version that it
    builds on.
    """
    place = open_place()
    rows = place.entries(path)
    codes: list[int] = []
    jobs = _plan(place, rows, codes)
    after = 0
    if not dry_run:
        jobs, after = _carry_out(place, jobs, codes)
    if jobs:
        parameters = output.count(sum(job.parameters for job in jobs), "parameter")
        files, stored = output.count(len(jobs), "file"), output.size(sum(job.stored for job in jobs))
        if dry_run:
            most = output.size(sum(job.size for job in jobs))
            print(f"would compact {parameters} of {files}: {stored} as chains, at most {most} stored whole")
        else:
            print(f"compacted {parameters} of {files}: {stored} as chains, {output.size(after)} stored whole")
    elif not codes:
        print("nothing to compact: no parameter is stored as a chain")
    return codes[0] if codes else 0


@contextmanager
def _collecting(path: bytes, codes: list[int]) -> Iterator[None]:
    """Say an error of one file, and keep its exit code."""
    try:
        yield
    except ThetaError as error:
        output.complain(path, error)
        codes.append(error.exit_code)


def _plan(place: Place, rows: Sequence[IndexEntry], codes: list[int]) -> list[_Job]:
    """The files with chains that can be compacted."""
    store = place.store()
    jobs = []
    for file in tracked.find(place.repository, rows):
        with _collecting(file.path, codes):
            if file.problem:
                raise ManifestError(file.problem)
            if file.manifest is not None:
                jobs += _job(place.repository, store, file.entry, file.manifest)
    return jobs


def _job(repository: Repository, store: Store, entry: IndexEntry, found: Manifest) -> list[_Job]:
    """What is to be done for a file, if anything is."""
    from git_theta import compaction

    chains = compaction.chains(found)
    if not chains:
        return []
    worktree.check_objects(replace(found, parameters=chains), store)
    place = worktree.locate(repository, entry.path)
    status = place.lstat() if place.exists() else None
    records = list(chains.values())
    size = sum(record.size for record in records)
    return [_Job(entry, place, status, len(chains), compaction.stored_bytes(records), size)]


def _carry_out(place: Place, jobs: Sequence[_Job], codes: list[int]) -> tuple[list[_Job], int]:
    """Do it for each file; those that were done, and the bytes that are stored for their parameters now."""
    from git_theta import compaction
    from git_theta.depot import open_depot

    repository = place.repository
    changes = repository.changes([job.entry.path for job in jobs]) if jobs else {}
    depot = open_depot(repository.theta_dir, place.settings())
    done = []
    after = 0
    with closing(depot.catalogue), output.progress(sum(job.size for job in jobs)) as begin:
        files = tracked.find(repository, [job.entry for job in jobs])
        for job, file in zip(jobs, files, strict=True):
            with _collecting(file.path, codes):
                before = _manifest(file)
                made = compaction.compact(before, depot, progress=begin(shown_path(file.path)))
                _stage(repository, depot.store, job, made, clean=changes.get(file.path, "..").endswith("."))
                done.append(job)
                after += compaction.stored_bytes([made.parameters[name] for name in compaction.chains(before)])
    return done, after


def _manifest(file: TrackedFile) -> Manifest:
    if file.manifest is None:
        raise ManifestError(file.problem)
    return file.manifest


def _stage(repository: Repository, store: Store, job: _Job, made: Manifest, *, clean: bool) -> None:
    """Stage a manifest; `clean`: the worktree has what the index had."""
    text = manifest.format(made)
    presence = worktree.look(job.place)
    status = job.status if clean and presence is Presence.CONTENT else None
    staging.stage(repository, [Change(job.entry, text, status)])
    seen = worktree.stamp(job.place)
    if clean and presence is Presence.MANIFEST and job.status is not None and seen == stamp_of(job.status):
        # Left as it is, the old manifest would be a change that is not staged, and `git add` would undo this.
        worktree.write(job.place, text, executable=job.entry.mode == "100755", folder=store.root / "tmp")
