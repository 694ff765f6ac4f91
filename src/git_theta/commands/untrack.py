"""`git theta untrack`: the reverse of `git theta track`."""

from contextlib import suppress

import click

from git_theta import attributes, patterns, tracked
from git_theta.attributes import FILE_NAME
from git_theta.commands import output
from git_theta.commands.place import open_place
from git_theta.errors import InputError
from git_theta.names import shown_path
from git_theta.tracked import Kind

__all__ = ["command"]


@click.command(short_help="Track files as checkpoints no more.")
@click.argument("pattern", nargs=-1, required=True, type=click.Path())
def command(pattern: tuple[str, ...]) -> None:
    """Remove PATTERN, spelled as it was tracked, from .gitattributes in the current directory, and stage that."""
    place = open_place()
    place.repository.top()
    text = patterns.read(place.cwd)
    for item in pattern:
        spellings = dict.fromkeys((item.encode("utf-8", "surrogateescape"), patterns.pattern_of(item, place.cwd)))
        shorter = text
        for spelling in spellings:
            shorter = attributes.remove(shorter, spelling)
        if shorter == text:
            raise InputError(
                f"{shown_path(item)}: {FILE_NAME} here does not track it; `git theta track` lists what is tracked where"
            )
        text = shorter
    # A manifest in the worktree would be committed as the text that it is.
    before = tracked.entries(place.repository)
    patterns.edit(place.repository, place.cwd, text)
    after = {entry.path for entry in tracked.entries(place.repository)}
    for item in pattern:
        still = False
        with suppress(InputError):  # a pattern may be no path
            still = place.repository.path_of(item, place.cwd) in after
        if still:
            print(
                f"its line is gone, and another one tracks it still: {shown_path(item)}; to see which: git theta track"
            )
        else:
            print(f"no longer tracked: {shown_path(item)}")
    lost = [entry for entry in before if entry.path not in after]
    for file in tracked.find(place.repository, lost):
        if file.kind is Kind.MANIFEST:
            output.complain(
                file.path,
                "Git still has its manifest; to have Git store the checkpoint as it is, run: "
                f"git add --renormalize -- {place.typed(file.path)}",
            )
