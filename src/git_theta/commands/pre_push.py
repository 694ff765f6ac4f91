"""`git theta pre-push`: what the hook runs."""

import sys

import click

from git_theta import transfer
from git_theta.commands import output
from git_theta.commands.place import open_place

__all__ = ["command"]


@click.command(short_help="Send the objects of commits that are being pushed (the hook runs it).")
@click.argument("remote")
@click.argument("url", required=False)
def command(remote: str, url: str | None) -> int:
    """Send the objects of the commits that Git is about to push to REMOTE, as the pre-push hook.

    Standard input holds a line for each ref, as githooks(5) says. Where not all objects can be sent, the push fails.
    """
    refs = transfer.parse_pushed(sys.stdin.read())
    place = open_place()
    objects = transfer.objects_to_push(place.repository, remote, refs, url)
    if not objects:
        return 0
    target = transfer.push_target(place.repository, remote, url)
    output.warn_unkept(remote, transfer.push(place.repository, target, objects, place.store()))
    return 0
