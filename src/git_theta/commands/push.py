"""`git theta push`: send objects without pushing commits."""

import click

from git_theta import transfer
from git_theta.commands import output
from git_theta.commands.place import open_place
from git_theta.errors import RepositoryError
from git_theta.names import shown_path

__all__ = ["command"]


@click.command(short_help="Send objects to a remote, as `git push` does by itself.")
@click.option("--all", "everything", is_flag=True, help="Objects of all commits, whether the remote has them or not.")
@click.argument("remote", required=False)
@click.argument("revision", nargs=-1)
def command(everything: bool, remote: str | None, revision: tuple[str, ...]) -> int:
    """Send the objects of REVISION (HEAD, if none is named) to REMOTE: what `git push` does before it sends commits.

    Only commits are looked at that the remote-tracking branches of REMOTE do not have. With --all, every commit of
    every branch and tag is: to fill a new remote, or one that has lost objects.
    """
    place = open_place()
    found = transfer.remotes(place.repository)
    if remote is None and not found:
        raise RepositoryError("the repository has no remote; to name one: git remote add origin URL")
    target = remote or found[0]
    if everything:
        objects = transfer.objects_of(place.repository, ["--all"], [])
    else:
        # What a remote has that is pushed to elsewhere than it is fetched from, its remote-tracking refs do not tell.
        elsewhere = bool(place.repository.push_urls(target))
        exclude = [] if elsewhere else place.repository.remote_tracking(target)
        objects = transfer.objects_to_send(place.repository, revision or ("HEAD",), exclude)
    output.warn_unkept(target, transfer.push(place.repository, target, objects, place.store()))
    print(f"{output.count(len(objects), 'object')} ({output.size(sum(objects.values()))}) on {shown_path(target)}")
    return 0
