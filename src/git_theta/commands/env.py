"""`git theta env`: what a bug report should say."""

import os
import platform
import sys

import click

from git_theta import __version__, git, installation, lfs
from git_theta.commands import output
from git_theta.commands.place import find_place
from git_theta.names import shown_path

__all__ = ["command"]


@click.command(short_help="Show versions, settings and paths, for a bug report.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document.")
def command(as_json: bool) -> None:
    """Show the versions, settings and paths that hold here."""
    version = lfs.version()
    rows = {
        "git-theta": __version__,
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "git": ".".join(map(str, git.version())),
        "git-lfs": ".".join(map(str, version)) if version else "not installed",
    }
    place = find_place()
    if place is None:
        rows["repository"] = "none"
    else:
        repository, settings = place.repository, place.settings()
        rows |= {
            "worktree": str(repository.worktree or "none (bare)"),
            "objects": str(repository.theta_dir / "objects"),
            "filter": str(repository.config("filter").get(installation.PROCESS_KEY.lower())),
            "remotes": ", ".join(repository.remotes()) or "none",
            "threads": str(settings.thread_count),
            "theta.compression": settings.compression,
            "theta.maxObjectSize": str(settings.max_object_bytes),
            "theta.streamLimit": str(settings.stream_limit_bytes),
            "theta.smudgeLimit": str(settings.smudge_limit),
            "theta.skipSmudge": str(settings.skip_smudge).lower(),
            "theta.fsync": str(settings.fsync).lower(),
        }
    rows |= {name: value for name, value in sorted(os.environ.items()) if name.startswith("GIT_THETA_")}
    if as_json:
        output.print_json({"env": rows})
    else:
        output.print_table(("", ""), [(name, shown_path(value)) for name, value in rows.items()])
