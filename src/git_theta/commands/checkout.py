"""`git theta checkout`: checkpoints into the worktree, past Git, which would hold each in memory whole."""

from contextlib import closing

import click

from git_theta import checkouts
from git_theta.commands import output
from git_theta.commands.place import Place, open_place
from git_theta.names import shown_path

__all__ = ["check_out", "command"]


@click.command(short_help="Put checkpoints into the worktree, whatever their size.")
@click.option("--force", "-f", is_flag=True, help="Overwrite files that differ from the index.")
@click.argument("path", nargs=-1, type=click.Path())
def command(force: bool, path: tuple[str, ...]) -> int:
    """Put the checkpoints that the index has at PATH, a file or a directory, into the worktree, whatever their size.

    Without PATH: all whose file is missing or still a manifest. Each is written beside its place, verified and renamed;
    where one fails, what was there stays, and the others are dealt with.
    """
    return check_out(open_place(), path, force=force)


def check_out(place: Place, path: tuple[str, ...], *, force: bool) -> int:
    """Do it, say what was done; the exit code."""
    from git_theta.depot import open_depot

    rows = place.entries(path)
    depot = open_depot(place.repository.theta_dir, place.settings())
    with closing(depot.catalogue):
        plan = checkouts.plan(place.repository, rows, depot, named=bool(path), force=force)
        with output.progress(sum(write.size for write in plan.writes)) as begin:
            late = checkouts.carry_out(
                place.repository, plan.writes, depot, lambda write: begin(shown_path(write.path))
            )
    failures = [*plan.failures, *late]
    for failure in failures:
        output.complain(failure.path, failure.error)
    failed = {failure.path for failure in late}
    written = [write for write in plan.writes if write.path not in failed]
    if written:
        size = output.size(sum(write.size for write in written))
        print(f"checked out {output.count(len(written), 'file')} ({size})")
    elif not failures:
        print("nothing to check out: every file is in place")
    return failures[0].error.exit_code if failures else 0
