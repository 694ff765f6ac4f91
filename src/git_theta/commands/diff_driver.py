"""`git theta diff-driver`: what Git starts for `git diff` of a checkpoint."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from git_theta.commands.place import find_place
from git_theta.drivers.caller import wants_colours
from git_theta.drivers.diff import Pair, Side, parse
from git_theta.errors import ManifestError, ThetaError
from git_theta.names import shown_path

if TYPE_CHECKING:
    from git_theta.commands.comparer import Comparer
    from git_theta.commands.diff_output import Text
    from git_theta.versions import Version

__all__ = ["command"]


@click.command(
    short_help="What Git starts for a diff of a checkpoint.", context_settings={"ignore_unknown_options": True}
)
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """What Git starts, with arguments of its own, for `git diff` of a checkpoint, where diff.theta.command says so."""
    from git_theta.depot import make_ready

    make_ready()
    pair = parse(arguments)
    try:
        _print(pair)
        sys.stdout.flush()
    except BrokenPipeError:
        # The user has left the pager. Git learns of it by itself, and would complain of a driver that fails.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(pair: Pair) -> None:
    from git_theta.commands.comparer import Comparer
    from git_theta.commands.diff_output import Text
    from git_theta.grouping import Sort

    place = find_place()
    show = Text(place, full=False, sort=Sort.NAME, told=wants_colours())
    title = " -> ".join(map(shown_path, dict.fromkeys(pair.paths)))
    if pair.unmerged:
        print(f"{title}  is in conflict")
        return
    try:
        with Comparer(place) as comparer:
            _compare(comparer, pair, show)
    except ThetaError as error:
        # Git would end its diff with the first driver that fails, and not show the files that are left.
        print(f"{title}  cannot be compared: {error}")


def _compare(comparer: "Comparer", pair: Pair, show: "Text") -> None:
    with ExitStack() as stack:
        before, after = (_version(comparer, side, stack) if side else None for side in (pair.before, pair.after))
        comparer.compare(before, after, [os.fsencode(path) for path in pair.paths], show)


def _version(comparer: "Comparer", side: Side, stack: ExitStack) -> "Version | None":
    """The version of the manifest that Git has, or of the file, if it has none."""
    if side.oid and comparer.place:
        try:
            return comparer.of_blob(side.oid)
        except ManifestError:
            pass  # a file that is stored as it is, or an oid that Git only computed
    return stack.enter_context(comparer.of_file(Path(side.file)))
