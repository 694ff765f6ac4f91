"""`git theta pull`: fetch, then check out."""

import sys

import click

from git_theta import transfer
from git_theta.commands.checkout import check_out
from git_theta.commands.fetch import index_objects
from git_theta.commands.place import open_place
from git_theta.errors import ThetaError

__all__ = ["command"]


@click.command(short_help="Fetch what checkpoints need, and put them into the worktree.")
@click.option("--remote", metavar="NAME", help="Where to fetch from; otherwise any remote that has the objects.")
@click.option("--force", "-f", is_flag=True, help="Overwrite files that differ from the index.")
@click.argument("path", nargs=-1, type=click.Path())
def command(remote: str | None, force: bool, path: tuple[str, ...]) -> int:
    """Fetch the objects of the checkpoints at PATH (all, if none is named), and put them into the worktree.

    Where a clone could not check out HEAD, and so has no index, that is made up for, other files included.
    """
    place = open_place()
    place.repository.top()
    is_new = place.repository.make_index()
    code = 0
    try:
        transfer.fetch(place.repository, index_objects(place, path), place.store(), remote)
    except ThetaError as error:
        # Files that lack nothing are dealt with all the same.
        sys.stderr.write(f"git-theta: {error}\n")
        code = error.exit_code
    failed = check_out(place, path, force=force)
    if is_new:
        place.repository.write_missing({"GIT_THETA_SKIP_SMUDGE": "1"})
    return code or failed
