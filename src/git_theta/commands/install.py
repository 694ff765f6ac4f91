"""`git theta install`: have Git start Git-Theta."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from git_theta import installation

__all__ = ["command", "scope_options"]

_SCOPE_HELP = {
    "global": "for you, in every repository (the default)",
    "local": "for this repository",
    "system": "for everyone on this machine",
    "worktree": "for this worktree of the repository",
}


def scope_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that choose whose configuration is meant; the parameter is `scope`, None for the default."""
    for scope in reversed(installation.SCOPES):
        function = click.option(f"--{scope}", "scope", flag_value=scope, help=_SCOPE_HELP[scope])(function)
    return function


@click.command(short_help="Have Git start git-theta for tracked files.")
@scope_options
def command(scope: str | None) -> None:
    """Have Git start git-theta for tracked files: once per machine, as `git lfs install`.

    Sets filter.theta.* and merge.theta.* in Git's configuration, and nothing else.
    """
    scope = scope or installation.DEFAULT_SCOPE
    changed = installation.install(scope, Path.cwd())
    said = "set" if changed else "already set"
    process = installation.settings()[installation.PROCESS_KEY]
    print(f"{said} in the {scope} Git configuration: {installation.PROCESS_KEY} = {process}")
