"""`git theta ls-files`: the tracked files."""

import os

import click

from git_theta import tracked, worktree
from git_theta.commands import output
from git_theta.commands.place import Place, open_place
from git_theta.errors import ManifestError
from git_theta.names import shown_path
from git_theta.tracked import Kind, TrackedFile
from git_theta.worktree import Presence

__all__ = ["command"]

_SHORT_DIGEST = 10


@click.command(short_help="List the tracked files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.argument("path", nargs=-1, type=click.Path())
def command(as_json: bool, path: tuple[str, ...]) -> int:
    """List the tracked files at PATH, a file or a directory, or all.

    A line is the beginning of the checkpoint's digest, "*" where the checkpoint lies in the worktree or "-" where it
    does not, its size, the number of parameters, and the path from the worktree's root.
    """
    place = open_place()
    items = []
    exit_code = 0
    for file in tracked.find(place.repository, place.entries(path)):
        items.append(_item(place, file))
        if file.kind is Kind.INVALID:
            exit_code = ManifestError.exit_code
            output.complain(file.path, file.problem)
    if as_json:
        output.print_json({"files": items})
    elif items:
        output.print_table(("", "", "", "", ""), [_cells(item) for item in items], right=(2, 3))
    return exit_code


def _item(place: Place, file: TrackedFile) -> dict[str, object]:
    # The path is the index's, so this only looks; what writes asks `worktree.locate`.
    presence = worktree.look(place.repository.top() / os.fsdecode(file.path))
    manifest = file.manifest
    return {
        "path": os.fsdecode(file.path),
        "kind": file.kind.value,
        "materialised": presence is Presence.CONTENT,
        "format": manifest.format if manifest else None,
        "size_bytes": manifest.size if manifest else None,
        "parameters": len(manifest.parameters) if manifest else None,
        "digest": manifest.digest if manifest else None,
        "problem": file.problem or None,
    }


def _cells(item: dict[str, object]) -> list[str]:
    digest, size, parameters = item["digest"], item["size_bytes"], item["parameters"]
    return [
        digest[:_SHORT_DIGEST] if isinstance(digest, str) else f"({item['kind']})",
        "*" if item["materialised"] else "-",
        output.size(size) if isinstance(size, int) else "",
        f"{parameters:,}" if isinstance(parameters, int) else "",
        shown_path(str(item["path"])),
    ]
