"""`git theta track`: which files are checkpoints, in `.gitattributes`."""

import os

import click

from git_theta import attributes, installation, patterns, tracked
from git_theta.attributes import FILE_NAME
from git_theta.commands import output
from git_theta.commands.place import Place, open_place
from git_theta.errors import RepositoryError
from git_theta.names import shown_path
from git_theta.tracked import Kind

__all__ = ["command"]


@click.command(short_help="Track files as checkpoints, or list what is tracked.")
@click.argument("pattern", nargs=-1, type=click.Path())
def command(pattern: tuple[str, ...]) -> None:
    """Track the files that match PATTERN as checkpoints; without one, list the tracked patterns.

    Writes .gitattributes in the current directory and stages it. A PATTERN is that of gitattributes(5), such as
    "*.safetensors" (in quotes, or the shell takes it), or the path of a file or directory. "model.pt" is every file of
    that name, here and below; "./model.pt" is the one here.
    """
    place = open_place()
    place.repository.top()
    if not pattern:
        _list(place)
        return
    if not installation.is_installed(place.repository):
        raise RepositoryError(
            "Git does not know git-theta yet, and would store checkpoints as they are; run: git theta install"
        )
    wanted = {item: patterns.pattern_of(item, place.cwd) for item in pattern}
    named = [place.repository.path_of(item, place.cwd) for item in pattern if os.path.isfile(item)]  # noqa: PTH113  # Path raises for a name too long
    before = patterns.filters(place.repository, named)
    old = text = patterns.read(place.cwd)
    said = []
    for item in wanted.values():
        longer = attributes.add(text, item)
        said.append(f"{'already tracked' if longer == text else 'tracking'}: {shown_path(item)}")
        text = longer
    if text != old:
        patterns.edit(place.repository, place.cwd, text)
    print("\n".join(said))
    _warn_of_lfs(old, set(wanted.values()))
    _warn_of_files(place, before, patterns.filters(place.repository, named), named)


def _list(place: Place) -> None:
    found = patterns.find(place.repository)
    if not found:
        print("no tracked patterns; to track files: git theta track PATTERN")
        return
    output.print_table(("", ""), [(shown_path(pattern), shown_path(name)) for pattern, name in found])


def _warn_of_lfs(text: bytes, wanted: set[bytes]) -> None:
    """Say which lines of the file gave these patterns to git-lfs."""
    for number, line in enumerate(attributes.parse(text), start=1):
        if line.pattern in wanted and line.values.get(b"filter") == b"lfs":
            output.complain(
                f"{FILE_NAME}:{number}",
                f"git-lfs tracks '{shown_path(line.pattern or b'')}', too; the later line wins, so it is git-theta's "
                "now; remove that line",
            )


def _warn_of_files(place: Place, before: dict[bytes, str], after: dict[bytes, str], named: list[bytes]) -> None:
    """Say which files Git has stored otherwise until now, and which are not tracked in spite of all."""
    gained = {path for path, value in after.items() if value == tracked.FILTER and before.get(path) != value}
    for path in named:
        if after[path] != tracked.FILTER:
            output.complain(path, f"not tracked: a later or deeper line gives it filter={after[path]}")
    rows = [entry for entry in tracked.entries(place.repository) if entry.path in gained] if gained else []
    plain = [file.path for file in tracked.find(place.repository, rows) if file.kind is Kind.PLAIN]
    for path in plain:
        if before[path] == "lfs":
            what = "was git-lfs' until now; once its content is here (git lfs pull), run"
        else:
            what = "is already stored in Git as it is; to have git-theta store its next version, run"
        output.complain(path, f"{what}: git add --renormalize -- {place.typed(path)}")
