"""`git theta prune`: remove objects that nothing needs."""

import click

from git_theta import audit, transfer
from git_theta.commands import output
from git_theta.commands.place import open_place

__all__ = ["command"]


@click.command(short_help="Remove objects that nothing in this repository needs.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be removed.")
@click.option("--force", "-f", is_flag=True, help="Remove also what no remote is known to have.")
def command(dry_run: bool, force: bool) -> None:
    """Remove objects that no branch, tag, stash, reflog, index or worktree needs.

    What no remote is known to have stays, unless --force is given, and so does what is younger than an hour, which may
    belong to a commit that is being made.
    """
    place = open_place()
    store = place.store()
    needed = audit.needs(place.repository)
    if needed.broken:
        # What a manifest that cannot be read needs is not known.
        raise audit.unreadable(needed)
    spare = audit.spare(place.repository, store, needed.objects, transfer.remotes(place.repository))
    doomed = spare.elsewhere | (spare.only_here if force else {})
    if not dry_run:
        doomed = audit.remove(doomed, store)
    verb = "would remove" if dry_run else "removed"
    print(f"{verb} {output.count(len(doomed), 'object')} ({output.size(sum(doomed.values()))})")
    if spare.only_here and not force:
        size = output.size(sum(spare.only_here.values()))
        kept = output.count(len(spare.only_here), "object")
        print(f"kept {kept} ({size}) that no remote is known to have: --force removes them")
    if spare.young:
        print(f"kept {output.count(len(spare.young), 'object')} younger than an hour")
