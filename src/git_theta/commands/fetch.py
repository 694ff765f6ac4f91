"""`git theta fetch`: bring objects here, and leave the worktree alone."""

import click

from git_theta import tracked, transfer
from git_theta.commands import output
from git_theta.commands.place import Place, open_place

__all__ = ["command", "index_objects"]


@click.command(short_help="Fetch the objects of checkpoints, and leave the worktree alone.")
@click.option("--remote", metavar="NAME", help="Where to fetch from; otherwise any remote that has them.")
@click.option("--all", "everything", is_flag=True, help="Objects of all commits, not only of what is checked out.")
@click.argument("revision", nargs=-1)
def command(remote: str | None, everything: bool, revision: tuple[str, ...]) -> int:
    """Fetch the objects that the checkpoints of REVISION (what is checked out, if none is named) need.

    All that are missing come in one call of git-lfs, which checks their hashes and goes on where it was interrupted.
    """
    place = open_place()
    if everything or revision:
        trees = [f"{name}^{{tree}}" for name in revision]
        objects = transfer.objects_of(place.repository, ["--all"] if everything else trees, [])
    else:
        objects = index_objects(place, ())
    missing = place.store().missing(objects)
    transfer.fetch(place.repository, objects, place.store(), remote)
    print(f"fetched {output.count(len(missing), 'object')} ({output.size(sum(missing.values()))})")
    return 0


def index_objects(place: Place, paths: tuple[str, ...]) -> dict[str, int]:
    """The objects (oid to size in bytes) of the tracked files at or below paths, or of all but sparse ones."""
    objects: dict[str, int] = {}
    rows = [entry for entry in place.entries(paths) if paths or not entry.sparse]
    for file in tracked.find(place.repository, rows):
        if file.manifest:
            objects |= file.manifest.objects()
    return objects
