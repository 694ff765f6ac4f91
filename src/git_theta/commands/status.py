"""`git theta status`: how the tracked files stand."""

import os

import click

from git_theta import installation, standing
from git_theta.commands import output
from git_theta.commands.place import open_place
from git_theta.names import shown_path
from git_theta.standing import Standing
from git_theta.tracked import Kind
from git_theta.worktree import Presence

__all__ = ["command"]


@click.command(short_help="Show how the tracked files stand.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(as_json: bool) -> None:
    """Show how every tracked file stands: clean, modified, staged, missing from the worktree, not materialised (its
    manifest lies in the worktree), in conflict; and which objects are missing on this machine.
    """
    place = open_place()
    place.repository.top()
    rows = standing.of_all(place.repository, place.store())
    if as_json:
        output.print_json({"installed": installation.is_installed(place.repository), "files": [*map(_item, rows)]})
        return
    if not installation.is_installed(place.repository):
        click.echo("git-theta: Git does not know git-theta here; run: git theta install", err=True)
    kept = [row for row in rows if row.kind is not Kind.PLAIN]
    plain = [row.path for row in rows if row.kind is Kind.PLAIN]
    if kept:
        output.print_table(("", "", ""), [_cells(row) for row in kept])
    elif not plain:
        print("no tracked files; to track some: git theta track PATTERN, then git add")
    if left := [row for row in kept if row.presence is Presence.MANIFEST]:
        verb = "pull" if any(row.missing for row in left) else "checkout"
        print(f"\nto put checkpoints in place of their manifests: git theta {verb}")
    if plain:
        print("\ntracked, but Git has them as they are; to have git-theta store their next version:")
        for path in plain:
            print(f"  git add --renormalize -- {place.typed(path)}")
    for row in kept:
        if row.problem:
            output.complain(row.path, row.problem)


def _cells(row: Standing) -> list[str]:
    note = ""
    if row.missing:
        note = f"{output.count(len(row.missing), 'object')} missing ({output.size(sum(row.missing.values()))})"
    if row.problem:
        note = "unusable manifest"
    return [row.words, shown_path(row.path), note]


def _item(row: Standing) -> dict[str, object]:
    return {
        "path": os.fsdecode(row.path),
        "kind": row.kind.value if row.kind else None,
        "staged": row.staged or None,
        "worktree": row.worktree,
        "materialised": row.presence is Presence.CONTENT,
        "objects": output.object_counts(row.objects, row.missing),
        "problem": row.problem or None,
    }
