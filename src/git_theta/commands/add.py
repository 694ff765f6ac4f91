"""`git theta add`: stage a checkpoint by an update that the user brings; without one, `git add`."""

from contextlib import closing
from pathlib import Path

import click

from git_theta import git
from git_theta.commands import output
from git_theta.commands.place import Place, open_place
from git_theta.errors import ThetaError
from git_theta.names import shown_path

__all__ = ["command"]


@click.command(short_help="Stage a checkpoint by an update that you bring, such as a LoRA adapter.")
@click.option("--update-type", metavar="TYPE", help="What the update is: low-rank, ia3, sparse, dense, or a plugin's.")
@click.option(
    "--update-path", "--update-data", type=click.Path(), help="A PEFT adapter's directory, or a file of tensors."
)
@click.option("--expect", type=click.Path(), help="A file with the checkpoint that the update is to give.")
@click.argument("path", nargs=-1, required=True, type=click.Path())
def command(update_type: str | None, update_path: str | None, expect: str | None, path: tuple[str, ...]) -> int:
    """Stage the checkpoint at PATH by an update of what HEAD has there: its factors are stored, not its values.

    If the file still has the values of HEAD, the update is applied, and the new checkpoint written to PATH. If it has
    others, they have to be what the update gives. Without --update-type: `git add` of every PATH.
    """
    place = open_place()
    if update_type is None and update_path is None and expect is None:
        return git.run_attached(["add", "--", *path], cwd=place.cwd)
    if update_type is None or update_path is None:
        raise click.UsageError("--update-type and --update-path go together.")
    if len(path) > 1:
        raise click.UsageError("An update is of one PATH.")
    try:
        _add(place, path[0], update_type, Path(update_path), None if expect is None else Path(expect))
    except ThetaError as error:
        raise type(error)(f"{shown_path(path[0])}: {error}") from error
    return 0


def _add(place: Place, path: str, update: str, brought: Path, expected: Path | None) -> None:
    """Do it, and say what was done."""
    from git_theta import additions
    from git_theta.depot import open_depot

    name = place.repository.path_of(path, place.cwd)
    depot = open_depot(place.repository.theta_dir, place.settings())
    result = Path(path) if expected is None else expected
    total = 2 * result.stat().st_size if result.is_file() else 0
    with closing(depot.catalogue), output.progress(total) as begin:
        made = additions.add(place.repository, name, depot, update, brought, expected, begin)
    parameters = output.count(len(made.parameters), "parameter")
    where = "written to the file and staged" if made.written else "found in the file and staged"
    print(f"{shown_path(path)}: {parameters} updated by {update}, {where}")
    if made.whole:
        stored = output.count(len(made.whole), "parameter")
        print(
            f"{stored} stored whole all the same: the updates behind {'it' if len(made.whole) == 1 else 'them'} are "
            "too many or too large to add one more"
        )
