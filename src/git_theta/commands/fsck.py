"""`git theta fsck`: whether everything that history needs is here, and whole."""

from collections.abc import Mapping, Sequence

import click

from git_theta import audit, pointers, transfer
from git_theta.audit import Fault
from git_theta.commands import output
from git_theta.commands.place import open_place
from git_theta.errors import DamagedObjectError, ManifestError, MissingObjectError, RepositoryError
from git_theta.git import Repository
from git_theta.names import shown, shown_path

__all__ = ["command"]

_MOST = 20


@click.command(short_help="Check that all objects are here and whole.")
@click.option("--remote", metavar="NAME", is_flag=False, flag_value="", help="Check what a remote has instead.")
@click.option("--dry-run", "-n", is_flag=True, help="Leave damaged objects where they are.")
def command(remote: str | None, dry_run: bool) -> int:
    """Check every manifest of every branch, tag, stash, reflog and index, and read every object that they name.

    Damaged objects are moved to theta/damaged in the Git directory, so that a fetch or `git add` can bring whole ones.
    Versions that came from a remote and were never checked out need not be here: they are counted, and are no fault.
    With --remote, the objects of what was pushed there are compared with the pointers that the remote keeps, and its
    LFS server is asked.
    """
    place = open_place()
    repository = place.repository
    if remote is not None:
        return _check_remote(repository, remote or _first_remote(repository))
    found = audit.needs(repository)
    for item in found.broken:
        output.complain(f"blob {item.blob}", f"its manifest cannot be used: {item.problem}")
    store = place.store()
    with output.progress(sum(found.objects.values())) as begin:
        faults = audit.check(found.objects, store, begin("objects"))
    absent = [oid for oid, fault in faults.items() if fault is Fault.MISSING]
    later = {oid: found.objects[oid] for oid in audit.not_fetched(repository, absent)} if absent else {}
    for oid in later:
        del faults[oid]
    _report(repository, found.manifests, faults)
    damaged = [oid for oid, fault in faults.items() if fault is Fault.DAMAGED]
    if damaged and not dry_run:
        audit.set_aside(damaged, store)
        print(f"{output.count(len(damaged), 'damaged object')} moved to {shown_path(str(store.root / 'damaged'))}")
    size = output.size(sum(found.objects.values()))
    whole = len(found.objects) - len(faults) - len(later)
    print(
        f"{output.count(len(found.manifests), 'checkpoint')}: "
        f"{whole:,} of {len(found.objects):,} objects are whole ({size})"
    )
    if later:
        versions = len({blob for blob, _, _ in audit.sufferers(repository, found.manifests, later)})
        print(
            f"not on this machine: {output.count(len(later), 'object')} ({output.size(sum(later.values()))}) of "
            f"{output.count(versions, 'other version')}; to bring them: git theta fetch --all"
        )
    if faults:
        print("to fetch the others: git theta fetch --all; or git add a file that has these parameters again")
    if damaged:
        return DamagedObjectError.exit_code
    if faults:
        return MissingObjectError.exit_code
    return ManifestError.exit_code if found.broken else 0


def _report(repository: Repository, blobs: Sequence[str], faults: Mapping[str, Fault]) -> None:
    """A line for each parameter that suffers, with a commit that has it; the first of many."""
    places: dict[str, str] = {}
    for count, (blob, name, oid) in enumerate(audit.sufferers(repository, blobs, faults) if faults else ()):
        if count == _MOST:
            print("... and others")
            return
        if blob not in places:
            places[blob] = shown_path(repository.place_of(blob) or f"blob {blob}")
        what = f"parameter '{shown(name)}'" if name else "the layout"
        print(f"{places[blob]}: {what}: object {oid} is {faults[oid].value}")


def _first_remote(repository: Repository) -> str:
    found = transfer.remotes(repository)
    if not found:
        raise RepositoryError("the repository has no remote; to name one: git remote add origin URL")
    return found[0]


def _check_remote(repository: Repository, remote: str) -> int:
    needed = transfer.objects_of(repository, repository.remote_tracking(remote), [])
    found, name = transfer.holding(repository, remote, needed), shown_path(remote)
    if found.are_all or not found.lacking:
        there = f"{len(needed) - len(found.lacking):,} of {len(needed):,} objects of what was pushed are"
        print(f"{name}: {there} {'kept there' if found.is_kept or not needed else 'there'}")
    else:
        print(f"{name}: object {min(found.lacking)} of what was pushed is not there, nor may others be")
    if found.doubt:
        print(f"that is what its {pointers.REF} says; its LFS server could not be asked: {found.doubt}")
    if found.lacking:
        print(f"to send what is not there: git theta push --all {name}")
    elif needed and not found.is_kept:
        print(f"no {pointers.REF} keeps them from being cleaned up; to make it: git theta push --all {name}")
    return MissingObjectError.exit_code if found.lacking else 0
