"""`git theta uninstall`: take back what `git theta install` set."""

from pathlib import Path

import click

from git_theta import hooks, installation
from git_theta.commands.install import scope_options
from git_theta.git import discover

__all__ = ["command"]


@click.command(short_help="Take back what `git theta install` set.")
@scope_options
def command(scope: str | None) -> None:
    """Take back what `git theta install` set, and nothing else; with --local, the pre-push hook as well.

    Tracked files stay tracked; until git-theta is installed again, Git adds and checks them out as they are.
    """
    scope = scope or installation.DEFAULT_SCOPE
    changed = installation.uninstall(scope, Path.cwd())
    if scope == "local" and hooks.remove(discover()):
        changed = True
    print(f"{'removed from' if changed else 'nothing to remove in'} the {scope} Git configuration")
